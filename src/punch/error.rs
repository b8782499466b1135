//! Holds: why there is no hole.

use std::io;
use std::time::Duration;

use super::message::MessageError;
use super::plan::Plan;
use super::punched::packets;
use crate::nat::Proto;
use crate::net::SocketError;

/// Why there is no hole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PunchError {
    /// No route was given.
    #[error("no interface to punch from")]
    NoRoute,
    /// No socket can be made on any of the routes.
    #[error("no socket to punch from")]
    Socket(#[from] SocketError),
    /// The channel to the peer broke, or it ended before both had agreed.
    #[error("the channel to the peer broke while {doing}")]
    Channel {
        /// What was being said.
        doing: &'static str,
        /// What the channel says.
        #[source]
        source: io::Error,
    },
    /// The channel stands and nothing comes through it. The peer may not have started, or have given up.
    #[error("the peer was silent for {limit:?} while {doing}")]
    Silent {
        /// What was being said.
        doing: &'static str,
        /// How long it was awaited.
        limit: Duration,
    },
    /// The peer says what can not be understood.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The peer says something at the wrong time.
    #[error("the peer does not keep to the protocol while {0}")]
    OutOfTurn(&'static str),
    /// The peer has no candidate of the protocol and the families that we have.
    #[error("the peer offers no {proto} address of a family that we have")]
    NothingInCommon {
        /// UDP or TCP.
        proto: Proto,
    },
    /// Nothing came through within the limit. Another protocol or a relay may.
    #[error("nothing came through over {proto} within {limit:?}: {tried} addresses of the peer were tried, {}; {plan}", packets(.proto, .attempts))]
    Closed {
        /// UDP or TCP.
        proto: Proto,
        /// How long.
        limit: Duration,
        /// How many addresses.
        tried: usize,
        /// Packets that were sent (UDP) or connections that were begun (TCP) towards them.
        attempts: u32,
        /// What else was done.
        plan: Plan,
    },
}
