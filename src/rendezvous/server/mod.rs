//! The server: STUN, signalling and relay in one process.
//!
//! ```text
//! TCP ─[websocket]─TLS by key─► frames ─► Registry (accounts, peers, pairs: all decide) ─► frames ─► TCP
//! UDP ─► stun::Server
//! ```
//!
//! `serve` waits for connections, `session` for one of them.

mod accounts;
mod pairs;
mod peer;
mod registry;
mod serve;
mod session;
#[cfg(test)]
mod tests;

pub use registry::{Conn, Next, Registry, Violation};
use serve::Shared;
pub use serve::{ServeError, Server, ServerBuilder};
