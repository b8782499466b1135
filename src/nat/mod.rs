//! How a NAT behaves: the words for it, a model that behaves so, and what follows from it.
//!
//! ```text
//! Rules ─► model::Nat ─(packets)─► the lab: a network in memory, a TUN device
//! Setup ─► probe::Probe ─(requests, answers)─► observations ─classify─► Report
//! Report, recent mappings ─predict─► ports that the next mappings may have
//! two Reports ─pairs::ways─► what can connect them, and why
//! ```
//!
//! Packets, times and seeds come in as arguments, results go out as values; [`Prober`] alone (feature `stun`) opens
//! sockets, for the report of this machine.

mod behaviour;
pub mod lifetime;
#[cfg(feature = "stun")]
mod measure;
pub mod model;
mod packet;
pub mod pairs;
mod predict;
pub mod probe;
mod report;
mod rng;

use crate::net::Family;
pub use behaviour::{Delta, Filtering, Hairpin, Kind, Mapping, Ports};
#[cfg(feature = "punch")]
pub(crate) use measure::own_hops;
#[cfg(feature = "stun")]
pub use measure::{DEFAULT_SERVERS, MeasureError, Prober, Progress};
pub use packet::{Packet, Proto, TTL, TcpFlags};
pub use predict::{Guess, Next, Prediction, Seen, Unpredictable, predict};
pub use report::{DecodeError, Entry, Finding, Foreign, Layers, Report, Why};
pub use rng::Rng;
