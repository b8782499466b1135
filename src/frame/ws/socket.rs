//! Waits: a WebSocket as messages.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role as TheirRole};
use tokio_tungstenite::tungstenite::{Error, Message as Theirs, Utf8Bytes};

use super::{ByteStream, Conf, WsError};

/// Bytes of a close frame's reason (RFC 6455 section 5.5: 125 with the code).
const REASON: usize = 123;

/// Which side of the connection: a client masks what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Who asked for the WebSocket.
    Client,
    /// Who granted it.
    Server,
}

/// One message, or a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Bytes.
    Binary(Bytes),
    /// Text; its bytes are valid UTF-8.
    Text(String),
    /// Are you there? The answer is queued when this comes out of [`WebSocket::next`], and leaves with the next call that
    /// receives, sends or flushes.
    Ping(Bytes),
    /// Yes.
    Pong(Bytes),
    /// The peer closes. The answer is queued, and leaves with the call of [`WebSocket::next`] that tells the end; who drops
    /// the socket before leaves the peer without one.
    Close(Close),
}

impl Message {
    /// A binary message.
    pub fn binary(data: impl Into<Bytes>) -> Self {
        Self::Binary(data.into())
    }

    /// A text message.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// Why a WebSocket is closed (RFC 6455 section 7.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The code; 1005 when the peer gave none.
    pub code: u16,
    /// A sentence, of at most 123 bytes on the wire.
    pub reason: String,
}

impl Close {
    /// 1000: what it was for is done.
    pub const NORMAL: u16 = 1000;
    /// 1001: this end goes away.
    pub const GOING_AWAY: u16 = 1001;
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// 1003: this end can not take what came.
    pub const UNSUPPORTED: u16 = 1003;
    /// 1005: no code was given.
    pub const NONE: u16 = 1005;
    /// 1007: what came is not what it says to be.
    pub const INVALID: u16 = 1007;
    /// 1008: what came is not allowed.
    pub const POLICY: u16 = 1008;
    /// 1009: what came is too long.
    pub const TOO_LONG: u16 = 1009;
    /// 1011: this end failed.
    pub const INTERNAL: u16 = 1011;
    /// 1013: this end has too much to do; try again later.
    pub const TRY_LATER: u16 = 1013;

    /// A code and a sentence.
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    fn from_theirs(frame: Option<CloseFrame>) -> Self {
        frame.map_or_else(|| Self::new(Self::NONE, ""), |f| Self::new(f.code.into(), f.reason.as_str()))
    }

    /// As it goes on the wire; a code that may not stand there (1005, 1006, …) is left out.
    fn theirs(self) -> Option<CloseFrame> {
        let sendable = matches!(self.code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let end = (0..=REASON.min(self.reason.len())).rev().find(|&at| self.reason.is_char_boundary(at)).unwrap_or(0);
        sendable.then(|| CloseFrame { code: self.code.into(), reason: Utf8Bytes::from(&self.reason[..end]) })
    }
}

/// A WebSocket over `S`. Dropping it drops the connection without a goodbye; [`close`](Self::close) says it.
#[derive(Debug)]
pub struct WebSocket<S> {
    inner: WebSocketStream<S>,
    /// The peer broke the protocol: it is told, and then the error comes out.
    failed: Option<WsError>,
    /// The peer has closed: its goodbye is answered, and that is the end.
    closing: bool,
    ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// A WebSocket over a stream that has been upgraded already, by another HTTP server for example; `rest` are the
    /// bytes that were read behind the upgrade.
    pub async fn after_upgrade(stream: S, rest: impl Into<BytesMut>, role: Role, conf: &Conf) -> Self {
        let role = match role {
            Role::Client => TheirRole::Client,
            Role::Server => TheirRole::Server,
        };
        let rest = Vec::from(&rest.into()[..]);
        let inner = WebSocketStream::from_partially_read(stream, rest, role, Some(conf.frames())).await;
        Self { inner, failed: None, closing: false, ended: false }
    }

    /// The next message; `None` when it is closed. The peer's [`Message::Close`] comes before that.
    ///
    /// # Errors
    /// [`WsError`]; nothing comes after one. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Message, WsError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`WsError`]. Cancelling may leave it queued; it is sent with the next.
    pub async fn send(&mut self, message: Message) -> Result<(), WsError> {
        self.feed(message).await?;
        self.flush().await
    }

