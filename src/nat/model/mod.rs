//! A NAT or firewall as a value: packets and the time go in, verdicts come out.
//!
//! ```
//! use std::time::Duration;
//! use natpipe::nat::model::{Nat, Rules, Verdict};
//! use natpipe::nat::Packet;
//!
//! let mut nat = Nat::new(Rules::default(), vec!["203.0.113.1".parse().unwrap()], 1);
//! let out = Packet::udp("10.0.0.2:5000".parse().unwrap(), "198.51.100.1:3478".parse().unwrap(), "hello");
//! let Verdict::Forward(seen) = nat.outbound(Duration::ZERO, out) else { panic!("it was not let out") };
//! assert_eq!(seen.src.to_string(), "203.0.113.1:5000");
//! ```
//!
//! `rules` says what can be asked of it, `nat` decides about each packet, `table` keeps bindings within
//! bounds, `assign` chooses ports, `kinds` has the seven types by five deltas and the presets by name.

mod assign;
pub mod kinds;
mod nat;
mod rules;
mod table;

pub use nat::{Nat, Reason, Refusal, Verdict};
pub use rules::{Access, InboundSyn, Lifetimes, Pooling, Rules, Unsolicited};

#[cfg(test)]
mod tests;
