//! Pools (seed 000): connections that talk both ways, by pool, router and connection (feature `pool`).
//!
//! A [`Pool`] holds connections that share one router, some that came in ([`Pool::bind`]) and some that it opened
//! ([`Pool::client`]); both sides call each other alike. A message goes to one at random, to all, to the least busy, to
//! those whose metadata match, or to one connection; each asked answers nothing, one value, or a stream.
//!
//! ```
//! use natpipe::pool::{Context, Pool, Value};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let worker = Pool::create("worker", |_ctx: Context, msg: Value| async move { msg });
//! let bound = worker.bind("127.0.0.1:0").await?;
//!
//! let req = Pool::create("req", |_ctx: Context, msg: String| async move { format!("you said {msg}") });
//! req.client(bound.url()).await?;
//!
//! let answer = req.rand("hello").await?;
//! assert_eq!(answer.get::<String>()?, "hello");
//! // The other way round is the same.
//! let answer = worker.rand("hello").await?;
//! assert_eq!(answer.get::<String>()?, "you said hello");
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! ask      message ─envelope─► member's queue ─session─► wire
//! answer   wire ─session─► envelope ─rtag─► the asker's queue
//! request  wire ─session─► envelope ─► router ─► none, one, stream ─► wire
//! ```
//!
//! `envelope`, `delimited`, `target` and `backoff` decide; one `session` task per connection does all its reading,
//! writing and routing, so that answers which are ready together leave together.

mod admit;
mod answer;
mod ask;
mod asking;
mod backoff;
mod bind;
mod call;
mod client;
mod conf;
mod core;
mod delimited;
mod envelope;
mod error;
mod event;
mod handle;
mod member;
mod mount;
mod packed;
mod router;
mod session;
mod target;
#[cfg(test)]
mod tests;
mod url;
mod wire;

pub use admit::{Origins, Visitor};
pub use answer::{Answer, IntoAnswer};
pub use ask::{Answers, Ask, Reply};
pub use backoff::Backoff;
pub use bind::{Bind, Bound};
pub use client::{Client, Connecting};
pub use conf::PoolConf;
#[doc(hidden)]
pub use envelope::{Bad as BadEnvelope, Envelope, parse as parse_envelope};
pub use error::{AskError, BindError, ClientError, PackError};
pub use event::{Event, Events, Left};
pub use handle::Pool;
pub use member::{Con, ConId, Meta};
pub use mount::Upgrade;
pub use packed::{Pack, Packed, Unpack};
pub use router::{Context, Router};
pub use target::{Target, TargetError};

/// Any MessagePack value, for messages whose type is not known beforehand.
pub use rmpv::Value;
