//! Waits: one at a time, where nearly always there is only one.

use std::ops::Deref;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use tokio::sync::Notify;

/// A turn that is taken and given back. Taking a free one is a single atomic step. Not first come,
/// first served: who asks when it is given back may get it before one who waits.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    taken: AtomicBool,
    waiting: AtomicUsize,
    free: Notify,
}

impl Turn {
    /// Takes the turn, and gives it back when `holder` (which leads to it) is dropped with the guard.
    ///
    /// Cancel safe.
    pub(crate) async fn take<H: Deref<Target = T>, T: AsRef<Self>>(holder: H) -> Taken<H, T> {
        let turn: &Self = (*holder).as_ref();
        if !turn.try_take() {
            turn.wait().await;
        }
        Taken { holder }
    }

    fn try_take(&self) -> bool {
        self.taken.compare_exchange(false, true, SeqCst, SeqCst).is_ok()
    }

    async fn wait(&self) {
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let mut free = pin!(self.free.notified());
            free.as_mut().enable();
            if self.try_take() {
                return;
            }
            free.await;
        }
    }

    fn give_back(&self) {
        self.taken.store(false, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            self.free.notify_one();
        }
    }
}

impl AsRef<Self> for Turn {
    fn as_ref(&self) -> &Self {
        self
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// The turn, while it is one's own.
#[derive(Debug)]
pub(crate) struct Taken<H: Deref<Target = T>, T: AsRef<Turn>> {
    holder: H,
}

impl<H: Deref<Target = T>, T: AsRef<Turn>> Drop for Taken<H, T> {
    fn drop(&mut self) {
        (*self.holder).as_ref().give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn only_one_has_it_and_nobody_waits_for_ever() {
        let turn = Arc::new(Turn::default());
        let inside = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (turn, inside) = (turn.clone(), inside.clone());
            tasks.spawn(async move {
                for _ in 0..500 {
                    let _taken = Turn::take(turn.clone()).await;
                    assert_eq!(inside.fetch_add(1, SeqCst), 0);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, SeqCst);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }

    #[tokio::test]
    async fn one_who_gives_up_waiting_leaves_it_to_the_next() {
        let turn = Turn::default();
        let first = Turn::take(&turn).await;
        {
            let mut second = pin!(Turn::take(&turn));
            assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(second.as_mut().poll(cx).is_pending())).await);
        }
        drop(first);
        drop(Turn::take(&turn).await);
        assert_eq!(turn.waiting.load(SeqCst), 0);
    }
}
