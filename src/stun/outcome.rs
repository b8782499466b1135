//! Holds: how the exchange with a server ends: with an answer, or with the reason why not.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::build::NoRoom;
use super::integrity::KeyError;

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The server that was asked first.
    pub asked: SocketAddr,
    /// Where the answer came from.
    pub from: SocketAddr,
    /// Our address as the server saw it.
    pub mapped: SocketAddr,
    /// MAPPED-ADDRESS, if it was there: another one than `mapped` means that a device on the way rewrites addresses in
    /// packets, since it can not see the XORed one.
    pub plain: Option<SocketAddr>,
    /// The server's other address, for further tests: OTHER-ADDRESS or CHANGED-ADDRESS.
    pub other: Option<SocketAddr>,
    /// Where the server believes that it answered from: RESPONSE-ORIGIN or SOURCE-ADDRESS.
    pub origin: Option<SocketAddr>,
    /// The server's name for itself, without control characters.
    pub software: Option<String>,
    /// From request to answer; unknown if the request had been sent again, since either may have been answered.
    pub round_trip: Option<Duration>,
    /// How often the answered request was sent.
    pub requests: u32,
    /// Whether it was asked in the words of RFC 3489.
    pub classic: bool,
}

/// Why a server gave no address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Nothing came back: the server or the way to it is down, or a firewall drops UDP. Try another server, or TCP.
    #[error("{server} did not answer {requests} requests in {waited:?}")]
    NoAnswer {
        /// The server.
        server: SocketAddr,
        /// How many datagrams were sent.
        requests: u32,
        /// How long it was given.
        waited: Duration,
    },
    /// Answers came, none of them signed with the credentials (RFC 8489 section 9.1.4): a wrong short-term password, or
    /// someone else's answers.
    #[error("{server} gave {dropped} answers that were not signed with our credentials")]
    Unauthentic {
        /// The server.
        server: SocketAddr,
        /// How many.
        dropped: u64,
    },
    /// The server wants credentials, or others than these.
    #[error("{server} does not accept the credentials")]
    Unauthorized {
        /// The server.
        server: SocketAddr,
    },
    /// The server refused with an error code. 420 to a CHANGE-REQUEST says that it has no other address.
    #[error("{server} refused: {code} {reason}")]
    Refused {
        /// The server.
        server: SocketAddr,
        /// The error code.
        code: u16,
        /// The server's words.
        reason: String,
        /// The attributes that it does not know, with a 420.
        unknown: Vec<u16>,
    },
    /// The server sent us on once more than allowed, in a circle, to another family or to no usable address.
    #[error("{server} sends on to {to:?}, which is not followed")]
    Redirected {
        /// The server that did.
        server: SocketAddr,
        /// Where to, if it said.
        to: Option<SocketAddr>,
    },
    /// The server says that we have an address of another family than the one we asked in.
    #[error("{server} saw us at {mapped}, which is of another family")]
    Family {
        /// The server.
        server: SocketAddr,
        /// What it said.
        mapped: SocketAddr,
    },
    /// The answer holds attributes that must be understood and are not (RFC 8489 section 6.3.3).
    #[error("{server} answered with attributes that are not understood: {attributes:04x?}")]
    NotUnderstood {
        /// The server.
        server: SocketAddr,
        /// Their types.
        attributes: Vec<u16>,
    },
    /// The credentials can not be made into a key.
    #[error("the credentials can not be used with {server}")]
    Credentials {
        /// The server.
        server: SocketAddr,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The credentials are longer than a request may be.
    #[error("the request to {server} is too long")]
    TooLong {
        /// The server.
        server: SocketAddr,
        /// By how much.
        #[source]
        source: NoRoom,
    },
    /// The driver could not send, or not connect.
    #[error("can not reach {server}")]
    Unreachable {
        /// The server.
        server: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        let kind = match &failure {
            Failure::NoAnswer { .. } => io::ErrorKind::TimedOut,
            Failure::Unauthentic { .. } | Failure::Unauthorized { .. } => io::ErrorKind::PermissionDenied,
            Failure::Refused { .. } | Failure::Redirected { .. } => io::ErrorKind::ConnectionRefused,
            Failure::Family { .. } | Failure::NotUnderstood { .. } => io::ErrorKind::InvalidData,
            Failure::Credentials { .. } | Failure::TooLong { .. } => io::ErrorKind::InvalidInput,
            Failure::Unreachable { source, .. } => source.kind(),
        };
        Self::new(kind, failure)
    }
}
