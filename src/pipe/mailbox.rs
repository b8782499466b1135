//! Waits: a bounded queue between the driver of a pipe and whoever receives.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};

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
    /// False while there is nothing to take; it is changed with the lock held.
    news: AtomicBool,
    readable: Notify,
    space: Notify,
    /// For receivers that wait no longer than a limit.
    pub(crate) timer: Timer,
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
        Self {
            state: Mutex::new(state),
            when_full,
            news: AtomicBool::new(false),
            readable: Notify::new(),
            space: Notify::new(),
            timer: Timer::default(),
        }
    }

    /// Puts an item in, waiting for space where that is the rule. Returns how many were dropped.
    ///
    /// Cancel safe: an item that waits is given up with the future.
    pub(crate) async fn put(&self, item: T, bytes: usize) -> usize {
        let mut item = Some(item);
        loop {
            let mut space = pin!(self.space.notified());
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
        self.note(&state);
        drop(state);
        self.readable.notify_one();
        Some(dropped)
    }

    /// What is there now: an item, a refusal, or the end. `None` when a receiver has to wait.
    pub(crate) fn try_take(&self) -> Option<Result<T, RecvError>> {
        if !self.has_news() {
            return None;
        }
        let mut state = self.lock();
        if let Some(refusal) = state.refusal.take() {
            self.note(&state);
            return Some(Err(refusal));
        }
        let was_full = state.queue.is_full();
        let taken = state.queue.pop();
        let more = !state.queue.is_empty();
        let end = state.end;
        self.note(&state);
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
            self.wait_while(|| true).await;
        }
    }

    /// Waits until there is something to take, unless `waits` says, once this is noted down, that it
    /// is not to wait. It may return with nothing there.
    pub(crate) async fn wait_while(&self, waits: impl FnOnce() -> bool) {
        let mut readable = pin!(self.readable.notified());
        readable.as_mut().enable();
        if self.has_news() || !waits() {
            return;
        }
        readable.await;
    }

    /// True when there is something to take.
    fn has_news(&self) -> bool {
        self.news.load(Ordering::SeqCst)
    }

    /// Wakes whoever waits, with nothing to take.
    pub(crate) fn stir(&self) {
        self.readable.notify_waiters();
    }

    /// Takes the next item within `limit`: zero only takes what is there, `None` waits for ever.
    ///
    /// Cancel safe.
    pub(crate) async fn take_within(&self, limit: Option<Duration>) -> Result<T, RecvError> {
        self.timer.within(limit, || self.try_take(), self.take()).await
    }

    /// Puts an item back in front, where it came from.
    pub(crate) fn put_back(&self, item: T, bytes: usize) {
        let mut state = self.lock();
        state.queue.unpop(item, bytes);
        self.note(&state);
        drop(state);
        self.readable.notify_one();
    }

    /// Tells the next receiver of an error that does not end the pipe.
    pub(crate) fn refuse(&self, error: RecvError) {
        let mut state = self.lock();
        state.refusal = Some(error);
        self.note(&state);
        drop(state);
        self.readable.notify_one();
    }

    /// Nothing more will come: receivers take what is left and then see the end.
    pub(crate) fn end(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        self.note(&state);
        drop(state);
        self.readable.notify_waiters();
        self.readable.notify_one();
        self.space.notify_waiters();
        self.timer.forget();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().queue.is_empty()
    }

    fn note(&self, state: &State<T>) {
        let news = !state.queue.is_empty() || state.end.is_some() || state.refusal.is_some();
        self.news.store(news, Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while the lock is held; were it so, the queue would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The instant at which `limit` is over, or one that never comes.
pub(super) fn after(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or_else(|| now + NEVER)
}

/// Thirty years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The timer of the last receiver, which the next one takes over: setting one anew for each message
/// costs more than waking for an old one every now and then.
#[derive(Debug, Default)]
pub(crate) struct Timer(Mutex<Option<Pin<Box<Sleep>>>>);

impl Timer {
    /// What `next` yields within `limit`. Zero asks `now` only, and so is `now` asked first.
    pub(crate) async fn within<T>(
        &self,
        limit: Option<Duration>,
        now: impl Fn() -> Option<Result<T, RecvError>>,
        next: impl Future<Output = Result<T, RecvError>>,
    ) -> Result<T, RecvError> {
        let Some(limit) = limit else { return next.await };
        if limit.is_zero() {
            return now().unwrap_or(Err(RecvError::TimedOut(limit)));
        }
        let mut next = pin!(next);
        if let Poll::Ready(taken) = poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await {
            return taken;
        }
        let deadline = after(limit);
        let mut timer = self.until(deadline);
        let taken = loop {
            tokio::select! {
                biased;
                taken = &mut next => break taken,
                () = &mut timer => {
                    if Instant::now() >= deadline {
                        return Err(RecvError::TimedOut(limit));
                    }
                    timer.as_mut().reset(deadline);
                }
            }
        };
        *self.lock() = Some(timer);
        taken
    }

    /// A timer that fires at `deadline` or before.
    fn until(&self, deadline: Instant) -> Pin<Box<Sleep>> {
        let kept = self.lock().take();
        match kept {
            Some(timer) if timer.deadline() <= deadline && !timer.is_elapsed() => timer,
            _ => Box::pin(sleep_until(deadline)),
        }
    }

    fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pin<Box<Sleep>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
