//! Holds: where the answer to a call goes, and how many are on their way there.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::comm::Payload;

/// The answers that were given and are yet to be written to who called.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers(Arc<watch::Sender<usize>>);

impl Answers {
    fn begin(&self) -> OnItsWay {
        self.0.send_modify(|answers| *answers += 1);
        OnItsWay(self.clone())
    }

    /// Waits until none is on its way. Cancel safe.
    pub(crate) async fn none(&self) {
        // The sender is held here.
        let _ = self.0.subscribe().wait_for(|answers| *answers == 0).await;
    }
}

/// An answer is, until this is dropped.
#[derive(Debug)]
pub(crate) struct OnItsWay(Answers);

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|answers| *answers -= 1);
    }
}

/// An answer, and that it is on its way.
pub(crate) type Answer = (Payload, OnItsWay);

/// Where the answer goes. The first one that comes is the answer.
#[derive(Clone, Debug)]
pub(crate) struct ReplyTo {
    sender: Arc<Mutex<Option<oneshot::Sender<Answer>>>>,
    answers: Answers,
}

impl ReplyTo {
    pub(crate) fn new(sender: oneshot::Sender<Answer>, answers: Answers) -> Self {
        Self { sender: Arc::new(Mutex::new(Some(sender))), answers }
    }

    /// False when nobody waits any more.
    pub(crate) fn answer(&self, answer: Payload) -> bool {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        sender.is_some_and(|sender| sender.send((answer, self.answers.begin())).is_ok())
    }

    /// Nobody waits any more.
    pub(crate) fn give_up(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_on_its_way_from_when_it_is_given_until_it_is_written() {
        let (answers, (sender, answer)) = (Answers::default(), oneshot::channel());
        let reply = ReplyTo::new(sender, answers.clone());
        assert!(answers.none().now_or_never().is_some());
        assert!(reply.answer(Payload { body: Vec::new().into(), format: None, code: None }));
        assert!(answers.none().now_or_never().is_none());
        let (_, on_its_way) = answer.await.unwrap();
        assert!(answers.none().now_or_never().is_none());
        drop(on_its_way);
        answers.none().await;
    }
}
