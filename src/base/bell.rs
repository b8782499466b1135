//! Holds: tasks that wait for something to change.

use std::task::{Context, Waker};

/// Who is to be woken; each waits again after that.
#[derive(Debug, Default)]
pub(crate) struct Bell(Vec<Waker>);

impl Bell {
    pub(crate) fn wait(&mut self, cx: &Context<'_>) {
        if !self.0.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.0.push(cx.waker().clone());
        }
    }

    pub(crate) fn ring(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}
