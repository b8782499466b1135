//! Waits: a queue of one's own with the messages that a filter takes.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use super::RecvError;
use super::core::Core;
use super::handle::Message;
use super::hub::Sub;

type Next = Pin<Box<dyn Future<Output = Result<Message, RecvError>> + Send>>;

/// The messages of a pipe that a [`Filter`](super::Filter) takes, in a queue of their own.
///
/// Dropping it, or [`unsubscribe`](Self::unsubscribe), ends it. As a [`Stream`] it yields messages
/// until the pipe ends.
pub struct Subscription {
    sub: Arc<Sub>,
    core: Weak<Core>,
    default_limit: Option<Duration>,
    next: Option<Next>,
}

impl Subscription {
    pub(crate) fn new(sub: Arc<Sub>, core: &Arc<Core>) -> Self {
        Self { sub, core: Arc::downgrade(core), default_limit: core.conf.recv_timeout, next: None }
    }

    /// The next message, within the pipe's `recv_timeout`.
    ///
    /// # Errors
    /// [`RecvError::TimedOut`], or [`RecvError::Ended`] when the pipe has ended and the queue is empty.
    ///
    /// Cancel safe.
    pub async fn recv(&self) -> Result<Message, RecvError> {
        self.sub.mailbox.take_within(self.default_limit).await
    }

    /// The next message within `limit`: zero only takes what is there, `None` waits for ever.
    ///
    /// # Errors
    /// As [`recv`](Self::recv). Cancel safe.
    pub async fn recv_within(&self, limit: impl Into<Option<Duration>>) -> Result<Message, RecvError> {
        self.sub.mailbox.take_within(limit.into()).await
    }

    /// Ends the subscription; what is in its queue is dropped.
    pub fn unsubscribe(self) {
        drop(self);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.sub.mailbox.end(super::End::Closed);
        if let Some(core) = self.core.upgrade() {
            core.change_listeners(|listeners| listeners.subs.retain(|sub| !Arc::ptr_eq(sub, &self.sub)));
        }
    }
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            let sub = self.sub.clone();
            let next = self.next.get_or_insert_with(|| Box::pin(async move { sub.mailbox.take().await }));
            let taken = std::task::ready!(next.as_mut().poll(cx));
            self.next = None;
            match taken {
                Ok(message) => return Poll::Ready(Some(message)),
                Err(RecvError::Refused { .. }) => {}
                Err(_) => return Poll::Ready(None),
            }
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("filter", &self.sub.filter).finish_non_exhaustive()
    }
}
