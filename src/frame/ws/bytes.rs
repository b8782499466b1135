//! Waits: a WebSocket as a byte stream, where the boundaries of messages mean nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Close, Message, WebSocket, WsError};

/// The most bytes of one message that is written.
const MESSAGE: usize = 64 << 10;

/// A WebSocket as `AsyncRead + AsyncWrite`: the payloads of its binary messages one after another. Each write is a
/// message, which goes out with the flush or when much has gathered. Shutting it down says goodbye (1000). A text
/// message closes with 1003 and is an error of kind `InvalidData`.
#[derive(Debug)]
pub struct ByteStream<S> {
    socket: WebSocket<S>,
    rest: Bytes,
    ended: bool,
    closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ByteStream<S> {
    pub(super) fn new(socket: WebSocket<S>) -> Self {
        Self { socket, rest: Bytes::new(), ended: false, closing: false }
    }

    /// What it runs on.
    pub fn get_ref(&self) -> &WebSocket<S> {
        &self.socket
    }

    fn poll_payload(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            match ready!(self.socket.poll_next(cx)) {
                Some(Ok(Message::Binary(data))) if data.is_empty() => {}
                Some(Ok(Message::Binary(data))) => return Poll::Ready(Ok(Some(data))),
                Some(Ok(Message::Text(_))) => {
                    let close = Close::new(Close::UNSUPPORTED, "only binary messages are taken");
                    // It may be closed already: then there is nobody to tell.
                    let _queued = self.socket.start_send(Message::Close(close));
                    let _told = self.socket.poll_flush(cx);
                    let reason = "a text message came where only binary ones are taken".to_owned();
                    return Poll::Ready(Err(WsError::Protocol { code: Close::UNSUPPORTED, reason }.into()));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Ok(None)),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() && !self.ended {
            match ready!(self.poll_payload(cx)) {
                Ok(Some(data)) => self.rest = data,
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Err(error));
                }
            }
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ByteStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.socket.poll_ready(cx))?;
        let n = data.len().min(MESSAGE);
        if n > 0 {
            self.socket.start_send(Message::Binary(Bytes::copy_from_slice(&data[..n])))?;
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush(cx).map_err(Into::into)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            self.closing = true;
            match self.socket.start_send(Message::Close(Close::new(Close::NORMAL, ""))) {
                Ok(()) | Err(WsError::Closed) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        match ready!(self.socket.poll_flush(cx)) {
            Ok(()) | Err(WsError::Closed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}
