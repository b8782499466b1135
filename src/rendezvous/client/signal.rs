//! Waits: a conversation with a peer.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;

use super::Handle;
use super::relay::RelayStream;
use super::talks::TalkId;
use crate::key::PeerId;
use crate::pipe::transport::OverIo;
use crate::pipe::{Addr, NetConf, OpenError, Pipe};
use crate::punch::Channel;

/// Why a conversation can not go on. Begin another one when the cause may be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// There is no connection to the server now: see [`Client::state`](super::Client::state).
    #[error("not connected to the rendezvous server")]
    NotConnected,
    /// The connection to the server went; messages may be lost. When the client is connected again, begin anew.
    #[error("the connection to the rendezvous server is gone")]
    ServerLost,
    /// The peer is not registered at the server: it is down, or meets others elsewhere.
    #[error("the peer is not registered at the rendezvous server now")]
    NotThere,
    /// Over a broker: the peer does not answer. It is down, or meets others elsewhere, or the broker delivers nothing.
    #[error("the peer does not answer through the broker")]
    NoAnswer,
    /// Over a broker: nothing but messages goes through it.
    #[error("a broker relays no streams; a rendezvous server does")]
    NoRelay,
    /// The server or the peer takes no more now.
    #[error("too much is asked of the rendezvous server or the peer; try again later")]
    Busy,
    /// The other end has ended the conversation.
    #[error("the other end has ended the conversation")]
    Ended,
    /// A message did not arrive: the server has dropped it.
    #[error("a message of the conversation was lost")]
    Lost,
    /// Messages came faster than they were read.
    #[error("messages of the conversation came faster than they were read")]
    Overflow,
    /// The other end says what can not be understood; it may be of another version.
    #[error("the other end says what can not be understood")]
    Malformed,
    /// A message is longer than [`Signal::MAX_MESSAGE`].
    #[error("a message of {0} bytes is longer than {max}", max = Signal::MAX_MESSAGE)]
    TooLong(usize),
    /// This key can not be talked to.
    #[error("{0} is no key of a peer")]
    NotAPeer(PeerId),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

