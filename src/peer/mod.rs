//! Peers: a pipe to whoever holds a ticket, whatever NATs stand between.
//!
//! ```text
//! Ticket ─► race    direct | reverse | UDP punch | TCP punch | relay, TURN, all at once, each authenticated by key
//!           path    TLS 1.3 over TCP and relays, QUIC over UDP
//!           session many channels over whichever path is the best now; nothing lost, doubled or reordered at a change
//!           Pipe    one channel
//! ```
//!
//! `session` is the conversation that outlives its paths, `node` finds paths and holds everything, `greeting` and `offer` decide
//! about first words, `path` and `event` hold what is told of them, `lan` finds peers on the same network, `quic` runs QUIC through
//! holes. Without a node, [`introduce`] and [`secure`] make a pipe out of a hole that was punched otherwise, and a [`HandLine`] is
//! what people carry for it.

mod defaults;
mod event;
mod greeting;
#[cfg(feature = "lan")]
mod lan;
mod line;
mod node;
mod offer;
mod path;
mod quic;
mod session;

pub use event::{Event, StrategyState};
#[cfg(feature = "lan")]
pub use lan::{Lan, LanError, LanPeer};
pub use line::{HandLine, HandLineError};
pub use node::{
    Builder, ConnectError, Failures, IntroduceError, Node, NodeError, Peer, SecureError, introduce, secure,
};
pub use path::{PathInfo, PathKind};
#[doc(hidden)]
pub use session::read_record;
pub use session::{Ended, Multipath};

/// Bytes of the system's randomness.
fn random<const N: usize>() -> Option<[u8; N]> {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}
