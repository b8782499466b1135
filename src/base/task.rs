//! Waits: tasks with an owner. This is the one place in the crate where a task is spawned.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Starts a task that drives state which it shares with its owner: the owner ends it by ending
/// that state, and the future must return when it has ended.
pub(crate) fn drive(runtime: &Handle, future: impl Future<Output = ()> + Send + 'static) {
    drop(runtime.spawn(future));
}

/// Starts a thread that drives state which it shares with its owner, as [`drive`] does a task: for what works where
/// there is no runtime.
#[cfg(all(feature = "duct", unix))]
pub(crate) fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).stack_size(64 << 10).spawn(work).map(drop)
}

/// Starts a process, which its caller owns.
#[cfg(all(feature = "duct", unix))]
pub(crate) fn process(command: &mut std::process::Command) -> std::io::Result<std::process::Child> {
    command.spawn()
}

/// Tasks that are owned together: dropping the set ends them all.
#[derive(Debug)]
pub(crate) struct Nursery<T> {
    tasks: JoinSet<T>,
    runtime: Handle,
}

impl<T: Send + 'static> Nursery<T> {
    pub(crate) fn new(runtime: &Handle) -> Self {
        Self { tasks: JoinSet::new(), runtime: runtime.clone() }
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(crate) fn begin(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.tasks.spawn_on(future, &self.runtime);
    }

    /// The output of the next task that ends; `None` when there is none or it panicked.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<T> {
        self.tasks.join_next().await?.ok()
    }
}
