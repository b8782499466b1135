//! Waits: calling the one task that drives something, cheaply enough to be asked at each turn.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// A flag that one task watches: whoever raises it wakes the task.
#[derive(Debug, Default)]
pub(crate) struct Attention {
    raised: AtomicBool,
    watcher: Mutex<Option<Waker>>,
    /// The address of the watching task: it can not become another's while its waker is kept.
    watching: AtomicPtr<()>,
}

impl Attention {
    /// Wakes the watching task, or the next to watch.
    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
        let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(watcher) = watcher {
            watcher.wake();
        }
    }

    /// Makes the polling task the one to be woken. To be called before the flag is looked at; a task
    /// whose waker stays the same need not call it again.
    pub(crate) fn watch(&self, cx: &Context<'_>) {
        let task = cx.waker().data().cast_mut();
        if self.watching.load(Ordering::SeqCst) == task && !task.is_null() {
            return;
        }
        let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        *watcher = Some(cx.waker().clone());
        self.watching.store(task, Ordering::SeqCst);
    }

    /// Lowers the flag; true when it was raised.
    pub(crate) fn lower(&self) -> bool {
        self.raised.load(Ordering::SeqCst) && self.raised.swap(false, Ordering::SeqCst)
    }

    /// Waits until the flag is raised, and lowers it. Cancel safe.
    pub(crate) async fn wait(&self) {
        poll_fn(|cx| {
            self.watch(cx);
            if self.lower() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
