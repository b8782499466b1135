//! Holds: what can go wrong with a WebSocket.

use std::io;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

/// Why a WebSocket failed. The peer has been told, where it could be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WsError {
    /// It is closed; by this end or by the peer.
    #[error("the websocket is closed")]
    Closed,
    /// The connection ended without a close frame (RFC 6455 section 7.1.5, code 1006): the peer went away, or a
    /// proxy cut it.
    #[error("the websocket's connection ended without a goodbye")]
    Cut,
    /// The peer sent a message over the limit; it was closed with 1009.
    #[error(
        "a message of {length} bytes is over the limit of {limit}; raise `Conf::max_message`, or send smaller ones"
    )]
    TooLong {
        /// Its length, as far as it is known.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The peer broke the protocol; it was closed with `code`.
    #[error("the peer broke the websocket protocol (closed with {code}): {reason}")]
    Protocol {
        /// The close code: 1002, or 1007 for text that is no UTF-8.
        code: u16,
        /// What was wrong.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("the websocket's connection failed: {0}")]
    Io(#[from] io::Error),
}

impl From<WsError> for io::Error {
    fn from(error: WsError) -> Self {
        let kind = match &error {
            WsError::Io(_) => {
                let WsError::Io(inner) = error else { return io::ErrorKind::Other.into() };
                return inner;
            }
            WsError::Closed => io::ErrorKind::BrokenPipe,
            WsError::Cut => io::ErrorKind::UnexpectedEof,
            WsError::TooLong { .. } | WsError::Protocol { .. } => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

/// Why a server did not accept; the client has been answered, where it could be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The client went away before its request was whole.
    #[error("the client went away within its request")]
    Cut,
    /// No whole request came in time.
    #[error("no whole request came within {limit:?}")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The request was refused.
    #[error("the request was refused: {0}")]
    Refused(#[from] Refusal),
    /// Reading or writing failed.
    #[error("the upgrade failed: {0}")]
    Io(#[from] io::Error),
}

/// Why a client did not connect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is none of a WebSocket.
    #[error("{url} is no websocket URL; one looks like ws://host:port/path")]
    Url {
        /// What was given.
        url: String,
    },
    /// The server answered, but not with an upgrade: it has no WebSocket at this path, or wants credentials.
    #[error("{url} answered {status}{}", said(.reason))]
    Status {
        /// Where.
        url: String,
        /// The status.
        status: StatusCode,
        /// What the server said with it, cut to a line.
        reason: String,
    },
    /// What came back is no upgrade of a WebSocket.
    #[error("{url} does not speak WebSocket: {reason}")]
    NoWebSocket {
        /// Where.
        url: String,
        /// What was wrong.
        reason: &'static str,
    },
    /// No whole response came in time.
    #[error("{url} did not answer the upgrade within {limit:?}")]
    TimedOut {
        /// Where.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// Reading or writing failed.
    #[error("the upgrade at {url} failed: {source}")]
    Io {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn said(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

impl From<ConnectError> for io::Error {
    fn from(error: ConnectError) -> Self {
        let kind = match &error {
            ConnectError::Url { .. } => io::ErrorKind::InvalidInput,
            ConnectError::Status { .. } => io::ErrorKind::ConnectionRefused,
            ConnectError::NoWebSocket { .. } => io::ErrorKind::InvalidData,
            ConnectError::TimedOut { .. } => io::ErrorKind::TimedOut,
            ConnectError::Io { source, .. } => source.kind(),
        };
        Self::new(kind, error)
    }
}

/// An answer other than yes to a request for a WebSocket.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{status}: {reason}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// Said to the client in the body.
    pub reason: String,
    /// Further headers, such as `WWW-Authenticate`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// A refusal with a status and a sentence.
    pub fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), headers: Vec::new() }
    }

    /// 400: the request is none for a WebSocket.
    pub fn bad(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    /// 401: credentials are wanted, in this way (`WWW-Authenticate`, RFC 9110 section 11.6.1).
    pub fn unauthorized(scheme: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "credentials are wanted")
            .header(http::header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme))
    }

    /// 403: who asks may not.
    pub fn forbidden(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, reason)
    }

    /// 404: there is no WebSocket at this path.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is no websocket at this path")
    }

    /// Adds a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}
