//! Peers on the same network, by multicast DNS (RFC 6762, RFC 6763), with no server.
//!
//! `table` decides what is believed of the answers, which anybody on the network can forge: nothing but that a peer may be at an
//! address. `watch` runs the crate mdns-sd.

mod table;
mod watch;

pub use table::LanPeer;
pub use watch::{Lan, LanError};
