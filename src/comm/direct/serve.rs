//! Waits: what the other end of a pipe asks of this end's queues.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::frame::{Address, Frame, Why};
use super::link::Reply;
use super::link::WINDOW;
use crate::base::task::Nursery;
use crate::comm::memory::{Answer, Broker, Properties, ReplyTo, Stored};
use crate::comm::{CommunicationError, Payload};

/// The queues of this end, as the other end sees them.
pub(super) struct Server {
    broker: Arc<Broker>,
    replies: mpsc::Sender<Reply>,
    /// Calls that are not yet answered.
    calls: HashMap<u64, Unanswered>,
    /// A task for each of them, and for some that were given up and are not yet forgotten.
    answering: Nursery<Option<u64>>,
}

/// A call whose caller waits.
struct Unanswered {
    reply: ReplyTo,
    /// Dropped when the caller gives up.
    wanted: oneshot::Sender<()>,
}

/// Tasks that there may be: each call has one, and as many may be those that were given up.
const ANSWERING: usize = 2 * WINDOW;

impl Server {
    pub(super) fn new(broker: Arc<Broker>, replies: mpsc::Sender<Reply>) -> Self {
        Self { broker, replies, calls: HashMap::new(), answering: Nursery::new(&Handle::current()) }
    }

    /// Waits until a call was answered, and forgets it. Cancel safe.
    pub(super) async fn settled(&mut self) {
        if self.answering.is_empty() {
            std::future::pending::<()>().await;
        }
        if let Some(Some(id)) = self.answering.next().await {
            self.calls.remove(&id);
        }
    }

    /// Waits until there is room for one more call: who calls and gives up in one breath begins tasks faster than they end.
    /// Cancel safe.
    pub(super) async fn room(&mut self) {
        while self.answering.len() >= ANSWERING {
            self.settled().await;
        }
    }

    pub(super) fn push(&mut self, id: u64, to: &Address, payload: Payload) -> Result<(), &'static str> {
        let stored = Stored { payload, reply: None, tries: 0, redelivered: false };
        let reply = match self.store(to, &stored) {
            Ok(()) => Frame::Taken(id),
            Err(error) => refusal(id, &error),
        };
        self.reply(reply)
    }

    pub(super) fn call(&mut self, id: u64, to: &Address, payload: Payload) -> Result<(), &'static str> {
        if self.calls.len() >= WINDOW {
            return Err("more calls at a time than were agreed");
        }
        let (sender, answer) = oneshot::channel();
        let reply = ReplyTo::new(sender, self.broker.answers().clone());
        let stored = Stored { payload, reply: Some(reply.clone()), tries: 0, redelivered: false };
        if let Err(error) = self.store(to, &stored) {
            return self.reply(refusal(id, &error));
        }
        let (wanted, given_up) = oneshot::channel();
        if self.calls.insert(id, Unanswered { reply, wanted }).is_some() {
            return Err("two calls with one id");
        }
        let answering = answer_call(id, answer, self.replies.clone());
        self.answering.begin(async move {
            tokio::select! {
                biased;
                _ = given_up => None,
                () = answering => Some(id),
            }
        });
        Ok(())
    }

    pub(super) fn give_up(&mut self, id: u64) {
        if let Some(Unanswered { reply, wanted }) = self.calls.remove(&id) {
            // First, so that nobody takes it for a call whose queue is gone.
            drop(wanted);
            reply.give_up();
        }
    }

    fn store(&self, to: &Address, message: &Stored) -> Result<(), CommunicationError> {
        if to.declare && to.exchange.is_empty() {
            self.broker.declare(&to.key, Properties { auto_delete: to.auto_delete, durable: to.durable })?;
        }
        self.broker.publish_now(&to.exchange, &to.key, message)
    }

    fn reply(&self, frame: Frame) -> Result<(), &'static str> {
        self.replies.try_send((frame, None)).map_err(|_| "more messages at a time than were agreed")
    }
}

/// Sends the answer to a call; there is none when its message is lost with its queue.
async fn answer_call(id: u64, answer: oneshot::Receiver<Answer>, replies: mpsc::Sender<Reply>) {
    let reply = match answer.await {
        Ok((answer, on_its_way)) => (Frame::Answer(id, answer), Some(on_its_way)),
        Err(_) => (Frame::Refused(id, Why::NotFound, "answer: the queue is gone".to_owned()), None),
    };
    // A pipe that has ended takes no answers.
    let _ = replies.send(reply).await;
}

fn refusal(id: u64, error: &CommunicationError) -> Frame {
    let why = match error {
        CommunicationError::Full { .. } => Why::Full,
        CommunicationError::Unroutable { .. } => Why::Unroutable,
        CommunicationError::NotFound { .. } => Why::NotFound,
        CommunicationError::QueueDiffers { .. } => Why::Differs,
        _ => Why::Refused,
    };
    let reason = match error {
        CommunicationError::NotFound { what, .. } => what.clone(),
        CommunicationError::QueueDiffers { why, .. } | CommunicationError::Refused { why, .. } => why.clone(),
        other => other.to_string(),
    };
    Frame::Refused(id, why, reason.chars().take(200).collect())
}
