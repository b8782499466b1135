//! Two peers' conversation: many channels over whatever path there is now, none of it lost, doubled or
//! reordered when the path changes.
//!
//! `record` is the format, `batch` how it is written, `buffers` where payloads stand, `lane` numbers records and sends them
//! again, `flow` measures how much a path takes, `channels` holds the bytes of each channel and its window, `pulse` tells a
//! living path from a dead one, `twins` a datagram from its copy, `state` puts them together, and `ways` is of it what concerns
//! paths; all of these decide. `drive` and `carry` wait: they
//! move bytes between the state and the paths. `transport` makes each channel a pipe.

mod batch;
mod buffers;
mod carry;
mod channels;
mod drive;
mod flow;
mod lane;
mod outlet;
mod path;
mod pulse;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod transport;
mod twins;
mod ways;

pub(crate) use carry::{Carrier, Stream};
pub(crate) use channels::ChannelKind;
pub use drive::Ended;
pub(crate) use drive::{Keep, Shared};
pub(crate) use path::SessionId;
use record::Kind;
#[doc(hidden)]
pub use record::reread as read_record;
pub use state::Multipath;
pub(crate) use state::RELAYED;
pub(crate) use state::Role;
pub(crate) use transport::ChannelPipe;

/// What the other end may not say. The session ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProtocolError {
    /// A kind of record that this version does not know.
    #[error("unknown kind of record {0}")]
    Kind(u8),
    /// A payload over the limit.
    #[error("a record of {0} bytes is too long")]
    TooLong(usize),
    /// A payload of the wrong length for its kind.
    #[error("a {0:?} record of the wrong length")]
    Length(Kind),
    /// An acknowledgement of what was not sent.
    #[error("record {expected} expected, but only {sent} were sent")]
    Ack {
        /// What the other end says it has, plus one.
        expected: u64,
        /// How many were sent.
        sent: u64,
    },
    /// More came before its turn than any end may send.
    #[error("record {number} came where {expected} was due, and too much before it")]
    Gap {
        /// The number whose turn it is.
        expected: u64,
        /// The number that came.
        number: u64,
    },
    /// A record that may not come now: before the greeting, or on a channel that does not exist.
    #[error("a {0:?} record out of place")]
    OutOfPlace(Kind),
    /// More bytes than the window allows.
    #[error("more bytes than the window of channel {0} allows")]
    Window(u32),
    /// It opens channels and acknowledges nothing.
    #[error("more is asked than answers are read")]
    Unread,
    /// The greeting of another session, or of another version.
    #[error("a greeting that does not fit")]
    Greeting,
}
