//! Holds: how pipes fail, one type per operation, and how they end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::Socket;

use super::Addr;
use crate::net::{ResolveError, SocketError};

/// How a pipe came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The peer has sent everything (end of file). Sending may still work: a half-closed stream.
    Finished,
    /// This end closed it, or dropped its last handle.
    Closed,
    /// The connection broke: a reset, or another error of the kernel's.
    Broken(io::ErrorKind),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("the peer has finished"),
            Self::Closed => f.write_str("closed here"),
            Self::Broken(kind) => write!(f, "broken: {kind}"),
        }
    }
}

/// Why a pipe could not be opened. [`kind`](Self::kind) tells; with `do_close(false)` the socket
/// that was given comes back by [`into_socket`](Self::into_socket).
#[derive(Debug)]
pub struct OpenError {
    kind: Box<OpenFailure>,
    socket: Option<Socket>,
}

impl OpenError {
    pub(crate) fn with_socket(self, socket: Option<Socket>) -> Self {
        Self { socket, ..self }
    }

    /// What failed.
    pub fn kind(&self) -> &OpenFailure {
        &self.kind
    }

    /// The socket that was given with `sock`, where `do_close` is off.
    pub fn into_socket(self) -> Option<Socket> {
        self.socket
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.kind)
    }
}

impl<F: Into<OpenFailure>> From<F> for OpenError {
    fn from(failure: F) -> Self {
        Self { kind: Box::new(failure.into()), socket: None }
    }
}

/// What failed while a pipe was opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenFailure {
    /// The destination is not `host:port`, an address, or (for Unix sockets) a path.
    #[error("`{dest}` is not a destination for {proto}: {expected}")]
    Destination {
        /// What was given.
        dest: String,
        /// The protocol that was asked for.
        proto: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// The name did not become an address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The name has addresses, but none of the family of the route or the local address.
    #[error("{dest} has no address of the family of the local address {local}")]
    Family {
        /// The destination.
        dest: String,
        /// The local address.
        local: String,
    },
    /// The kernel refused the socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// No address of the destination took the connection; each that was tried, and why.
    #[error("cannot connect to {dest}: {}", Tried(.tried))]
    Connect {
        /// The destination.
        dest: String,
        /// Each address that was tried and how it failed.
        tried: Vec<(Addr, io::Error)>,
    },
    /// No address of the destination answered within `con_timeout`.
    #[error("{dest} did not answer within {limit:?}: it is down, or a firewall drops what is sent to it")]
    ConnectTimedOut {
        /// The destination.
        dest: String,
        /// The limit, `con_timeout`.
        limit: Duration,
    },
    /// The TLS handshake failed: a certificate that does not verify, or no TLS at the other end.
    #[error("TLS with {dest} failed: {source}")]
    Tls {
        /// The destination.
        dest: String,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake did not end within `ssl_handshake`.
    #[error("TLS with {dest} did not end within {limit:?}")]
    TlsTimedOut {
        /// The destination.
        dest: String,
        /// The limit, `ssl_handshake`.
        limit: Duration,
    },
    /// The options contradict each other or lack something.
    #[error("cannot open this pipe: {reason}")]
    Options {
        /// What is wrong.
        reason: &'static str,
    },
    /// There is no tokio runtime here, and none was given with `NetConf::runtime`.
    #[error("no tokio runtime: call from inside one, or give one with NetConf::runtime")]
    NoRuntime,
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        Self::new(error.kind.io_kind(), error)
    }
}

impl OpenFailure {
    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Destination { .. } | Self::Options { .. } => io::ErrorKind::InvalidInput,
            Self::Resolve(ResolveError::TimedOut { .. }) | Self::ConnectTimedOut { .. } | Self::TlsTimedOut { .. } => {
                io::ErrorKind::TimedOut
            }
            Self::Resolve(_) => io::ErrorKind::NotFound,
            Self::Family { .. } => io::ErrorKind::AddrNotAvailable,
            Self::Socket(error) => error.source.kind(),
            Self::Connect { tried, .. } => tried.last().map_or(io::ErrorKind::Other, |(_, error)| error.kind()),
            Self::Tls { source, .. } => source.kind(),
            Self::NoRuntime => io::ErrorKind::Other,
        }
    }
}

