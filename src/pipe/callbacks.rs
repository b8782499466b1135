//! Waits: handlers, sync or async, run one after another where a panic harms nobody else.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;

use super::{Addr, End, Pipe};

/// What a handler gives back: nothing (a plain function), or a future that is awaited (an async one).
///
/// The type parameter only tells the two apart; it is never written out.
pub trait Outcome<Style>: Send + 'static {
    #[doc(hidden)]
    fn into_work(self) -> Work;
}

/// The two styles of a handler.
pub mod style {
    /// A plain function.
    #[derive(Debug)]
    pub enum Plain {}
    /// A function that gives a future.
    #[derive(Debug)]
    pub enum Async {}
}

impl Outcome<style::Plain> for () {
    fn into_work(self) -> Work {
        None
    }
}

impl<F: Future<Output = ()> + Send + 'static> Outcome<style::Async> for F {
    fn into_work(self) -> Work {
        Some(Box::pin(self))
    }
}

/// What is left to await after the handler was called.
pub type Work = Option<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// Names a handler, so that it can be taken away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandlerId(u64);

impl HandlerId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A handler of messages.
pub(crate) type OnMessage = Arc<dyn Fn(Bytes, Addr, Pipe) -> Work + Send + Sync>;
/// A handler of a pipe that is connected.
pub(crate) type OnUp = Arc<dyn Fn(Pipe) -> Work + Send + Sync>;
/// A handler of the end.
pub(crate) type OnEnd = Arc<dyn Fn(End) -> Work + Send + Sync>;

pub(crate) fn on_message<F, R, S>(handler: F) -> OnMessage
where
    F: Fn(Bytes, Addr, Pipe) -> R + Send + Sync + 'static,
    R: Outcome<S>,
{
    Arc::new(move |data, from, pipe| handler(data, from, pipe).into_work())
}

pub(crate) fn on_up<F, R, S>(handler: F) -> OnUp
where
    F: Fn(Pipe) -> R + Send + Sync + 'static,
    R: Outcome<S>,
{
    Arc::new(move |pipe| handler(pipe).into_work())
}

pub(crate) fn on_end<F, R, S>(handler: F) -> OnEnd
where
    F: Fn(End) -> R + Send + Sync + 'static,
    R: Outcome<S>,
{
    Arc::new(move |end| handler(end).into_work())
}

thread_local! {
    /// The pipe whose handler runs on this thread right now, 0 for none.
    static RUNNING: Cell<u64> = const { Cell::new(0) };
}

/// True while a handler of this pipe is what runs.
pub(crate) fn is_inside(pipe: u64) -> bool {
    RUNNING.get() == pipe
}

/// A handler panicked.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Calls a handler of `pipe` and awaits what it gives back.
///
/// Dropping the future drops the handler's.
pub(crate) async fn run(pipe: u64, call: impl FnOnce() -> Work) -> Result<(), Panicked> {
    let work = inside(pipe, call)?;
    let Some(mut work) = work else { return Ok(()) };
    poll_fn(|cx| match inside(pipe, || work.as_mut().poll(cx)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
        Err(panicked) => Poll::Ready(Err(panicked)),
    })
    .await
}

fn inside<T>(pipe: u64, call: impl FnOnce() -> T) -> Result<T, Panicked> {
    let before = RUNNING.replace(pipe);
    let result = catch_unwind(AssertUnwindSafe(call));
    RUNNING.set(before);
    result.map_err(|_| Panicked)
}
