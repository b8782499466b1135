//! Waits: a transport over anything that reads and writes asynchronously: TLS, memory, a websocket.

use std::io::{IoSlice, Result};
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{Addr, Kind, Reader, Received, Transport};

/// A stream transport over an `AsyncRead + AsyncWrite`.
#[derive(Debug)]
pub struct OverIo<S> {
    /// Held between two waits only: neither direction makes the other wait.
    stream: Mutex<S>,
    local: Addr,
    peer: Addr,
    certificate: Option<Bytes>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> OverIo<S> {
    /// Wraps `stream`, whose ends are shown as `local` and `peer`.
    pub fn new(stream: S, local: Addr, peer: Addr) -> Self {
        Self { stream: Mutex::new(stream), local, peer, certificate: None }
    }

    /// Tells which certificate the other end has shown and proved.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "TLS is what shows certificates"))]
    pub(crate) fn certified(self, certificate: Option<Bytes>) -> Self {
        Self { certificate, ..self }
    }

    fn lock(&self) -> MutexGuard<'_, S> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for OverIo<S> {
    fn kind(&self) -> Kind {
        Kind::Stream
    }

    fn local_addr(&self) -> Addr {
        self.local.clone()
    }

    fn peer_addr(&self) -> Option<Addr> {
        Some(self.peer.clone())
    }

    fn poll_recv(&self, cx: &mut Context<'_>, reader: &mut Reader) -> Poll<Result<Received>> {
        let mut stream = self.lock();
        let read = reader.poll_fill(|buf| pin!(stream.read_buf(buf)).poll(cx));
        match ready!(read)? {
            (_, 0) => Poll::Ready(Ok(Received::End)),
            (data, _) => Poll::Ready(Ok(Received::Data(data, None))),
        }
    }

    fn poll_send(&self, cx: &mut Context<'_>, data: &[u8], _to: Option<&Addr>) -> Poll<Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(cx, data)
    }

    fn poll_send_vectored(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write_vectored(cx, parts)
    }

    fn peer_certificate(&self) -> Option<Bytes> {
        self.certificate.clone()
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(cx)
    }
}
