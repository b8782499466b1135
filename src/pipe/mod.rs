//! Pipes: one object for TCP, UDP, TLS, Unix sockets and memory, as client or server, whose
//! messages go to callbacks and into awaitable queues at once, and which can be linked.
//!
//! ```text
//! open     name ─resolve─► addresses ─RFC 8305─► socket ─► Transport ─► Pipe
//! receive  Transport ─► driver ─► dedup ─► links, callbacks, subscriptions, inbox
//! relay    (Pipe, Pipe) ─► joined in the kernel when nobody listens, else copied with back-pressure
//! ```
//!
//! A [`Pipe`] is a handle. Behind it stand a `Core` (state that handles and driver share), a
//! `Hub` (who listens) and one driver task that reads. `dedup` and `filter` decide, `drive`,
//! `serve` and `join` wait, [`NetConf`] and the errors hold.

mod addr;
mod callbacks;
mod conf;
mod connect;
mod core;
mod counters;
mod daemon;
mod dedup;
mod dest;
mod drive;
mod error;
mod filter;
mod handle;
mod hub;
mod join;
mod mailbox;
mod open;
mod reader;
mod receive;
mod serve;
mod stream;
mod subscription;
#[cfg(feature = "tls")]
pub mod tls;
pub mod transport;

/// What [`NetConf::keepalive`] takes.
pub use crate::net::Keepalive;
pub use addr::Addr;
pub use callbacks::{HandlerId, Outcome, style};
pub use conf::NetConf;
pub use counters::Counters;
pub use daemon::{Daemon, DaemonError, ListenError};
pub use dest::{Dest, Proto};
pub use error::{AcceptError, End, FilterError, OpenError, OpenFailure, RecvError, SendError};
pub use filter::Filter;
pub use handle::{Message, Pipe};
pub use join::Relay;
pub use open::{Opening, pipe_open};
pub use stream::PipeStream;
pub use subscription::Subscription;
