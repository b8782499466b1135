//! What a pipe is made of: the [`Transport`] trait and those that the crate brings.
//!
//! `socket` carries TCP, UDP and Unix sockets, `io` anything that reads and writes asynchronously
//! (TLS and memory). Other floors hand in their own: a QUIC stream of a peer is one.

mod io;
mod socket;

use std::io::{IoSlice, Result};
use std::task::{Context, Poll};

use bytes::Bytes;

use super::Addr;
pub use super::reader::Reader;
pub use io::OverIo;
pub(crate) use socket::{Connection, PlainSocket, Udp};

/// Whether message boundaries mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes in order; a message is whatever one read yields.
    Stream,
    /// Messages with boundaries, which may be lost, doubled or reordered.
    Datagram,
}

/// What one read yields.
#[derive(Debug)]
pub enum Received {
    /// Bytes, and whom a datagram came from (`None`: the transport's own peer).
    Data(Bytes, Option<Addr>),
    /// The peer has finished; nothing more will come.
    End,
}

/// Bytes in and out, without a queue, a callback or a task. The pipe adds those.
///
/// One task receives and one task at a time sends, so a transport keeps one waker for each. All
/// methods take `&self`; dropping the transport closes it.
pub trait Transport: Send + Sync + 'static {
    /// Stream or datagrams.
    fn kind(&self) -> Kind;

    /// This end's address.
    fn local_addr(&self) -> Addr;

    /// The other end's address, where there is one other end.
    fn peer_addr(&self) -> Option<Addr>;

    /// Reads once, into the room that `reader` gives.
    ///
    /// # Errors
    /// On a stream each error ends the pipe; on datagrams the pipe counts it, tells the receiver
    /// and goes on.
    fn poll_recv(&self, cx: &mut Context<'_>, reader: &mut Reader) -> Poll<Result<Received>>;

    /// Writes some of `data`, all of it where it is a datagram. `to` is given for datagrams without
    /// a single peer.
    ///
    /// # Errors
    /// Those of the system.
    fn poll_send(&self, cx: &mut Context<'_>, data: &[u8], to: Option<&Addr>) -> Poll<Result<usize>>;

    /// Writes some of `parts`, which follow one another on a stream, in one step where the system has one.
    ///
    /// # Errors
    /// Those of the system.
    fn poll_send_vectored(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let first = parts.iter().find(|part| !part.is_empty());
        self.poll_send(cx, first.map_or(&[], |part| part), None)
    }

    /// The certificate (DER) that the other end has shown and proved to be its own, where the
    /// transport has such.
    fn peer_certificate(&self) -> Option<Bytes> {
        None
    }

    /// Passes on what a layer above the socket still holds.
    ///
    /// # Errors
    /// Those of the system.
    fn poll_flush(&self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Tells the peer that nothing more will be sent (half-close). Datagrams have no such word.
    ///
    /// # Errors
    /// Those of the system.
    fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<Result<()>>;

    /// The plain socket below, where bytes in it are the bytes of the pipe: such pipes can be joined
    /// in the kernel.
    #[doc(hidden)]
    fn plain_socket(&self) -> Option<PlainSocket<'_>> {
        None
    }
}
