//! Holds: a relayed address, as a program uses it.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::link::{Link, Standing};
use super::{Lost, PermitError, TurnServer};
use crate::net::Family;

/// An address at a TURN server: what others send to it arrives here, and what is sent here leaves from there. It is refreshed for as
/// long as it is held. Dropping it gives it back behind our back, as long as the runtime lives; [`close`](Self::close) waits.
pub struct Allocation {
    link: Arc<Link>,
    server: TurnServer,
    relayed: SocketAddr,
    mapped: Option<SocketAddr>,
    at: Option<SocketAddr>,
}

impl Allocation {
    pub(super) fn new(
        link: Arc<Link>,
        server: TurnServer,
        at: Option<SocketAddr>,
        relayed: SocketAddr,
        mapped: Option<SocketAddr>,
    ) -> Self {
        Self { link, server, relayed, mapped, at }
    }

    /// Where others send to.
    pub fn relayed(&self) -> SocketAddr {
        self.relayed
    }

    /// Where the server sees us.
    pub fn mapped(&self) -> Option<SocketAddr> {
        self.mapped
    }

    /// Whose it is.
    pub fn server(&self) -> &TurnServer {
        &self.server
    }

    /// Where that was found.
    pub fn server_addr(&self) -> Option<SocketAddr> {
        self.at
    }

    /// Lets all ports of an address send to the relayed one, for as long as the allocation is held. The server drops what anybody
    /// else sends.
    ///
    /// # Errors
    /// [`PermitError`]. Cancelling does not take the request back.
    pub async fn permit(&self, ip: IpAddr) -> Result<(), PermitError> {
        let ip = ip.to_canonical();
        if Family::of(ip) != Family::of(self.relayed.ip()) {
            return Err(PermitError::Family { ip, relayed: self.relayed });
        }
        self.link.permit(ip).await
    }

    /// Sends a datagram, whose sender the peer will take the relayed address for. It waits while the server takes no more.
    ///
    /// # Errors
    /// Those of [`Lost`]; `PermissionDenied` for who was not let in by [`permit`](Self::permit) and for more than 65535 bytes.
    /// Cancel safe.
    pub async fn send_to(&self, data: &[u8], peer: SocketAddr) -> io::Result<()> {
        loop {
            match self.try_send(data, peer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => poll_fn(|cx| self.poll_writable(cx)).await?,
                done => return done,
            }
        }
    }

    /// As [`send_to`](Self::send_to), and does not wait.
    ///
    /// # Errors
    /// `WouldBlock` beside those.
    pub fn try_send(&self, data: &[u8], peer: SocketAddr) -> io::Result<()> {
        self.link.try_send(data, SocketAddr::new(peer.ip().to_canonical(), peer.port()))
    }

    /// Ready when [`try_send`](Self::try_send) is worth trying.
    ///
    /// # Errors
    /// Those of [`Lost`].
    pub fn poll_writable(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.link.poll_writable(cx)
    }

    /// The next datagram of a peer that was let in, and the peer. At most 512 wait, of 1 MiB together; then the oldest is lost.
    ///
    /// # Errors
    /// Those of [`Lost`], after what came before. Cancel safe.
    pub async fn recv_from(&self) -> io::Result<(Bytes, SocketAddr)> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`recv_from`](Self::recv_from).
    ///
    /// # Errors
    /// Those of [`Lost`].
    pub fn poll_recv(&self, cx: &Context<'_>) -> Poll<io::Result<(Bytes, SocketAddr)>> {
        self.link.poll_recv(cx)
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Waits until it is gone, and says why. Cancel safe.
    pub async fn lost(&self) -> Lost {
        let mut standing = self.link.standing();
        loop {
            if let Standing::Lost(lost) = &*standing.borrow_and_update() {
                return lost.clone();
            }
            if standing.changed().await.is_err() {
                return Lost::Closed;
            }
        }
    }

    /// Gives the address back and waits until the server was told, for two seconds at most.
    pub async fn close(&self) {
        self.link.close();
        self.link.ended().await;
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.link.close();
    }
}

impl fmt::Debug for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Allocation({} at {})", self.relayed, self.server)
    }
}
