//! Waits: a bounded queue between the driver of a pipe and whoever receives.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{End, RecvError};
use crate::base::queue::{Limits, Queue};

/// What happens to a message that comes while the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// The driver waits, so that the sender feels it (streams).
    Wait,
    /// The oldest goes (datagrams).
    DropOldest,
}

/// A queue that is filled by drivers and emptied by receivers.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    state: Mutex<State<T>>,
    when_full: WhenFull,
    readable: Notify,
    space: Notify,
}

#[derive(Debug)]
struct State<T> {
    queue: Queue<T>,
    /// Why nothing more will come.
    end: Option<End>,
    /// Told to the next receiver, once.
    refusal: Option<RecvError>,
}

impl<T> Mailbox<T> {
    pub(crate) fn new(limits: Limits, when_full: WhenFull) -> Self {
        let state = State { queue: Queue::new(limits), end: None, refusal: None };
        Self { state: Mutex::new(state), when_full, readable: Notify::new(), space: Notify::new() }
    }

    /// Puts an item in, waiting for space where that is the rule. Returns how many were dropped.
    ///
    /// Cancel safe: an item that waits is given up with the future.
    pub(crate) async fn put(&self, item: T, bytes: usize) -> usize {
        let mut item = Some(item);
        loop {
            let space = self.space.notified();
            let mut space = std::pin::pin!(space);
            space.as_mut().enable();
            match self.try_put(&mut item, bytes) {
                Some(dropped) => return dropped,
                None => space.await,
            }
        }
    }

    /// Puts the item in unless it has to wait for space.
    pub(crate) fn try_put(&self, item: &mut Option<T>, bytes: usize) -> Option<usize> {
        let mut state = self.lock();
        if state.end.is_some() {
            return Some(0);
        }
        if self.when_full == WhenFull::Wait && state.queue.is_full() {
            return None;
        }
        let Some(item) = item.take() else { return Some(0) };
        let dropped = match self.when_full {
            WhenFull::DropOldest => state.queue.push_dropping_oldest(item, bytes),
            WhenFull::Wait => {
                state.queue.push(item, bytes);
                0
            }
        };
        drop(state);
        self.readable.notify_one();
        Some(dropped)
    }

    /// What is there now: an item, a refusal, or the end. `None` when a receiver has to wait.
    pub(crate) fn try_take(&self) -> Option<Result<T, RecvError>> {
        let mut state = self.lock();
        if let Some(refusal) = state.refusal.take() {
            return Some(Err(refusal));
        }
        let was_full = state.queue.is_full();
        let taken = state.queue.pop();
        let more = !state.queue.is_empty();
        let end = state.end;
        drop(state);
        match taken {
            Some(item) => {
                if was_full {
                    self.space.notify_waiters();
                }
                if more {
                    self.readable.notify_one();
                }
                Some(Ok(item))
            }
            None => end.map(|end| Err(RecvError::Ended(end))),
        }
    }

    /// Takes the next item.
    ///
    /// Cancel safe: an item is taken only when the future is ready.
    pub(crate) async fn take(&self) -> Result<T, RecvError> {
        loop {
            if let Some(taken) = self.try_take() {
                return taken;
            }
            let readable = self.readable.notified();
            let mut readable = std::pin::pin!(readable);
            readable.as_mut().enable();
            if let Some(taken) = self.try_take() {
                return taken;
            }
            readable.await;
        }
    }

    /// Puts an item back in front, where it came from.
    pub(crate) fn put_back(&self, item: T, bytes: usize) {
        self.lock().queue.unpop(item, bytes);
        self.readable.notify_one();
    }

    /// Tells the next receiver of an error that does not end the pipe.
    pub(crate) fn refuse(&self, error: RecvError) {
        self.lock().refusal = Some(error);
        self.readable.notify_one();
    }

    /// Nothing more will come: receivers take what is left and then see the end.
    pub(crate) fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.readable.notify_waiters();
        self.readable.notify_one();
        self.space.notify_waiters();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().queue.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while the lock is held; were it so, the queue would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