impl From<SignalError> for io::Error {
    fn from(error: SignalError) -> Self {
        let kind = match error {
            SignalError::NotConnected => io::ErrorKind::NotConnected,
            SignalError::ServerLost => io::ErrorKind::ConnectionAborted,
            SignalError::NotThere => io::ErrorKind::NotFound,
            SignalError::NoAnswer => io::ErrorKind::TimedOut,
            SignalError::NoRelay => io::ErrorKind::Unsupported,
            SignalError::Busy => io::ErrorKind::ResourceBusy,
            SignalError::Ended => io::ErrorKind::UnexpectedEof,
            SignalError::Lost | SignalError::Overflow => io::ErrorKind::ConnectionReset,
            SignalError::Malformed => io::ErrorKind::InvalidData,
            SignalError::TooLong(_) | SignalError::NotAPeer(_) => io::ErrorKind::InvalidInput,
            SignalError::NoRandomness => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// A conversation with a peer: short messages both ways, in order, sealed end to end, none doubled; when one is lost the
/// conversation ends with an error. Over a broker lost ones are sent again, for up to 20 s, also after the signal was dropped;
/// and nothing is received before the other end has shown that it is there now. Dropping it tells the other end.
///
/// What comes before [`is_live`](Self::is_live) may have been recorded by the server and played again: let it cost no more
/// than an answer.
pub struct Signal {
    handle: Arc<Handle>,
    id: TalkId,
    peer: PeerId,
}

impl Signal {
    /// The longest message, bytes.
    pub const MAX_MESSAGE: usize = super::talks::MAX_MESSAGE;

    pub(super) fn new(handle: Arc<Handle>, id: TalkId, peer: PeerId) -> Self {
        Self { handle, id, peer }
    }

    /// The other peer, whose key wrote what is received here.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Whether the other end has shown that it is there now: its messages are no replays.
    pub fn is_live(&self) -> bool {
        self.handle.shared.with(|desk, _| desk.talks.is_live(self.id))
    }

    /// Sends a message; waits while much waits to be sent. That it was sent does not mean that it has arrived: errors of the
    /// server come with the next call.
    ///
    /// # Errors
    /// [`SignalError`]. Cancelling: it is sent or not.
    pub async fn send(&self, message: impl AsRef<[u8]>) -> Result<(), SignalError> {
        let message = message.as_ref();
        poll_fn(|cx| {
            self.handle.shared.with(|desk, now| {
                if desk.up && (desk.is_full() || desk.talks.is_full(self.id)) {
                    desk.room.wait(cx);
                    return Poll::Pending;
                }
                Poll::Ready(desk.talks.seal(now, self.id, message).map(|frame| desk.out.push_back(frame)))
            })
        })
        .await
    }

    /// Waits until the other end has shown that it is there now.
    ///
    /// # Errors
    /// [`SignalError`]. Cancel safe.
    pub async fn live(&self) -> Result<(), SignalError> {
        poll_fn(|cx| {
            self.handle.shared.with(|desk, _| match desk.talks.live(self.id, cx) {
                Some(live) => Poll::Ready(live),
                None => Poll::Pending,
            })
        })
        .await
    }

    /// The next message.
    ///
    /// # Errors
    /// [`SignalError`], after everything that had come before. Cancel safe.
    pub async fn recv(&self) -> Result<Bytes, SignalError> {
        poll_fn(|cx| {
            self.handle.shared.with(|desk, _| match desk.talks.next(self.id, cx) {
                Some(next) => Poll::Ready(next),
                None => Poll::Pending,
            })
        })
        .await
    }

    /// A byte stream to the peer through the server, as a pipe. The peer must ask for it as well, and as often: the first one
    /// that it asks for is joined with the first one here. It can be written to at once; the server keeps up to 64 KiB until
    /// the peer comes. It is **not encrypted end to end**: run TLS in it.
    ///
    /// Its end is the peer's end of file; it breaks when the peer does not come within 30 s, when either connection to the
    /// server goes, or when the server's limits end it ([`std::io::ErrorKind::QuotaExceeded`]).
    ///
    /// # Errors
    /// [`SignalError`]; [`RelayError::Pipe`] outside a tokio runtime.
    pub async fn relay(&self) -> Result<Pipe, RelayError> {
        let stream = self.relay_stream()?;
        Ok(Pipe::over(OverIo::new(stream, Addr::Unnamed, Addr::Unnamed), NetConf::default())?)
    }

    /// As [`relay`](Self::relay), as `AsyncRead + AsyncWrite`.
    ///
    /// # Errors
    /// [`SignalError`].
    pub fn relay_stream(&self) -> Result<RelayStream, SignalError> {
        let peer = *self.peer.as_bytes();
        let number = self.handle.shared.with(|desk, _| {
            if !desk.relays {
                return Err(SignalError::NoRelay);
            }
            if !desk.up {
                return Err(SignalError::NotConnected);
            }
            if desk.is_overfull() {
                return Err(SignalError::Busy);
            }
            let token = desk.talks.next_relay(self.id)?;
            let (number, open) = desk.streams.open(peer, token);
            desk.out.push_back(open);
            Ok(number)
        })?;
        Ok(RelayStream::new(self.handle.clone(), number, self.peer))
    }
}

/// Why no stream can be relayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The conversation is over.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// No pipe can be made.
    #[error(transparent)]
    Pipe(#[from] OpenError),
}

impl Channel for Signal {
    async fn send(&mut self, message: Bytes) -> io::Result<()> {
        Ok(Signal::send(self, message).await?)
    }

    async fn recv(&mut self) -> io::Result<Bytes> {
        Ok(Signal::recv(self).await?)
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        self.handle.shared.with(|desk, now| {
            let told = desk.talks.end(now, self.id);
            desk.out.extend(told);
        });
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal(with {:?})", self.peer)
    }
}
