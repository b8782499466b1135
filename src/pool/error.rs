//! Holds: what can go wrong with asking, binding, connecting and packing.

use std::io;
use std::time::Duration;

use super::ConId;
use crate::frame::ws;
use crate::pipe::OpenError;

/// Why a value does not become MessagePack, or MessagePack no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The value does not serialize.
    #[error("the value does not become MessagePack: {0}")]
    Value(#[from] rmp_serde::encode::Error),
    /// The message is of another type than the one that is wanted.
    #[error("the message is of another type: {0}")]
    Type(#[from] rmp_serde::decode::Error),
    /// The bytes are not one MessagePack value.
    #[error("the bytes are not one MessagePack value")]
    Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The pool has no member, or none that matches. Wait with [`Pool::joined`](super::Pool::joined).
    #[error("the pool {pool} has no member to ask")]
    NoMember {
        /// The pool.
        pool: String,
    },
    /// The member's queue is full: it takes less than is sent. Only publishing says so; other sends wait.
    #[error("the queue of {con} is full; it takes less than is sent to it")]
    Full {
        /// Who.
        con: ConId,
    },
    /// The member has gone; whether it had the message is not known.
    #[error("{con} went away before its last answer: {why}")]
    Gone {
        /// Who.
        con: ConId,
        /// How it ended.
        why: String,
    },
    /// Not everything came in time.
    #[error("not every answer came within {limit:?}")]
    TimedOut {
        /// The deadline.
        limit: Duration,
    },
    /// The member's router failed, panicked, or took too long.
    #[error("the router of {con} failed: {reason}")]
    Router {
        /// Who.
        con: ConId,
        /// What it says.
        reason: String,
    },
    /// The member answered nothing, where one answer was waited for.
    #[error("{con} answered nothing")]
    NoAnswer {
        /// Who.
        con: ConId,
    },
    /// The message is longer than the pool sends.
    #[error("the message has {length} bytes, over the limit of {limit}; raise `PoolConf::max_message` at both ends")]
    TooLong {
        /// Its bytes.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The message does not become MessagePack.
    #[error("the message can not be packed: {reason}")]
    Pack {
        /// Why.
        reason: String,
    },
}

impl From<PackError> for AskError {
    fn from(error: PackError) -> Self {
        Self::Pack { reason: error.to_string() }
    }
}

/// Why a pool does not listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address can not be bound.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The pool is closed.
    #[error("the pool is closed")]
    Closed,
    /// The pipe that was given did not become a member.
    #[error("the connection did not become a member: {0}")]
    Upgrade(#[from] ws::UpgradeError),
}

/// Why a client does not connect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The destination is none of a pool.
    #[error("{dest} is no address of a pool; one looks like host:port, ws://host:port/ws, wss://… or unix:PATH")]
    Dest {
        /// What was given.
        dest: String,
    },
    /// The pool is closed, or the client was stopped.
    #[error("the pool is closed, or the client was stopped")]
    Closed,
    /// The connection can not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The server does not let it in, or is no WebSocket.
    #[error(transparent)]
    Connect(#[from] ws::ConnectError),
    /// The pool has as many members as it may.
    #[error("the pool has {limit} members, as many as it may")]
    Members {
        /// The limit.
        limit: usize,
    },
}

impl From<ClientError> for io::Error {
    fn from(error: ClientError) -> Self {
        Self::other(error)
    }
}
