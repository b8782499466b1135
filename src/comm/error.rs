//! Holds: what can go wrong, one enum for each operation.

use std::fmt;
use std::io;
use std::time::Duration;

use thiserror::Error;

use super::Value;

/// A configuration that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A key that this protocol needs is not there: add it.
    #[error("the configuration lacks the key `{key}`, which {needed_by} needs")]
    Missing {
        /// The key.
        key: &'static str,
        /// The protocol or role that needs it.
        needed_by: String,
    },
    /// There is no such key.
    #[error("the configuration has an unknown key `{key}`; known are {known}")]
    Unknown {
        /// The key as it was written.
        key: String,
        /// All keys that there are.
        known: String,
    },
    /// A key has a value that it cannot have.
    #[error("the key `{key}` cannot be {value}: it takes {wanted}")]
    Invalid {
        /// The key.
        key: String,
        /// What was given; of a password only its kind.
        value: String,
        /// What it takes.
        wanted: &'static str,
    },
    /// Two keys exclude each other.
    #[error("the keys `{a}` and `{b}` cannot both be given: {why}")]
    Both {
        /// One.
        a: &'static str,
        /// The other.
        b: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// The text is no YAML, no TOML or no URL, or it is not a mapping.
    #[error("the configuration cannot be read: {0}")]
    Syntax(String),
    /// No backend is registered under this name.
    #[error(
        "there is no backend for the protocol `{protocol}`; there are {known} (features of the crate, or `comm::register`)"
    )]
    Protocol {
        /// The protocol asked for.
        protocol: String,
        /// Those that there are.
        known: String,
    },
}

/// A body that cannot be read or written.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError {
    /// The bytes are not of the format.
    #[error("the body is no {format}: {why}")]
    Syntax {
        /// The format that was expected.
        format: &'static str,
        /// Where and why.
        why: String,
    },
    /// A YAML tag asks for an object to be built. None ever is.
    #[error("the body has the tag {tag}, which would build an object; natpipe builds none")]
    Tag {
        /// The tag.
        tag: String,
    },
    /// Anchors make the body grow out of proportion (a YAML bomb).
    #[error("the body's anchors make it grow out of proportion")]
    Bomb,
    /// Lists and mappings are nested too deep.
    #[error("the body is nested deeper than {limit}")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// A whole number that no integer type holds: send it as text.
    #[error("a whole number of {digits} digits is not between i64::MIN and u64::MAX")]
    Number {
        /// How long it is.
        digits: usize,
    },
    /// More bytes than `max_body` allows.
    #[error("the body has {size} bytes; `max_body` allows {limit}")]
    TooLong {
        /// Bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The data has another shape than what was asked for.
    #[error("the data does not fit: {0}")]
    Unfit(String),
}

impl BodyError {
    pub(crate) fn syntax(format: &'static str, why: &str) -> Self {
        Self::Syntax { format, why: why.to_owned() }
    }

    pub(crate) fn unfit(why: impl fmt::Display) -> Self {
        Self::Unfit(why.to_string())
    }
}

