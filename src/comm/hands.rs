//! Waits: the messages that a consumer has in hand: in its own task as long as they are processed quickly, otherwise each in a
//! task of its own.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;

use super::consumer::Work;
use super::pace::Pace;
use super::{Boxed, Job};
use crate::base::task::Nursery;

/// Dropping it drops what is in hand, unsettled.
pub(super) struct Hands {
    work: Arc<Work>,
    /// Messages whose processing waits for something, or may take long.
    tasks: Nursery<()>,
    /// Messages that are processed and not yet settled.
    settling: FuturesUnordered<Boxed<'static, ()>>,
}

impl Hands {
    pub(super) fn new(work: Arc<Work>) -> Self {
        Self { work, tasks: Nursery::new(&Handle::current()), settling: FuturesUnordered::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len() + self.settling.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins with a message. To start a task and to be told of its end costs two wakes, which in turn wake threads: more than
    /// a small message is worth, where its processor has nothing to wait for.
    pub(super) async fn begin(&mut self, job: Job) {
        let work = self.work.clone();
        let mut processing = Box::pin(async move { timed(&work.pace, work.process(job)).await });
        let work = self.work.clone();
        if work.pace.is_quick()
            && let Poll::Ready(processed) = poll_fn(|cx| Poll::Ready(processing.as_mut().poll(cx))).await
        {
            self.settling.push(Box::pin(async move { work.settle(processed).await }));
            return;
        }
        self.tasks.begin(async move { work.settle(processing.await).await });
    }

    /// Waits until one of them is settled. Cancel safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            Some(()) = self.settling.next(), if !self.settling.is_empty() => {}
            _ = self.tasks.next(), if !self.tasks.is_empty() => {}
            else => {}
        }
    }
}

/// Watches how long the work has the thread at a time.
async fn timed<T>(pace: &Pace, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let begun = Instant::now();
        let polled = work.as_mut().poll(cx);
        pace.handle_turn(begun.elapsed());
        polled
    })
    .await
}
