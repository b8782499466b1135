//! Waits: relayed connections (RFC 6062): each is a connection of its own to the server, bound to one with a peer.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;

use super::message::What;
use super::{Allocation, Client, Lost, PermitError, RelayError};
use crate::pipe::Pipe;
use crate::stun::{Challenge, Class, HEADER_LEN, Message, Proof, TransactionId};

/// How long the server may take to hand a connection over; it closes what is not bound within 30 s.
const BIND: Duration = Duration::from_secs(20);

/// The longest answer.
const ROOM: usize = 4096;

/// Answers to other requests that are passed over, and challenges that are taken up.
const PATIENCE: usize = 8;

/// An address at a TURN server for connections. Dropping it gives the address back; connections live on for as long as the server
/// lets them.
pub struct TcpAllocation {
    control: Allocation,
    client: Client,
}

impl TcpAllocation {
    pub(super) fn new(control: Allocation, client: Client) -> Self {
        Self { control, client }
    }

    /// Where others connect to.
    pub fn relayed(&self) -> SocketAddr {
        self.control.relayed()
    }

    /// Lets an address connect to the relayed one, for as long as the allocation is held.
    ///
    /// # Errors
    /// [`PermitError`]. Cancelling does not take the request back.
    pub async fn permit(&self, ip: IpAddr) -> Result<(), PermitError> {
        self.control.permit(ip).await
    }

    /// A connection from the server to a peer, who takes the server for us. The peer's address is let in.
    ///
    /// # Errors
    /// [`RelayError`]. Cancelling leaves a connection that the server closes by itself.
    pub async fn connect(&self, peer: SocketAddr) -> Result<Pipe, RelayError> {
        self.permit(peer.ip()).await?;
        let connection = self.control.link().connect(peer).await.map_err(|refused| match refused {
            Some(refused) => RelayError::Refused { peer, refused },
            None => RelayError::NoAnswer { peer },
        })?;
        self.bind(peer, connection).await
    }

    /// The next connection of a peer that was let in, and the peer.
    ///
    /// # Errors
    /// [`RelayError`]; after one of a single connection the next can be accepted. Cancelling loses a connection at most.
    pub async fn accept(&self) -> Result<(Pipe, SocketAddr), RelayError> {
        let (peer, connection) = poll_fn(|cx| self.control.link().poll_attempt(cx)).await?;
        Ok((self.bind(peer, connection).await?, peer))
    }

    /// Waits until it is gone, and says why. Cancel safe.
    pub async fn lost(&self) -> Lost {
        self.control.lost().await
    }

    /// Gives the address back and waits until the server was told, for two seconds at most.
    pub async fn close(&self) {
        self.control.close().await;
    }

    async fn bind(&self, peer: SocketAddr, connection: u32) -> Result<Pipe, RelayError> {
        let bound = async {
            let pipe = self.client.connect(self.control.server_addr()).await.map_err(io::Error::other)?;
            handed_over(&pipe, self.control.link().proof(), connection).await?;
            Ok(pipe)
        };
        let bound = timeout(BIND, bound).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        bound.map_err(|source| RelayError::Bind { peer, source })
    }
}

/// ConnectionBind (RFC 6062 section 4.3): after its answer the connection carries the peer's bytes.
async fn handed_over(pipe: &Pipe, mut proof: Proof, connection: u32) -> io::Result<()> {
    for _ in 0..PATIENCE {
        let id = TransactionId::modern(rand::random());
        let what = What::BindConnection(connection);
        pipe.send(what.encode(id, &proof).map_err(io::Error::other)?).await?;
        let answer = answer(pipe).await?;
        let message = Message::parse(&answer).map_err(io::Error::other)?;
        if message.id() != id || message.method() != what.method() || !proof.accepts(&message) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match message.class() {
            Class::Success => return Ok(()),
            Class::Error if matches!(proof.challenge(&message), Ok(Challenge::Retry)) => {}
            _ => {
                let code = message.error().map_or(0, |error| error.code);
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("it says no ({code})")));
            }
        }
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

/// One message; what follows it stays in the pipe.
async fn answer(pipe: &Pipe) -> io::Result<Vec<u8>> {
    let mut message = pipe.recv_n(HEADER_LEN).await?.to_vec();
    let body = usize::from(u16::from_be_bytes([message[2], message[3]]));
    if message[0] & 0xC0 != 0 || body > ROOM {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if body > 0 {
        message.extend_from_slice(&pipe.recv_n(body).await?);
    }
    Ok(message)
}

impl fmt::Debug for TcpAllocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpAllocation({} at {})", self.relayed(), self.control.server())
    }
}