/// The attempts of a failed connection, for a person: the addresses only where there were several.
struct Tried<'a>(&'a [(Addr, io::Error)]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("it has no address that can be tried"),
            [(_, error)] => error.fmt(f),
            many => {
                for (n, (addr, error)) in many.iter().enumerate() {
                    let comma = if n == 0 { "" } else { "; " };
                    write!(f, "{comma}{addr}: {error}")?;
                }
                Ok(())
            }
        }
    }
}

/// Why a message was not sent, or not all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The pipe has ended.
    #[error("not sent: the pipe has ended ({0})")]
    Ended(End),
    /// This end has said that it has finished sending.
    #[error("not sent: this end has finished sending")]
    Finished,
    /// A datagram without a destination: give one with `send_to`.
    #[error("not sent: this pipe has no single peer, give one with send_to")]
    NoDestination,
    /// A stream, or a datagram pipe with a destination, sends to its own peer only.
    #[error("not sent to {dest}: this pipe sends to {peer} only")]
    OtherDestination {
        /// Where the message was to go.
        dest: Addr,
        /// Where the pipe sends.
        peer: Addr,
    },
    /// A server pipe has no client of this address, or several without one (Unix clients): answer those by the pipe that
    /// the handler gets, or that was accepted.
    #[error("not sent: no client {dest}")]
    NoSuchClient {
        /// The address that was given.
        dest: Addr,
    },
    /// The kernel refused: a datagram that is too long, a destination that refused an earlier one.
    #[error("not sent to {dest}: {source}")]
    Io {
        /// Where the message was to go.
        dest: Addr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The pipe was opened with `sock_only`.
    #[error("not sent: the pipe was opened with sock_only")]
    SocketOnly,
}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        let kind = match &error {
            SendError::Ended(_) | SendError::Finished => io::ErrorKind::BrokenPipe,
            SendError::Io { source, .. } => source.kind(),
            SendError::NoSuchClient { .. } => io::ErrorKind::NotConnected,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

/// Why there is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// None came in time.
    #[error("no message within {0:?}")]
    TimedOut(Duration),
    /// The pipe, or the subscription, has ended, and everything that came before was received.
    #[error("no more messages: {0}")]
    Ended(End),
    /// A datagram was refused by its destination (ICMP), or could not be received. The pipe goes on.
    #[error("{peer} refused a datagram: {kind}")]
    Refused {
        /// Where it went.
        peer: Addr,
        /// What the kernel said.
        kind: io::ErrorKind,
    },
    /// The pipe was opened with `sock_only`.
    #[error("the pipe was opened with sock_only")]
    SocketOnly,
}

impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> Self {
        let kind = match &error {
            RecvError::TimedOut(_) => io::ErrorKind::TimedOut,
            RecvError::Ended(End::Broken(kind)) | RecvError::Refused { kind, .. } => *kind,
            RecvError::Ended(_) => io::ErrorKind::UnexpectedEof,
            RecvError::SocketOnly => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

/// Why there is no next client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The pipe is a client or a datagram pipe: it has no clients of its own.
    #[error("this pipe does not listen for connections")]
    NotListening,
    /// The server was closed.
    #[error("no more clients: {0}")]
    Ended(End),
}

/// Why a filter could not be made.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The expression does not parse, or compiles to more than the limit.
    #[error("`{pattern}` is no regular expression: {source}")]
    Pattern {
        /// What was given.
        pattern: String,
        /// What the regex crate said.
        #[source]
        source: regex::Error,
    },
}

pub(crate) fn refused(peer: Option<SocketAddr>, error: &io::Error) -> RecvError {
    RecvError::Refused { peer: peer.map_or(Addr::Unnamed, Addr::Ip), kind: error.kind() }
}
