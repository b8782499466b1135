//! Holds: what a socket tells of its peers.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast;

use super::protocol::{Fault, TooLong};
use super::{Identity, PeerCounters};
use crate::pipe::{Addr, End};

/// A message and who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The payload. It shares memory with those that were read beside it: copy what is kept long.
    pub data: Bytes,
    /// The sender's identity.
    pub from: Identity,
}

/// Somebody who has greeted, before it counts as connected.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub(crate) identity: Identity,
    pub(crate) addr: Option<Addr>,
    pub(crate) certificate: Option<Bytes>,
}

impl Candidate {
    /// Who it says it is. Only a certificate proves anything.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Where it comes from, or is.
    pub fn addr(&self) -> Option<&Addr> {
        self.addr.as_ref()
    }

    /// The certificate (DER) that it has shown in the TLS handshake, which has verified it.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.certificate.as_deref()
    }
}

/// A peer that is connected.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Who it is.
    pub identity: Identity,
    /// Where it is.
    pub addr: Option<Addr>,
    /// What this connection has carried.
    pub counters: PeerCounters,
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The pipe has ended: closed by the peer, or broken.
    #[error("{0}")]
    Ended(End),
    /// The peer broke the protocol, or was silent.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// It announced a frame that is too long. A peer that speaks another protocol looks like this too.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// It could not be written to.
    #[error("it can not be written to: {0}")]
    Write(std::io::ErrorKind),
    /// Its identity is connected already, which stays.
    #[error("{0} is connected already")]
    Double(Identity),
    /// The check that the socket was given said no.
    #[error("{0} is not admitted")]
    NotAdmitted(Identity),
    /// As many peers are connected as the socket takes.
    #[error("{0} peers are connected, which are the most")]
    TooManyPeers(usize),
    /// It had not greeted yet when too many others wanted to.
    #[error("it had not greeted when too many others came")]
    Displaced,
    /// This socket was closed.
    #[error("closed here")]
    Closed,
}

/// Something that has happened on a socket.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer is connected.
    Connected {
        /// Who.
        identity: Identity,
        /// Where it is.
        addr: Option<Addr>,
    },
    /// A peer that was connected is gone.
    Disconnected {
        /// Who.
        identity: Identity,
        /// Why.
        cause: Cause,
    },
    /// A connection was over before it counted as one.
    Refused {
        /// Where the other end is.
        addr: Option<Addr>,
        /// Why.
        cause: Cause,
    },
    /// An attempt to connect has failed; there will be another.
    NotReached {
        /// Where it should have led.
        to: String,
        /// Why it failed.
        why: String,
        /// When it is tried again.
        again_in: Duration,
    },
    /// A message was given up: it was never acknowledged.
    GivenUp {
        /// The message.
        payload: Bytes,
        /// For whom it was, if for somebody in particular.
        to: Option<Identity>,
        /// How often it was sent.
        tries: u32,
    },
    /// So many events were not taken in time and are lost.
    Missed(u64),
}

/// The events of a socket, from the moment on at which they were asked for.
#[derive(Debug)]
pub struct Events {
    pub(crate) events: broadcast::Receiver<Event>,
}

impl Events {
    /// The next event; `None` when the socket is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        match self.events.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
