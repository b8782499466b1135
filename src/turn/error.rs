//! Holds: why there is no allocation, why it is gone, and why somebody may not send to it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// What a server's error says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// RFC 8656 section 19, RFC 8489 section 14.8.
    pub code: u16,
    /// The server's own words, cut.
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.code {
            300 => "another server is to be asked",
            400 => "it does not understand the request",
            401 => "it does not accept user name and password",
            403 => "it forbids it",
            437 => "it has no such allocation",
            438 => "its nonce grew stale too often",
            440 => "it has no addresses of this family",
            441 => "the allocation is another account's",
            442 => "it does not relay this",
            446 => "it is connected already",
            447 => "the peer can not be connected to",
            486 => "the account has reached its quota",
            508 => "it has no ports left",
            _ => "it says no",
        };
        write!(f, "{meaning} ({}", self.code)?;
        if !self.reason.is_empty() {
            write!(f, " {}", self.reason)?;
        }
        f.write_str(")")
    }
}

/// Why no address was given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AllocateError {
    /// Its name has no address of a family that can be used, or can not be resolved.
    #[error("the TURN server {server} is not found")]
    NotFound {
        /// Which.
        server: String,
    },
    /// It can not be connected to, or its certificate is not right.
    #[error("no connection to the TURN server {server}")]
    Connect {
        /// Which.
        server: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not answer.
    #[error("the TURN server {server} does not answer")]
    NoAnswer {
        /// Which.
        server: String,
    },
    /// It said no.
    #[error("the TURN server {server} gives no address: {refused}")]
    Refused {
        /// Which.
        server: String,
        /// What it said.
        refused: Refused,
    },
    /// Its answer can not be right: it lacks the address, or what it sends is no TURN.
    #[error("the TURN server {server} makes no sense: {why}")]
    Nonsense {
        /// Which.
        server: String,
        /// What is wrong.
        why: String,
    },
    /// It sends us to other servers again and again.
    #[error("the TURN server {server} sends us from server to server")]
    Redirected {
        /// The first.
        server: String,
    },
}

/// Why an allocation is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// It was closed here.
    #[error("it was closed")]
    Closed,
    /// The server does not answer any more.
    #[error("the TURN server does not answer any more")]
    NoAnswer,
    /// The server has taken it back: the account ended, or it restarted.
    #[error("the TURN server has taken the address back: {0}")]
    Refused(Refused),
    /// The connection to the server broke.
    #[error("the connection to the TURN server broke: {0}")]
    Broken(io::ErrorKind),
    /// What the server sends can not be right.
    #[error("the TURN server makes no sense")]
    Nonsense,
}

impl From<Lost> for io::Error {
    fn from(lost: Lost) -> Self {
        let kind = match lost {
            Lost::Closed => io::ErrorKind::NotConnected,
            Lost::NoAnswer => io::ErrorKind::TimedOut,
            Lost::Refused(_) => io::ErrorKind::ConnectionReset,
            Lost::Broken(kind) => kind,
            Lost::Nonsense => io::ErrorKind::InvalidData,
        };
        Self::new(kind, lost)
    }
}

/// Why somebody may not send to the relayed address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PermitError {
    /// The server does not allow this address: many forbid private ones.
    #[error("the TURN server does not let {ip} in: {refused}")]
    Refused {
        /// Whom.
        ip: IpAddr,
        /// What it said.
        refused: Refused,
    },
    /// It did not answer in time.
    #[error("the TURN server does not say whether {ip} is let in")]
    NoAnswer {
        /// Whom.
        ip: IpAddr,
    },
    /// The address is of another family than the relayed one.
    #[error("{ip} can not send to {relayed}: they are of two families")]
    Family {
        /// Whom.
        ip: IpAddr,
        /// Ours.
        relayed: SocketAddr,
    },
    /// More are let in than is reasonable.
    #[error("too many are let in already")]
    TooMany,
    /// The allocation is gone.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Why there is no connection to a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The peer was not let in.
    #[error(transparent)]
    Permit(#[from] PermitError),
    /// The server can not connect to the peer.
    #[error("the TURN server can not connect to {peer}: {refused}")]
    Refused {
        /// Whom.
        peer: SocketAddr,
        /// What it said.
        refused: Refused,
    },
    /// The server does not say why.
    #[error("the TURN server does not connect to {peer}")]
    NoAnswer {
        /// Whom.
        peer: SocketAddr,
    },
    /// The connection for the peer's bytes can not be made, or is not accepted.
    #[error("the TURN server does not hand over the connection with {peer}")]
    Bind {
        /// Whom it is with.
        peer: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The allocation is gone.
    #[error(transparent)]
    Lost(#[from] Lost),
}
