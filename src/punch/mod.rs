//! Hole punching: a pipe between two peers, each behind a NAT, who can already exchange short messages.
//!
//! ```text
//! bases     a socket on a route ─► host candidate; STUN from the same socket ─► server-reflexive one, the NAT's shape
//! gather    those of all routes at once, and what comes later
//! assisted  their gateways, asked to open the same ports ─► NAT-assisted candidates
//! agree     Channel ─► Hello, round trip, Offer both ways: both begin at one instant
//! by_hand   the same without a channel: one line each way, which people carry, and both go on until both have begun
//! plan      two shapes ─► what is done beside ordinary punching: open, spray, cross, or nothing
//! udp       ICE (RFC 8445, the crate `is`): checks, peer-reflexive addresses, nomination ─► a socket and an address
//! tcp       connects and accepts on one port, again 10 ms after each refusal ─► connections
//! choice    each proves itself ─► the one that both take
//! trickle   meanwhile: addresses that either end finds later, each passed on at once
//! ```
//!
//! `message`, `shape`, `plan` and `volley` decide; `channel`, `ask`, `assisted`, `bases`, `gather`, `agree`, `trickle`, `by_hand`, `udp`, `tcp`, `choice`, `puncher` and `hole` (the
//! pipe) wait; `error` and `punched` hold what comes of it.

mod agree;
mod ask;
mod assisted;
mod bases;
mod by_hand;
mod channel;
mod choice;
mod error;
mod gather;
mod hole;
mod message;
mod plan;
mod punched;
mod puncher;
mod shape;
mod tcp;
#[cfg(test)]
mod tests;
mod trickle;
mod udp;
mod volley;

pub use by_hand::ByHand;
pub use channel::{Channel, PipeChannel};
pub use error::PunchError;
pub use hole::UdpHole;
pub use message::MessageError;
pub use plan::Plan;
pub use punched::{Hole, Punched};
pub use puncher::Puncher;
pub use shape::{Assigned, Shape};
pub use volley::{Shot, Volley};
