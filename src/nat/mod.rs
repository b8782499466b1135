//! How a NAT behaves: the words for it, a model that behaves so, and what follows from it.
//!
//! ```text
//! Rules ─► model::Nat ─(packets)─► the lab: a network in memory, a TUN device
//! ```
//!
//! Everything here is pure: packets, times and seeds come in as arguments, results go out as values.

mod behaviour;
pub mod model;
mod packet;
mod rng;

pub use behaviour::{Delta, Filtering, Hairpin, Kind, Mapping, Ports};
pub use packet::{Packet, Proto, TTL, TcpFlags};
pub use rng::Rng;
