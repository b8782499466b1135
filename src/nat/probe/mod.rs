//! Which STUN requests tell what kind of NAT this is, when they are sent, and what their answers say.
//!
//! ```text
//! Setup ─► Probe ─poll_effect─► sockets opened, requests sent ─► handle_* ─► observations ─classify─► Entry
//! ```
//!
//! A driver owns the sockets and the clock; [`Probe`] owns every decision (`machine`, with its `plan`). The
//! order of a turn: `handle_opened`, `handle_answer` and so on as things happen, then `poll_effect` until
//! `None`, then sleep until `poll_timeout` and call `handle_timeout`; [`Probe::entry`] once `is_done`.
//!
//! What is sent, all in parallel within three rounds:
//!
//! 1. From a main and a partner socket one request to each server: who answers, how far away is it, and has
//!    it a second address?
//! 2. From the main socket the other three of {address 1, 2} x {port 1, 2} (RFC 5780 section 4.3). From fresh sockets
//!    the filtering tests (section 4.4), with controls that tell a filter from a lost packet and from a server that
//!    ignores CHANGE-REQUEST. Main and partner send to each other's external address (hairpinning). Eight
//!    sockets on chosen local ports, five in a row and three apart: how are ports assigned?
//! 3. A while later eight more, which also show how many mappings others made meanwhile.

mod allocation;
mod ask;
mod classify;
mod machine;
mod plan;
mod trust;

pub use allocation::{Sample, delta};
pub use ask::{Answer, Asked, Change, Effect, Heard, Observations, Purpose, Server, Setup, SocketId, Transmit};
pub use classify::{classify, layers};
pub use machine::Probe;

#[cfg(test)]
mod tests;