    /// Queues a message; it is sent with the next [`flush`](Self::flush), or when the write buffer is full.
    ///
    /// # Errors
    /// [`WsError`]. Cancel safe: the message is queued or not.
    pub async fn feed(&mut self, message: Message) -> Result<(), WsError> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_send(message)
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// [`WsError`]. Cancel safe.
    pub async fn flush(&mut self) -> Result<(), WsError> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Says goodbye, waits for the peer's, dropping what still comes, and closes the connection. How long that may
    /// take is the caller's to limit; cancelling drops nothing but the waiting.
    ///
    /// # Errors
    /// [`WsError`] when it ended otherwise.
    pub async fn close(&mut self, close: Close) -> Result<(), WsError> {
        match self.start_send(Message::Close(close)) {
            Ok(()) => self.flush().await?,
            Err(WsError::Closed) => {}
            Err(error) => return Err(error),
        }
        while let Some(message) = self.next().await {
            message?;
        }
        Ok(())
    }

    /// As [`next`](Self::next), for who drives it by hand.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, WsError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.failed.is_none() && !self.closing {
            match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                Some(Ok(message)) => {
                    self.closing = matches!(message, Theirs::Close(_));
                    return Poll::Ready(Some(Ok(ours(message))));
                }
                Some(Err(error)) => self.fail(error),
                None => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
            }
        }
        // The connection ends either way, so that it can not be told matters no more.
        let _told = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        self.ended = true;
        Poll::Ready(self.failed.take().map(Err))
    }

    fn fail(&mut self, error: Error) {
        let error = wrong(error);
        let code = match &error {
            WsError::TooLong { .. } => Some(Close::TOO_LONG),
            WsError::Protocol { code, .. } => Some(*code),
            _ => None,
        };
        if let Some(code) = code {
            // It may be closed already: then there is nobody to tell.
            let _queued =
                Pin::new(&mut self.inner).start_send(Theirs::Close(Close::new(code, error.to_string()).theirs()));
        }
        self.failed = Some(error);
    }

    /// Ready when [`start_send`](Self::start_send) may be called.
    ///
    /// # Errors
    /// [`WsError`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        Pin::new(&mut self.inner).poll_ready(cx).map_err(wrong)
    }

    /// Queues a message, without waiting.
    ///
    /// # Errors
    /// [`WsError`].
    pub fn start_send(&mut self, message: Message) -> Result<(), WsError> {
        Pin::new(&mut self.inner).start_send(theirs(message)).map_err(wrong)
    }

    /// As [`flush`](Self::flush), for who drives it by hand.
    ///
    /// # Errors
    /// [`WsError`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(wrong)
    }

    /// The bytes of binary messages one after another, as a stream; a write is a message.
    pub fn into_bytes(self) -> ByteStream<S> {
        ByteStream::new(self)
    }

    /// What it runs on.
    pub fn get_ref(&self) -> &S {
        self.inner.get_ref()
    }
}

fn ours(message: Theirs) -> Message {
    match message {
        Theirs::Binary(data) => Message::Binary(data),
        Theirs::Text(text) => Message::Text(text.as_str().to_owned()),
        Theirs::Ping(data) => Message::Ping(data),
        Theirs::Pong(data) => Message::Pong(data),
        Theirs::Close(frame) => Message::Close(Close::from_theirs(frame)),
        // Never read, by its documentation; it would be the payload.
        Theirs::Frame(frame) => Message::Binary(frame.into_payload()),
    }
}

fn theirs(message: Message) -> Theirs {
    match message {
        Message::Binary(data) => Theirs::Binary(data),
        Message::Text(text) => Theirs::Text(text.into()),
        // RFC 6455 section 5.5: control frames carry at most 125 bytes.
        Message::Ping(data) => Theirs::Ping(data.slice(..data.len().min(125))),
        Message::Pong(data) => Theirs::Pong(data.slice(..data.len().min(125))),
        Message::Close(close) => Theirs::Close(close.theirs()),
    }
}

fn wrong(error: Error) -> WsError {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(ProtocolError::SendAfterClosing) => {
            WsError::Closed
        }
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => WsError::Cut,
        Error::Io(error) => WsError::Io(error),
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            WsError::TooLong { length: size, limit: max_size }
        }
        Error::Utf8(reason) => WsError::Protocol { code: Close::INVALID, reason },
        other => WsError::Protocol { code: Close::PROTOCOL, reason: other.to_string() },
    }
}
