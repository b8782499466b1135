//! Meeting: a server that peers are registered with, through which they find each other, talk sealed, and, where
//! nothing better is found, relay streams.
//!
//! ```text
//! Client ─TLS by key─► Server ◄─TLS by key─ Client      one connection each, for everything; over TCP or
//!                                                       a websocket
//! Signal  a conversation with a peer, sealed end to end; the server sees who talks to whom, and no word
//! relay   an ordered byte stream to that peer, which both must ask for; what runs in it encrypts itself
//! ```
//!
//! `wire` decides about frames, `server` is the [`Server`] with its deciding [`Registry`], `client` the [`Client`]. The
//! protocol is in `docs/protocols/rendezvous.md`.

mod client;
mod counters;
mod frames;
mod limits;
mod server;
mod wire;

#[cfg(feature = "mqtt")]
pub use client::{BrokerError, MqttBuilder, MqttClient, topic};
pub use client::{
    Client, ClientBuilder, ConnectError, Proxy, ProxyError, RelayError, RelayStream, Signal, SignalError, State,
};
pub use counters::Counters;
pub use limits::Limits;
pub use server::{Conn, Next, Registry, ServeError, Server, ServerBuilder, Violation};
pub use wire::{FIRST_WINDOW, Frame, FrameError, MAX_DATA, MAX_SIGNAL, RawPeer, Reason, Token, VERSION};

/// What the connection speaks, as TLS names it (RFC 7301).
const ALPN: &[u8] = b"natpipe-rendezvous/1";

/// The longest websocket message that carries a connection, bytes: what TLS gathers for one write.
const WS_MESSAGE: usize = 256 * 1024;
