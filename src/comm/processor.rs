//! Waits: the user's function for messages, and what its panics become.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use bytes::Bytes;

use super::{Boxed, IntoResponse, Response, Value};

/// A message for the processor.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What it says.
    pub body: Value,
    /// The bytes that it came as.
    pub raw: Bytes,
    /// True when somebody waits for the result.
    pub is_call: bool,
    /// True when it was given to a consumer before, which may have processed it.
    pub redelivered: bool,
    /// How often it was tried in vain before, as far as is known.
    pub tries: u32,
}

/// Processes messages. Any async function of a [`Request`] is one, whose result is data, a
/// [`Response`], or a `Result` of either with an [`ApplicationError`](super::ApplicationError).
///
/// A panic is a 500 and harms nobody else. What blocks the thread belongs into
/// `tokio::task::spawn_blocking`.
pub trait Processor: Send + Sync + 'static {
    /// Processes one message. Several may be processed at a time.
    fn process(&self, request: Request) -> Boxed<'static, Response>;
}

impl<F, R> Processor for F
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: Future<Output: IntoResponse> + Send + 'static,
{
    fn process(&self, request: Request) -> Boxed<'static, Response> {
        let work = self(request);
        Box::pin(async move { work.await.into_response() })
    }
}

/// Runs the processor on one message; `None` when it panicked.
pub(super) async fn run(processor: &dyn Processor, request: Request) -> Option<Response> {
    let mut work = catch_unwind(AssertUnwindSafe(|| processor.process(request))).ok()?;
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
        Err(_) => Poll::Ready(None),
    })
    .await
}
