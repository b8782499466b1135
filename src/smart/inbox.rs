//! Waits: what was received, between the connections and whoever asks for messages.
//!
//! Connections put runs of messages in as they were read. The receiver takes all runs at once and
//! takes them apart by itself, so that a message costs neither a queue nor a wake-up of its own.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::Notify;

use super::Identity;
use super::desk::PeerKey;
use super::options::Limits;
use super::protocol::{MessageId, Run};

/// Messages of one peer, not yet taken apart.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) from: Identity,
    pub(crate) key: PeerKey,
    run: Run,
    /// What it counted when it came.
    messages: usize,
    bytes: usize,
}

impl Batch {
    pub(crate) fn new(from: Identity, key: PeerKey, run: Run) -> Self {
        Self { from, key, messages: run.messages(), bytes: run.bytes(), run }
    }
}

/// A message that is handed over.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) payload: Bytes,
    pub(crate) from: Identity,
    /// Where it is to be acknowledged, and as what.
    pub(crate) ack: Option<(PeerKey, MessageId)>,
}

#[derive(Debug, Default)]
struct Coming {
    batches: VecDeque<Batch>,
    receivers: Vec<Waker>,
    closed: bool,
}

#[derive(Debug)]
pub(crate) struct Inbox {
    limits: Limits,
    coming: Mutex<Coming>,
    /// What receivers have taken, the first of it in part.
    current: Mutex<VecDeque<Batch>>,
    /// What both hold.
    messages: AtomicUsize,
    bytes: AtomicUsize,
    room: Notify,
    filters: AtomicBool,
    topics: Mutex<Vec<Bytes>>,
    filtered: AtomicU64,
}

impl Inbox {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            coming: Mutex::default(),
            current: Mutex::default(),
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            room: Notify::new(),
            filters: AtomicBool::new(false),
            topics: Mutex::default(),
            filtered: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.limits.is_reached(self.messages.load(Ordering::SeqCst), self.bytes.load(Ordering::SeqCst))
    }

    /// Takes what a connection has read, and wakes who waits for it.
    pub(crate) fn put(&self, batch: Batch) {
        self.messages.fetch_add(batch.messages, Ordering::SeqCst);
        self.bytes.fetch_add(batch.bytes, Ordering::SeqCst);
        let mut coming = lock(&self.coming);
        coming.batches.push_back(batch);
        let receivers = if coming.receivers.is_empty() { Vec::new() } else { std::mem::take(&mut coming.receivers) };
        drop(coming);
        receivers.into_iter().for_each(Waker::wake);
    }

    /// Waits until there is room. Cancel safe.
    pub(crate) async fn room(&self) {
        loop {
            let mut room = pin!(self.room.notified());
            room.as_mut().enable();
            if !self.is_full() {
                return;
            }
            room.await;
        }
    }

    /// The next message; `None` when the socket is closed and everything was received.
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Option<Handed>> {
        let mut current = lock(&self.current);
        loop {
            while let Some(handed) = self.next(&mut current) {
                if !self.filters.load(Ordering::Relaxed) || handed.ack.is_some() || self.is_wanted(&handed.payload) {
                    return Poll::Ready(Some(handed));
                }
                self.filtered.fetch_add(1, Ordering::Relaxed);
            }
            let mut coming = lock(&self.coming);
            if coming.batches.is_empty() {
                if coming.closed {
                    return Poll::Ready(None);
                }
                if !coming.receivers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    coming.receivers.push(cx.waker().clone());
                }
                return Poll::Pending;
            }
            std::mem::swap(&mut coming.batches, &mut *current);
        }
    }

    fn next(&self, current: &mut MutexGuard<'_, VecDeque<Batch>>) -> Option<Handed> {
        loop {
            let batch = current.front_mut()?;
            let (from, key) = (batch.from, batch.key);
            let next = batch.run.next();
            if batch.run.messages() == 0
                && let Some(done) = current.pop_front()
            {
                self.release(&done);
            }
            if let Some((payload, id)) = next {
                return Some(Handed { payload, from, ack: id.map(|id| (key, id)) });
            }
        }
    }

    fn release(&self, batch: &Batch) {
        self.messages.fetch_sub(batch.messages, Ordering::SeqCst);
        self.bytes.fetch_sub(batch.bytes, Ordering::SeqCst);
        self.room.notify_waiters();
    }

    fn is_wanted(&self, payload: &[u8]) -> bool {
        let topics = lock(&self.topics);
        topics.is_empty() || topics.iter().any(|topic| payload.starts_with(topic))
    }

    /// From now on only messages of a topic are handed over, if there is one.
    pub(crate) fn want(&self, topic: &Bytes, wanted: bool) {
        let mut topics = lock(&self.topics);
        topics.retain(|known| known != topic);
        if wanted {
            topics.push(topic.clone());
        }
        self.filters.store(!topics.is_empty(), Ordering::Relaxed);
    }

    /// Messages that were of no topic.
    pub(crate) fn filtered(&self) -> u64 {
        self.filtered.load(Ordering::Relaxed)
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        let mut coming = lock(&self.coming);
        coming.closed = true;
        let receivers = std::mem::take(&mut coming.receivers);
        drop(coming);
        receivers.into_iter().for_each(Waker::wake);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
