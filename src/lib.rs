#![doc = include_str!("../README.md")]
//!
//! # The map
//!
//! *Everything is a pipe, and everything that talks in messages runs on any pipe.*
//!
//! | room | what it is for |
//! | --- | --- |
//! | `comm` | producers, calls and consumers over a broker, a pipe, or in process (features `comm`, `amqp`) |
//! | `duct` | message ducts: two ends, objects in, objects out (feature `duct`, Unix systems) |
//! | [`frame`] | bytes to messages: lengths, first-byte sniffing, WebSocket (feature `ws`) |
//! | `key` | who a peer is: identities, tickets, sealed messages, TLS by key (feature `peer`) |
//! | `lab` | NATs on this machine: in memory with virtual time, and on Linux real ones (feature `lab`) |
//! | [`nat`] | how a NAT behaves: a model, probing, classification, prediction, pairs, the report |
//! | [`net`] | what this machine has: interfaces, routes, name resolution, sockets |
//! | `peer` | a pipe to whoever holds a ticket, whatever NATs stand between (feature `peer`) |
//! | [`pipe`] | [`Pipe`], [`pipe_open`], [`NetConf`]: streams and datagrams, callbacks and queues, links |
//! | `pool` | websocket pools: connections that talk both ways, by pool, router and connection (feature `pool`) |
//! | `portmap` | ports of the router opened for us: PCP, NAT-PMP, UPnP-IGD, IPv6 pinholes (feature `portmap`) |
//! | `punch` | hole punching, UDP (ICE) and TCP (simultaneous open), over any ordered channel (feature `punch`) |
//! | `rendezvous` | a server to meet at: signalling sealed end to end, relayed streams (feature `peer`) |
//! | `smart` | smart sockets: messages among many peers, reconnection, publish, round-robin, by identity (feature `smart`) |
//! | `stun` | STUN messages, client and server (feature `stun`) |
//! | `turn` | a TURN client: an address at a server that others can send to (feature `turn`) |

mod base;
#[cfg(feature = "comm")]
pub mod comm;
#[cfg(all(feature = "duct", unix))]
pub mod duct;
pub mod frame;
#[cfg(feature = "peer")]
pub mod key;
#[cfg(any(test, feature = "lab"))]
pub mod lab;
pub mod nat;
pub mod net;
#[cfg(feature = "peer")]
pub mod peer;
pub mod pipe;
#[cfg(feature = "pool")]
pub mod pool;
#[cfg(feature = "portmap")]
pub mod portmap;
#[cfg(feature = "punch")]
pub mod punch;
#[cfg(feature = "peer")]
pub mod rendezvous;
#[cfg(feature = "smart")]
pub mod smart;
#[cfg(feature = "stun")]
pub mod stun;
#[cfg(feature = "turn")]
pub mod turn;

#[cfg(feature = "peer")]
pub use key::{Identity, PeerId, Ticket};
pub use net::{Family, Interface, Route, Scope};
pub use pipe::{Addr, Daemon, End, Filter, Message, NetConf, Pipe, Proto, Subscription, pipe_open};
