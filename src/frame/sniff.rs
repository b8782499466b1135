//! Waits: the first bytes of a connection, looked at without losing them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::pipe::{Pipe, RecvError};

/// What the first byte of a connection says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// `G`: an HTTP request (`GET`), as every WebSocket begins.
    Http,
    /// `0x16`: a TLS record with a handshake message (RFC 8446 section 5.1).
    Tls,
    /// Any other byte; the caller knows which are its own protocol.
    Byte(u8),
}

impl From<u8> for First {
    fn from(byte: u8) -> Self {
        match byte {
            b'G' => Self::Http,
            0x16 => Self::Tls,
            other => Self::Byte(other),
        }
    }
}

/// What the first byte of a pipe says, within `limit`; everything that was read is put back.
///
/// # Errors
/// [`RecvError::TimedOut`] when no byte came, [`RecvError::Ended`] when none will. Cancel safe.
pub async fn pipe(pipe: &Pipe, limit: impl Into<Option<Duration>>) -> Result<First, RecvError> {
    let limit = limit.into();
    loop {
        let message = pipe.recv_within(limit).await?;
        if let Some(&byte) = message.data.first() {
            pipe.put_back(message);
            return Ok(byte.into());
        }
    }
}

/// What the first byte of a stream says, and the stream as if nothing had been read.
///
/// # Errors
/// Kind `UnexpectedEof` when the stream ends without a byte; otherwise those of the stream.
pub async fn stream<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(First, Rewound<S>)> {
    let mut byte = [0];
    if stream.read(&mut byte).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let before = Bytes::copy_from_slice(&byte);
    Ok((byte[0].into(), Rewound::new(before, stream)))
}

/// A stream in front of which stand bytes that were read from it before.
#[derive(Debug)]
pub struct Rewound<S> {
    before: Bytes,
    stream: S,
}

impl<S> Rewound<S> {
    /// Puts `before` in front of what `stream` will yield.
    pub fn new(before: Bytes, stream: S) -> Self {
        Self { before, stream }
    }

    /// The bytes that are still in front, and the stream behind them.
    pub fn into_parts(self) -> (Bytes, S) {
        (self.before, self.stream)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = self.before.len().min(buf.remaining());
        buf.put_slice(&self.before[..n]);
        self.before.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::NetConf;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn the_first_byte_of_a_pipe_is_told_and_comes_again() {
        for (sent, first) in
            [(&b"GET /"[..], First::Http), (&[0x16, 3, 1], First::Tls), (&[0, 0, 0, 18], First::Byte(0))]
        {
            let (near, far) = Pipe::pair(100, NetConf::default()).unwrap();
            near.send(sent).await.unwrap();
            assert_eq!(pipe(&far, None).await.unwrap(), first);
            assert_eq!(far.recv_n(sent.len()).await.unwrap(), sent);
        }
    }

    #[tokio::test]
    async fn a_stream_is_read_as_if_nobody_had_looked() {
        let (mut near, far) = tokio::io::duplex(100);
        near.write_all(b"GET / HTTP/1.1").await.unwrap();
        drop(near);
        let (first, mut rewound) = stream(far).await.unwrap();
        let mut all = String::new();
        rewound.read_to_string(&mut all).await.unwrap();
        assert_eq!((first, all.as_str()), (First::Http, "GET / HTTP/1.1"));
        assert!(stream(rewound).await.is_err(), "a stream that has ended has no first byte");
    }
}
