//! Waits: tasks with an owner. This is the one place in the crate where a task is spawned.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};

/// A running task that ends when its owner drops it.
#[derive(Debug)]
pub(crate) struct Owned<T>(JoinHandle<T>);

impl<T: Send + 'static> Owned<T> {
    /// Starts `future` on `runtime`; the returned value owns it.
    pub(crate) fn spawn(runtime: &Handle, future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(runtime.spawn(future))
    }

    /// Waits for the task's own end. `None` when it was aborted or panicked.
    ///
    /// Cancel safe: dropping the returned future ends the task, as dropping the owner does.
    pub(crate) async fn join(mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A task that ends by itself once what it drives has ended; what drives it keeps only this.
#[derive(Debug)]
pub(crate) struct Driver(AbortHandle);

impl Driver {
    /// Starts `future`, whose end is brought about by the state that it shares with its owner.
    pub(crate) fn spawn(runtime: &Handle, future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(runtime.spawn(future).abort_handle())
    }

    /// Ends the task at its next waiting point.
    pub(crate) fn abort(&self) {
        self.0.abort();
    }
}
