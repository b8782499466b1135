//! Waits: the writing half of a path that is one stream: whoever has much to say writes it at once, and the path's task what has to wait.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Buf;
use tokio::io::{AsyncWrite, WriteHalf};

use super::batch::Batch;
use super::carry::Stream;
use super::drive::Shared;
use super::path::PathId;
use super::record::Record;

/// From so many bytes on it is worth it to write without waking the path's task; shorter messages gather until that runs.
pub(super) const AT_ONCE: usize = 16 << 10;

/// Parts that go out by one call.
const SLICES: usize = 16;

pub(super) struct Outlet(Mutex<Writing>);

struct Writing {
    write: WriteHalf<Box<dyn Stream>>,
    records: Vec<Record>,
    batch: Batch,
    /// The path takes nothing now, and the path's task waits for it, or has been told to.
    blocked: bool,
}

impl Outlet {
    pub(super) fn new(write: WriteHalf<Box<dyn Stream>>) -> Self {
        Self(Mutex::new(Writing { write, records: Vec::new(), batch: Batch::default(), blocked: false }))
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what there is to say, until there is nothing more; with `anyway` an acknowledgement alone too. Cancel safe.
    pub(super) async fn drain(&self, shared: &Shared, id: PathId, mut anyway: bool) -> io::Result<()> {
        poll_fn(|cx| {
            let mut writing = self.lock();
            let drained = writing.poll_drain(shared, id, &mut anyway, cx);
            writing.blocked = drained.is_pending();
            drained
        })
        .await
    }

    /// Writes what there is to say as far as the path takes it. False when the path's task has to be woken for the rest.
    pub(super) fn try_drain(&self, shared: &Shared, id: PathId) -> bool {
        let Ok(mut writing) = self.0.try_lock() else { return false };
        if writing.blocked {
            return true;
        }
        match writing.poll_drain(shared, id, &mut false, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => true,
            // The path's task comes to the same error.
            Poll::Ready(Err(_)) => false,
            Poll::Pending => {
                writing.blocked = true;
                false
            }
        }
    }

    /// Nothing more is said.
    pub(super) async fn shut_down(&self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.lock().write).poll_shutdown(cx)).await
    }
}

impl Writing {
    fn poll_drain(
        &mut self,
        shared: &Shared,
        id: PathId,
        anyway: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.batch.has_remaining() {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = self.batch.chunks_vectored(&mut slices);
                match ready!(Pin::new(&mut self.write).poll_write_vectored(cx, &slices[..count]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.batch.advance(written),
                }
            }
            shared.fill(id, std::mem::take(anyway), &mut self.records);
            if self.records.is_empty() {
                return Pin::new(&mut self.write).poll_flush(cx);
            }
            self.records.drain(..).for_each(|record| self.batch.push(record));
            self.batch.close();
        }
    }
}
