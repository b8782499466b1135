//! How a NAT behaves: the words for it, a model that behaves so, and what follows from it.
//!
//! ```text
//! Rules ─► model::Nat ─(packets)─► the lab: a network in memory, a TUN device
//! Setup ─► probe::Probe ─(requests, answers)─► observations ─classify─► Report
//! Report, recent mappings ─predict─► ports that the next mappings may have
//! two Reports ─pairs::ways─► what can connect them, and why
//! ```
//!
//! Everything here is pure: packets, times and seeds come in as arguments, results go out as values.

mod behaviour;
pub mod lifetime;
pub mod model;
mod packet;
pub mod pairs;
mod predict;
pub mod probe;
mod report;
mod rng;

use crate::net::Family;
pub use behaviour::{Delta, Filtering, Hairpin, Kind, Mapping, Ports};
pub use packet::{Packet, Proto, TTL, TcpFlags};
pub use predict::{Guess, Next, Prediction, Seen, Unpredictable, predict};
pub use report::{DecodeError, Entry, Finding, Foreign, Layers, Report, Why};
pub use rng::Rng;
