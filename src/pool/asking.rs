//! Waits: the queue of answers between the sessions that receive them and the one who asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::{AskError, Reply};
use crate::base::queue::{Limits, Queue};

type Item = Result<Reply, AskError>;

/// One ask, to one member or many.
#[derive(Debug)]
pub(super) struct Asking {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    answers: Queue<Item>,
    /// Members that have not yet said their last word.
    open: usize,
    asker: Option<Waker>,
    /// Sessions that wait for room.
    waiting: VecDeque<Waker>,
    unwanted: bool,
}

impl Asking {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let state =
            State { answers: Queue::new(limits), open: 0, asker: None, waiting: VecDeque::new(), unwanted: false };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more member is asked.
    pub(super) fn begin(&self) {
        self.lock().open += 1;
    }

    /// Ready when an answer may be handed over, or nobody wants it.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.unwanted || !state.answers.is_full() {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push_back(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Hands over an answer, the last word of its member or not.
    pub(super) fn put(&self, answer: Option<Item>, last: bool) {
        let mut state = self.lock();
        if last {
            state.open = state.open.saturating_sub(1);
        }
        if let Some(answer) = answer
            && !state.unwanted
        {
            let bytes = answer.as_ref().map_or(0, |reply| reply.msg.as_bytes().len());
            state.answers.push(answer, bytes);
        } else if state.open > 0 {
            return;
        }
        let asker = state.asker.take();
        drop(state);
        if let Some(asker) = asker {
            asker.wake();
        }
    }

    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Item>> {
        let mut state = self.lock();
        if let Some(answer) = state.answers.pop() {
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            waiting.into_iter().for_each(Waker::wake);
            return Poll::Ready(Some(answer));
        }
        if state.open == 0 {
            return Poll::Ready(None);
        }
        state.asker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nobody wants the answers any more.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.unwanted = true;
        while state.answers.pop().is_some() {}
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}
