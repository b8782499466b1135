//! A network in memory: hosts behind NATs, a virtual clock, and links that delay, lose, reorder and double
//! packets, all of it determined by one seed. Thousands of runs take seconds.
//!
//! ```text
//! Machine ─packet─► LAN ─► Nat.outbound ─► (next NAT) ─► core: delay, loss, … ─► Nat.inbound ─► LAN ─► Machine
//! ```
//!
//! `network` moves packets and time, `machine` is what a host is asked, `wire` a STUN-like exchange in few
//! bytes, `responder` a server of it with two addresses and a choice of faults, `prober` a host that runs
//! a [`Probe`](crate::nat::probe::Probe).

mod machine;
mod network;
mod prober;
mod responder;
mod wire;

pub use machine::{Machine, Recorder};
pub use network::{Counts, HostId, Link, NatId, Network, Realm};
pub use prober::Prober;
pub use responder::{Fault, Responder};
pub use wire::Message;

#[cfg(test)]
mod tests;