/// The transport failed: the message did not get where it should, or nobody knows whether it did.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CommunicationError {
    /// The configuration is at fault.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The body could not be written, or the answer not be read.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The broker or peer cannot be reached: is it running, are host, port and TLS right?
    #[error("cannot connect to {target}: {why}")]
    Connect {
        /// Where.
        target: String,
        /// Why not.
        why: String,
    },
    /// The broker does not know this user, or the password is another.
    #[error("{target} refuses the user `{user}`: {why}")]
    Credentials {
        /// The broker.
        target: String,
        /// The user.
        user: String,
        /// In the broker's words.
        why: String,
    },
    /// There is no such virtual host, or the user may not enter it.
    #[error("{target} does not let us into the virtual host `{vhost}`: {why}")]
    Vhost {
        /// The broker.
        target: String,
        /// The virtual host.
        vhost: String,
        /// In the broker's words.
        why: String,
    },
    /// The queue exists with other properties: declare it the same way at both ends (`auto_delete`,
    /// `durable`), or delete it.
    #[error("the queue `{queue}` exists with other properties: {why}")]
    QueueDiffers {
        /// The queue.
        queue: String,
        /// In the broker's words.
        why: String,
    },
    /// The exchange, or a queue that was to be there, does not exist.
    #[error("{target} has no {what}")]
    NotFound {
        /// The broker.
        target: String,
        /// What is not there, in the broker's words.
        what: String,
    },
    /// The broker forbids or refuses it.
    #[error("{target} refuses: {why}")]
    Refused {
        /// The broker.
        target: String,
        /// In the broker's words.
        why: String,
    },
    /// The message arrived at the exchange, and no queue takes this routing key.
    #[error("no queue takes the routing key `{routing_key}` of the exchange `{exchange}`")]
    Unroutable {
        /// The exchange.
        exchange: String,
        /// The key.
        routing_key: String,
    },
    /// The broker took the message and gave it back (a nack): push it again later.
    #[error("{target} could not take the message for `{routing_key}`")]
    Nacked {
        /// The broker.
        target: String,
        /// The key.
        routing_key: String,
    },
    /// The connection was lost. When `sent` is true, the message may have arrived: push it again if
    /// twice is better than never.
    #[error("the connection to {target} was lost{}: {why}", if *sent { " with the message on its way" } else { "" })]
    Lost {
        /// The broker or peer.
        target: String,
        /// Whether it may have arrived.
        sent: bool,
        /// Why.
        why: String,
    },
    /// It took longer than `timeout`. A call may still be carried out, a message still arrive.
    #[error("no {what} from {target} within {after:?}")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// From whom.
        target: String,
        /// How long.
        after: Duration,
    },
    /// The queue holds as much as it may, and the consumer takes nothing.
    #[error("the queue `{queue}` is full")]
    Full {
        /// The queue.
        queue: String,
    },
    /// The other end does not keep to the protocol, as with a result code that has no meaning.
    #[error("{target} breaks the protocol: {why}")]
    Protocol {
        /// The broker or peer.
        target: String,
        /// What is wrong.
        why: String,
    },
    /// The producer or consumer was closed at this end.
    #[error("it is closed")]
    Closed,
}

impl CommunicationError {
    /// True when the same again, later, may go well.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Lost { .. } | Self::TimedOut { .. } | Self::Nacked { .. } | Self::Full { .. }
        )
    }
}

/// The processor of a call said no.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum ApplicationError {
    /// 4xx: the same call will fail again.
    #[error("[{code}] {data}")]
    Critical {
        /// From 400 to 499.
        code: u16,
        /// What the processor says about it.
        data: Value,
    },
    /// 5xx: it may go well another time.
    #[error("[{code}] {data}")]
    Transient {
        /// From 500 to 599.
        code: u16,
        /// What the processor says about it.
        data: Value,
    },
}

impl ApplicationError {
    /// A critical error: 400 and a reason.
    pub fn critical(data: impl Into<Value>) -> Self {
        Self::Critical { code: 400, data: data.into() }
    }

    /// A transient error: 500 and a reason.
    pub fn transient(data: impl Into<Value>) -> Self {
        Self::Transient { code: 500, data: data.into() }
    }

    /// The code.
    pub fn code(&self) -> u16 {
        match self {
            Self::Critical { code, .. } | Self::Transient { code, .. } => *code,
        }
    }

    /// What the processor says about it.
    pub fn data(&self) -> &Value {
        match self {
            Self::Critical { data, .. } | Self::Transient { data, .. } => data,
        }
    }
}

/// A call that has no result.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The transport failed, or the time ran out.
    #[error(transparent)]
    Communication(#[from] CommunicationError),
    /// The processor said no.
    #[error(transparent)]
    Application(#[from] ApplicationError),
}

impl From<BodyError> for CallError {
    fn from(error: BodyError) -> Self {
        Self::Communication(error.into())
    }
}

impl From<CommunicationError> for io::Error {
    fn from(error: CommunicationError) -> Self {
        let kind = match &error {
            CommunicationError::TimedOut { .. } => io::ErrorKind::TimedOut,
            CommunicationError::Connect { .. } => io::ErrorKind::ConnectionRefused,
            CommunicationError::Lost { .. } => io::ErrorKind::ConnectionReset,
            CommunicationError::Credentials { .. } | CommunicationError::Refused { .. } => {
                io::ErrorKind::PermissionDenied
            }
            CommunicationError::NotFound { .. } | CommunicationError::Vhost { .. } => io::ErrorKind::NotFound,
            CommunicationError::Config(_) | CommunicationError::Body(_) => io::ErrorKind::InvalidInput,
            CommunicationError::Protocol { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
