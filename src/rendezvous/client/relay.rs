//! Waits: a relayed stream as `AsyncRead + AsyncWrite`.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Handle;
use crate::key::PeerId;

/// A byte stream to a peer through the rendezvous server, not encrypted end to end by itself. Dropping it sends what was
/// written, and closes it.
pub struct RelayStream {
    handle: Arc<Handle>,
    number: u32,
    peer: PeerId,
}

impl RelayStream {
    pub(super) fn new(handle: Arc<Handle>, number: u32, peer: PeerId) -> Self {
        Self { handle, number, peer }
    }

    /// The peer at the other end, as far as the server can be trusted.
    pub fn peer(&self) -> PeerId {
        self.peer
    }
}

impl AsyncRead for RelayStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let read = self.handle.shared.with(|desk, _| desk.streams.poll_read(self.number, cx, buf.remaining()));
        buf.put_slice(&ready!(read)?);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RelayStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.handle.shared.with(|desk, _| desk.streams.poll_write(self.number, cx, data))
    }

    /// What was written goes out by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.handle.shared.with(|desk, _| desk.streams.shut(self.number)))
    }
}

impl Drop for RelayStream {
    fn drop(&mut self) {
        self.handle.shared.with(|desk, _| desk.streams.let_go(self.number));
    }
}

impl fmt::Debug for RelayStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayStream(#{} to {:?})", self.number, self.peer)
    }
}
