//! Holds: the seam between talking in messages and what carries them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use super::{CommunicationError, Config, Counters, Format};

/// A future in a box, as a trait object needs it.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What carries messages: a broker in this process, an AMQP broker, a pipe to another process.
///
/// It carries bytes. Formats, codes, timeouts, panics, limits on concurrency and the decision what becomes of a
/// message are the same for all backends and stand above it. Register one with [`register`](super::register).
pub trait Backend: Send + Sync + 'static {
    /// Opens the way out, for pushes, and where `calls` is true for calls as well.
    ///
    /// # Errors
    /// When it cannot be opened; a missing key is named.
    fn outlet<'a>(&'a self, conf: &'a Config, calls: bool) -> Boxed<'a, Result<Box<dyn Outlet>, CommunicationError>>;

    /// Opens the way in: declares the queue and begins to take from it. What the backend alone sees is counted in `counters`.
    ///
    /// # Errors
    /// As [`outlet`](Self::outlet).
    fn inlet<'a>(
        &'a self,
        conf: &'a Config,
        counters: Counters,
    ) -> Boxed<'a, Result<Box<dyn Inlet>, CommunicationError>>;
}

/// A body and how to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The bytes.
    pub body: Bytes,
    /// The format, where the message says it.
    pub format: Option<Format>,
    /// The code of an answer whose body has no room for it.
    pub code: Option<u16>,
}

/// The way out. The caller limits how long each call of it may take; dropping a future gives it up.
pub trait Outlet: Send + Sync {
    /// Sends a message, and returns when the backend answers for it.
    ///
    /// # Errors
    /// When it was not, or perhaps not, taken.
    fn push<'a>(&'a self, routing_key: &'a str, payload: Payload) -> Boxed<'a, Result<(), CommunicationError>>;

    /// Sends a message and waits for its answer.
    ///
    /// # Errors
    /// When there will be none.
    fn call<'a>(&'a self, routing_key: &'a str, payload: Payload) -> Boxed<'a, Result<Payload, CommunicationError>>;

    /// Closes it. What is on its way fails.
    fn close(&self) -> Boxed<'_, ()>;
}

/// The way in. Dropping it gives back what was not settled.
pub trait Inlet: Send {
    /// The next message, at most `prefetch` of them unsettled. It reconnects by itself. Cancel safe.
    ///
    /// # Errors
    /// When no more will come, as when the queue was declared anew with other properties.
    fn next(&mut self) -> Boxed<'_, Result<Job, CommunicationError>>;

    /// Takes no more; what is in hand can still be settled.
    fn stop(&mut self) -> Boxed<'_, ()>;

    /// Closes it.
    fn close(&mut self) -> Boxed<'_, ()>;
}

/// A message to be processed and settled. Dropped without, it goes back to its queue.
pub struct Job {
    /// The body.
    pub payload: Payload,
    /// True when somebody waits for an answer.
    pub is_call: bool,
    /// How often it was tried in vain before, as far as is known.
    pub tries: u32,
    /// True when it was given to a consumer before.
    pub redelivered: bool,
    /// Settles it.
    pub settle: Box<dyn Settle>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("bytes", &self.payload.body.len())
            .field("is_call", &self.is_call)
            .field("tries", &self.tries)
            .field("redelivered", &self.redelivered)
            .finish_non_exhaustive()
    }
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is done with.
    Done,
    /// It goes back to its queue, having been tried once more.
    Retry,
    /// It goes to the queue of dead letters, with a reason; without such a queue it is dropped.
    Dead(String),
    /// It stays unsettled until the consumer ends.
    Leave,
}

/// The end of a job.
pub trait Settle: Send {
    /// Sends the answer, where there is one, and settles the message.
    ///
    /// # Errors
    /// When it could not: the message will be delivered again.
    fn settle(self: Box<Self>, answer: Option<Payload>, fate: Fate) -> Boxed<'static, Result<(), CommunicationError>>;
}
