//! Smart sockets (feature `smart`): one object that sends and receives messages, however many
//! peers there are and whether they are there at the moment. It binds and connects as often as one
//! likes, connects again for ever, keeps what is sent while nobody is there, and spreads messages
//! to all peers, to one in turn, or to one by name.
//!
//! ```
//! use natpipe::smart::{SendMode, SmartSocket};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = SmartSocket::new()?;
//! let addr = server.bind("127.0.0.1:0").await?;
//!
//! let client = SmartSocket::builder().mode(SendMode::Publish).build()?;
//! client.connect(addr)?;
//! client.send("hello").await?;                 // kept until the server is there
//!
//! let question = server.recv_from().await?;
//! assert_eq!(question.data, "hello");
//! server.send_to(question.from, "and welcome").await?;
//! assert_eq!(client.recv().await?, "and welcome");
//! client.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! send  ─► desk (who gets it, what waits) ─► outbox of a peer ─► connection, many messages a write
//! recv  ◄─ inbox ◄─ runs of messages, as they were read ◄─ connection ◄─ Pipe
//! ```
//!
//! `protocol` and `desk` decide: what stands on the wire (version 1 of the Python package
//! `aiomsg`), and where messages go. `driver` waits: connections, listeners, connecting again,
//! sending again.

mod builder;
mod core;
mod desk;
mod driver;
mod endpoint;
mod error;
mod event;
mod halves;
mod identity;
mod inbox;
mod lane;
mod options;
mod payload;
pub mod protocol;
mod socket;

pub use builder::Builder;
pub use desk::{Counters, PeerCounters};
pub use endpoint::Endpoint;
pub use error::{Abandoned, BindError, ConfirmError, RecvError, SendError, SocketClosed};
pub use event::{Candidate, Cause, Event, Events, Message, PeerInfo};
pub use halves::{Outgoing, Receiver, Sender};
pub use identity::{Identity, NotAnIdentity};
pub use options::{Acknowledge, Delivery, Limits, Reconnect, Resend, SendMode, WhenFull};
pub use payload::Payload;
pub use protocol::Timing;
pub use socket::SmartSocket;
