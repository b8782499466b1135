//! Holds: what happens in a pool, for who listens.

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Con;
use crate::frame::ws::Close;

/// Events that wait for a listener; one that is slower learns how many it missed.
pub(super) const WAITING: usize = 256;

/// Something that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection has become a member.
    Joined(Con),
    /// A member has gone.
    Left(Con, Left),
    /// A member has told other metadata.
    Changed(Con),
    /// A client could not connect, and will try again.
    Retrying {
        /// Where it leads.
        dest: String,
        /// Why.
        why: String,
    },
    /// Somebody was not let in, or did not become a member.
    Refused {
        /// Why.
        why: String,
    },
    /// So many events were not heard: the listener is slower than they come.
    Missed(u64),
}

/// How a member went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Left {
    /// It said goodbye.
    Closed(Close),
    /// This end closed it.
    ByUs(Close),
    /// It said nothing for too long.
    Dead,
    /// It took nothing of what waited for it for too long.
    Stuck,
    /// Its connection broke, or it broke the protocol.
    Broken(String),
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed(close) if close.reason.is_empty() => write!(f, "it closed with {}", close.code),
            Self::Closed(close) => write!(f, "it closed with {}, {}", close.code, close.reason),
            Self::ByUs(close) if close.reason.is_empty() => write!(f, "it was closed with {}", close.code),
            Self::ByUs(close) => write!(f, "it was closed with {}, {}", close.code, close.reason),
            Self::Dead => f.write_str("it said nothing for too long"),
            Self::Stuck => f.write_str("it took nothing for too long"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

/// The events of a pool from the moment on when it was asked for them.
#[derive(Debug)]
pub struct Events(pub(super) broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` when the pool is gone.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}
