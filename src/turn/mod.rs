//! TURN: an address at a server that others can send to, for where nothing straighter works (RFC 8656).
//!
//! ```text
//! TurnServer ─► Client ─allocate─► Allocation   relayed(): the address
//!                                    │  permit(ip): who may send to it
//!               UDP, TCP or TLS ◄────┘  send_to, recv_from: datagrams, through channels where they flow
//! ```
//!
//! `core` decides: what is asked, when it is refreshed, which datagram is from whom; `peers` knows permissions and channels, `frame`
//! the bytes of channel data, `account` credentials that end by themselves. `client` connects, `link` is the task that moves bytes
//! between the core and the server, `allocation` is what a program holds, `tcp` relays connections (RFC 6062). Messages and their proof are the room `stun`'s.
//!
//! ```no_run
//! use natpipe::turn::{Client, TurnServer};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server: TurnServer = "turn:ann:secret@turn.example:3478?transport=udp".parse()?;
//! let relayed = Client::new(server).allocate().await?;
//! println!("send to {}", relayed.relayed());
//! let friend: std::net::SocketAddr = "198.51.100.7:4000".parse()?;
//! relayed.permit(friend.ip()).await?;
//! relayed.send_to(b"hello", friend).await?;
//! let (bytes, from) = relayed.recv_from().await?;
//! # let _ = (bytes, from);
//! # Ok(()) }
//! ```

mod account;
mod allocation;
mod client;
mod core;
mod error;
mod frame;
mod link;
mod message;
mod peers;
mod server;
mod tcp;
#[cfg(test)]
mod tests;

pub use account::Account;
pub use allocation::Allocation;
pub use client::Client;
pub use core::{Core, Event, Settings};
pub use error::{AllocateError, Lost, PermitError, Refused, RelayError};
pub use frame::{Cut, channel_data, cut};
pub use server::{Over, TurnServer, TurnServerError};
pub use tcp::TcpAllocation;
