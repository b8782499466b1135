//! WebSocket (RFC 6455) over anything that reads and writes: client, server, messages, bytes (feature `ws`).
//!
//! # How to use it
//!
//! Every stream pipe becomes one by [`Pipe::into_stream`](crate::Pipe::into_stream). A client calls [`connect`]; a
//! server calls [`accept`], or [`Incoming::read`] when it wants to look at the request first and answer it with a
//! [`Refusal`]. Both get a [`WebSocket`]: `next`, `send`, `feed` with `flush`, `close`, and `poll_*` for who drives it by
//! hand. Who wants a byte stream through it (smart sockets) calls [`WebSocket::into_bytes`]. Within another HTTP
//! server (hyper, axum) [`upgrade::response`] answers its request and [`WebSocket::after_upgrade`] takes the stream over.
//!
//! ```
//! use natpipe::frame::ws::{self, Conf, Message};
//! use natpipe::{NetConf, Pipe};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (near, far) = Pipe::pair(4096, NetConf::default())?;
//! let (near, far) = (near.into_stream().await, far.into_stream().await);
//! let conf = Conf::default();
//! let (client, server) = tokio::join!(ws::connect(near, "ws://any.example/chat", &conf), ws::accept(far, &conf));
//! let (mut client, mut server) = (client?.socket, server?.socket);
//! client.send(Message::binary("hello")).await?;
//! assert_eq!(server.next().await.unwrap()?, Message::binary("hello"));
//! # Ok(())
//! # }
//! ```
//!
//! The frames are those of tokio-tungstenite, chosen by measurement (`docs/pool.md`). No extension is negotiated. A
//! peer that breaks the protocol gets the close code that RFC 6455 section 7.4.1 has for it before the error comes out.

mod bytes;
mod conf;
mod error;
mod head;
mod incoming;
mod outgoing;
mod socket;
#[cfg(test)]
mod tests;
pub mod upgrade;

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub use self::bytes::ByteStream;
pub use conf::Conf;
pub use error::{ConnectError, Refusal, UpgradeError, WsError};
pub use incoming::{Accepted, Incoming, accept};
pub use outgoing::{Connected, connect};
pub use socket::{Close, Message, Role, WebSocket};
