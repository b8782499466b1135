//! Holds: how smart sockets fail, one type per operation.

use std::io;

use bytes::Bytes;

use super::Identity;
use crate::pipe::{Addr, OpenError};

/// The socket is closed; nothing can be done with it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the smart socket is closed")]
pub struct SocketClosed;

/// Why a socket could not bind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address could not be bound: it is taken, not ours, or its options contradict each other.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The pipe that was given is no server: it must be one that clients can be accepted from.
    #[error("{local} does not listen; give a pipe that was opened without a destination")]
    NotAServer {
        /// Its address.
        local: Addr,
    },
    /// The socket is closed.
    #[error(transparent)]
    Closed(#[from] SocketClosed),
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The socket is closed, or being closed.
    #[error(transparent)]
    Closed(#[from] SocketClosed),
    /// The high-water mark is reached, and the socket was told to fail then (or it was `try_send`).
    #[error("the queue is full: peers take less than is sent to them")]
    Full,
    /// Nobody of this name is connected, and it is none that this end connects to again.
    #[error("no peer {identity} is connected")]
    NoSuchPeer {
        /// To whom it should have gone.
        identity: Identity,
    },
    /// The mode is by identity, and none was given: use `send_to`.
    #[error("the socket sends by identity only; name the peer with send_to")]
    NoDestination,
    /// It does not fit into a frame, or is over the limit of this socket.
    #[error("a message of {len} bytes; {limit} are the most")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit, `max_message`.
        limit: usize,
    },
}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        let kind = match error {
            SendError::Closed(_) => io::ErrorKind::BrokenPipe,
            SendError::Full => io::ErrorKind::WouldBlock,
            SendError::NoSuchPeer { .. } => io::ErrorKind::NotConnected,
            SendError::NoDestination | SendError::TooLong { .. } => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

/// Why nothing is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The socket is closed, and everything was received.
    #[error(transparent)]
    Closed(#[from] SocketClosed),
}

impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> Self {
        Self::new(io::ErrorKind::BrokenPipe, error)
    }
}

/// Why a message counts as not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// It was not even taken.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Nobody acknowledged it in as many tries, or in as much time, as `Resend` allows. It may have
    /// arrived all the same.
    #[error("given up after {tries} tries without an acknowledgement")]
    GivenUp {
        /// How often it was sent.
        tries: u32,
        /// The message.
        payload: Bytes,
    },
    /// The socket was closed before the acknowledgement came. It may have arrived all the same.
    #[error("the socket was closed before the message was acknowledged")]
    Abandoned,
    /// It was dropped because the queue was full, as the socket was told to.
    #[error("dropped: the queue is full")]
    Dropped,
    /// There are no acknowledgements: the socket sends at most once, or it publishes.
    #[error("this message is not acknowledged: the socket sends at most once, or it publishes")]
    NoAcknowledgements,
}

/// Messages that had not left, or were not acknowledged, when a socket was closed and its linger was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("closed with {messages} messages undelivered")]
pub struct Abandoned {
    /// How many.
    pub messages: u64,
}

impl From<Abandoned> for io::Error {
    fn from(error: Abandoned) -> Self {
        Self::new(io::ErrorKind::TimedOut, error)
    }
}
