//! A node: one identity, the places where it is met, and all its connections.
//!
//! `meeting` is a place where others are met, `near` this network, `secure` makes paths that are encrypted and proved, `doors` is
//! where others knock, `ports` has gateways open them, `relayed` meets at TURN servers, `call` races to a peer by a ticket, by
//! `strategies`, `answer` is reached, `news` is what both tell each other meanwhile; `handle` is what a program holds, and `hole` makes one out of a hole alone.

mod answer;
mod builder;
mod call;
mod doors;
mod handle;
mod hole;
mod inner;
mod meeting;
#[cfg(feature = "lan")]
mod near;
mod news;
mod ports;
mod relayed;
mod secure;
mod strategies;

pub use builder::{Builder, NodeError};
pub use call::{ConnectError, Failures};
pub use handle::{Node, Peer};
pub use hole::{IntroduceError, SecureError, introduce, secure};
