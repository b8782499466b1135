#![doc = include_str!("../README.md")]
//!
//! # The map
//!
//! *Everything is a pipe, and everything that talks in messages runs on any pipe.*
//!
//! | room | what it is for |
//! | --- | --- |
//! | [`nat`] | how a NAT behaves: a model, probing, classification, prediction, pairs; no I/O yet |
//! | [`net`] | what this machine has: interfaces, routes, name resolution, sockets |
//! | [`pipe`] | [`Pipe`], [`pipe_open`], [`NetConf`]: streams and datagrams, callbacks and queues, links |
//! | `punch` | hole punching, UDP (ICE) and TCP (simultaneous open), over any ordered channel (feature `punch`) |
//! | `smart` | smart sockets: messages among many peers, reconnection, publish, round-robin, by identity (feature `smart`) |
//! | `stun` | STUN messages, what clients and servers decide; no I/O yet (feature `stun`) |

mod base;
#[cfg(any(test, feature = "lab"))]
pub mod lab;
pub mod nat;
pub mod net;
pub mod pipe;
#[cfg(feature = "punch")]
pub mod punch;
#[cfg(feature = "smart")]
pub mod smart;
#[cfg(feature = "stun")]
pub mod stun;

pub use net::{Family, Interface, Route, Scope};
pub use pipe::{Addr, Daemon, End, Filter, Message, NetConf, Pipe, Proto, Subscription, pipe_open};
