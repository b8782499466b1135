//! Waits: what a session speaks: WebSocket, or the seed's Unix socket framing.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::delimited::{self, Broken};
use crate::frame::msgpack::Scanner;
use crate::frame::ws::{Close, Message, WebSocket, WsError};

/// Bytes that one read of a delimited stream takes.
const READ: usize = 8 << 10;

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// Any stream, with a count of what was written to it: a peer that takes bytes is not stuck.
pub(super) struct Counted {
    io: Box<dyn Io>,
    pub(super) written: u64,
}

impl Counted {
    pub(super) fn new(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), written: 0 }
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        let n = ready!(Pin::new(&mut *self.io).poll_write(cx, data))?;
        self.written += n as u64;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}

/// What came in.
pub(super) enum Heard {
    Data(Bytes),
    /// Text, where maps are expected.
    Text,
    /// A ping or pong.
    Alive,
    Close(Close),
}

pub(super) enum Wire {
    Ws(Box<WebSocket<Counted>>),
    Delimited(Box<Delimited>),
}

impl Wire {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Heard, WsError>>> {
        match self {
            Self::Ws(socket) => socket.poll_next(cx).map_ok(|message| match message {
                Message::Binary(data) => Heard::Data(data),
                Message::Text(_) => Heard::Text,
                Message::Ping(_) | Message::Pong(_) => Heard::Alive,
                Message::Close(close) => Heard::Close(close),
            }),
            Self::Delimited(stream) => stream.poll_next(cx).map_ok(Heard::Data),
        }
    }

    /// Queues a frame; it goes out with the flush.
    pub(super) fn start_send(&mut self, frame: Bytes) -> Result<(), WsError> {
        match self {
            Self::Ws(socket) => socket.start_send(Message::Binary(frame)),
            Self::Delimited(stream) => {
                delimited::encode(&frame, &mut stream.out);
                Ok(())
            }
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        match self {
            Self::Ws(socket) => socket.poll_flush(cx),
            Self::Delimited(stream) => stream.poll_flush(cx).map_err(WsError::Io),
        }
    }

    /// Asks whether the peer is there, where the wire has a word for it. True when an answer is to be expected.
    pub(super) fn ping(&mut self) -> Result<bool, WsError> {
        match self {
            Self::Ws(socket) => socket.start_send(Message::Ping(Bytes::new())).map(|()| true),
            Self::Delimited(_) => Ok(false),
        }
    }

    /// Says goodbye, where the wire has a word for it. True when the peer's is to be waited for.
    pub(super) fn start_close(&mut self, close: Close) -> bool {
        match self {
            // An error: it is closed already.
            Self::Ws(socket) => socket.start_send(Message::Close(close)).is_ok(),
            Self::Delimited(_) => false,
        }
    }

    /// Bytes that the system has taken so far.
    pub(super) fn written(&self) -> u64 {
        match self {
            Self::Ws(socket) => socket.get_ref().written,
            Self::Delimited(stream) => stream.io.written,
        }
    }
}

/// The seed's framing over a stream.
pub(super) struct Delimited {
    io: Counted,
    read: BytesMut,
    scanner: Scanner,
    out: BytesMut,
    limit: usize,
    ended: bool,
}

impl Delimited {
    pub(super) fn new(io: Counted, limit: usize) -> Self {
        Self { io, read: BytesMut::new(), scanner: Scanner::default(), out: BytesMut::new(), limit, ended: false }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, WsError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            match delimited::poll_value(&mut self.read, &mut self.scanner, self.limit) {
                Ok(Some(value)) => return Poll::Ready(Some(Ok(value))),
                Ok(None) => {}
                Err(error) => return self.end(Some(broken(error))),
            }
            self.read.reserve(READ);
            match ready!(pin!(self.io.read_buf(&mut self.read)).poll(cx)) {
                Ok(0) if self.read.is_empty() => return self.end(None),
                Ok(0) => return self.end(Some(WsError::Cut)),
                Ok(_) => {}
                Err(error) => return self.end(Some(WsError::Io(error))),
            }
        }
    }

    fn end(&mut self, error: Option<WsError>) -> Poll<Option<Result<Bytes, WsError>>> {
        self.ended = true;
        Poll::Ready(error.map(Err))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?;
            if n == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(n);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }
}

fn broken(error: Broken) -> WsError {
    match error {
        Broken::TooLong(long) => WsError::TooLong { length: long.length, limit: long.limit },
        Broken::Malformed => WsError::Protocol { code: Close::INVALID, reason: error.to_string() },
    }
}
