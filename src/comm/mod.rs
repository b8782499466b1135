//! Producers, calls and consumers over a message broker, or with none: seed 003.
//!
//! ```text
//! push     value ─format─► body ─Outlet─► queue
//! consume  queue ─Inlet─► job ─decode─► processor ─Response─► verdict ─► answer, and done | again | dead letter
//! call     value ─► body with a way back ─► … ─► Response ─check─► result | ApplicationError
//! ```
//!
//! [`Backend`] is what carries messages; [`backend`] makes it by the configuration's `protocol`: `memory` (in this process,
//! the default), `pipe` (straight between two processes, on any [`Pipe`](crate::Pipe): [`OverPipe`]), `amqp`
//! (a broker, feature `amqp`), or what was given to [`register`]. `verdict` decides what becomes of a message, `yaml` how
//! bodies are read and written, `keys` what a configuration says.
//!
//! ```
//! use natpipe::comm::{ApplicationError, Config, EventDrivenConsumer, Request, RpcProducer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let conf = Config::new("memory").queue("greetings");
//! let greet = |request: Request| async move {
//!     let name = request.body.as_str().ok_or_else(|| ApplicationError::critical("a name is text"))?;
//!     Ok::<_, ApplicationError>(format!("hello {name}"))
//! };
//! let consumer = EventDrivenConsumer::new(greet, &conf).await?;
//! let cancel = consumer.cancel();
//! let consuming = tokio::spawn(consumer.start_consuming());
//!
//! let calls = RpcProducer::new(&conf).await?;
//! assert_eq!(calls.push_message("world").await?, "hello world".into());
//!
//! cancel.cancel();
//! assert_eq!(consuming.await??.processed, 1);
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "amqp")]
mod amqp;
mod backend;
mod cancel;
mod codec;
mod config;
mod consumer;
mod counters;
mod direct;
mod error;
mod hands;
mod keys;
mod memory;
mod pace;
mod processor;
mod producer;
mod registry;
mod response;
mod value;
mod verdict;
mod yaml;

#[cfg(feature = "amqp")]
pub use amqp::Amqp;
pub use backend::{Backend, Boxed, Fate, Inlet, Job, Outlet, Payload, Settle};
pub use cancel::Cancel;
pub use codec::Format;
pub use config::Config;
pub use consumer::EventDrivenConsumer;
pub use counters::{Counters, Tally};
pub use direct::{Direct, OverPipe};
pub use error::{ApplicationError, BodyError, CallError, CommunicationError, ConfigError};
pub use memory::Memory;
pub use processor::{Processor, Request};
pub use producer::{AsynchronProducer, RpcProducer};
pub use registry::{backend, register};
pub use response::{IntoResponse, Response};
pub use value::Value;
