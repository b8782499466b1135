//! Waits: a path that is one stream: its task reads it, and writes what has to wait; whoever has much to say writes at once.
//!
//! Only the task waits for the lock, and it does so as for anything else: no thread is held up.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Buf;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::batch::Batch;
use super::carry::Stream;
use super::drive::Shared;
use super::path::PathId;
use super::record::Record;

/// From so many bytes on it is worth it to write without waking the path's task; shorter messages gather until that runs.
pub(super) const AT_ONCE: usize = 16 << 10;

/// Parts that go out by one call.
const SLICES: usize = 16;

/// Batches that one who has much to say writes at once; then it is the task's turn.
const TURN: usize = 4;

pub(super) struct Outlet {
    writing: Mutex<Writing>,
    /// The path's task, while it waits for another writer.
    next: AtomicWaker,
}

/// What the path's task reads.
pub(super) struct Inlet(pub(super) Arc<Outlet>);

struct Writing {
    stream: Box<dyn Stream>,
    records: Vec<Record>,
    batch: Batch,
    /// The path takes nothing now, and the path's task waits for it, or has been told to.
    blocked: bool,
}

impl Outlet {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        let writing = Writing { stream, records: Vec::new(), batch: Batch::default(), blocked: false };
        Self { writing: Mutex::new(writing), next: AtomicWaker::new() }
    }

    /// For the path's task, which must not hold up its thread.
    fn poll_lock(&self, cx: &Context<'_>) -> Poll<MutexGuard<'_, Writing>> {
        if let Some(writing) = self.try_lock() {
            return Poll::Ready(writing);
        }
        self.next.register(cx.waker());
        self.try_lock().map_or(Poll::Pending, Poll::Ready)
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Writing>> {
        match self.writing.try_lock() {
            Ok(writing) => Some(writing),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Writes what there is to say, until there is nothing more; with `anyway` an acknowledgement alone too. Cancel safe.
    pub(super) async fn drain(&self, shared: &Shared, id: PathId, mut anyway: bool) -> io::Result<()> {
        poll_fn(|cx| {
            let mut writing = ready!(self.poll_lock(cx));
            let drained = writing.poll_drain(shared, id, &mut anyway, usize::MAX, cx);
            writing.blocked = drained.is_pending();
            drained
        })
        .await
    }

    /// Writes what there is to say as far as the path takes it. False when the path's task has to be woken for the rest.
    pub(super) fn try_drain(&self, shared: &Shared, id: PathId) -> bool {
        let Some(mut writing) = self.try_lock() else { return false };
        let said = writing.blocked || {
            let drained = writing.poll_drain(shared, id, &mut false, TURN, &mut Context::from_waker(Waker::noop()));
            writing.blocked = drained.is_pending();
            // The path's task comes to the same error.
            matches!(drained, Poll::Ready(Ok(())))
        };
        drop(writing);
        // However short that was, the task may have found it locked.
        self.next.wake();
        said
    }

    /// Nothing more is said.
    pub(super) async fn shut_down(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut writing = ready!(self.poll_lock(cx));
            // Nobody else writes any more.
            writing.blocked = true;
            Pin::new(&mut writing.stream).poll_shutdown(cx)
        })
        .await
    }
}

impl AsyncRead for Inlet {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut writing = ready!(self.0.poll_lock(cx));
        Pin::new(&mut writing.stream).poll_read(cx, to)
    }
}

impl Writing {
    /// Pending as well after so many batches.
    fn poll_drain(
        &mut self,
        shared: &Shared,
        id: PathId,
        anyway: &mut bool,
        batches: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..batches {
            while self.batch.has_remaining() {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = self.batch.chunks_vectored(&mut slices);
                match ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.batch.advance(written),
                }
            }
            shared.fill(id, std::mem::take(anyway), &mut self.records);
            if self.records.is_empty() {
                return Pin::new(&mut self.stream).poll_flush(cx);
            }
            self.records.drain(..).for_each(|record| self.batch.push(record));
            self.batch.close();
        }
        Poll::Pending
    }
}
