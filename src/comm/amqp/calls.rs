//! Waits: the calls that are in flight on a connection, and the queue that their answers come to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use lapin::Consumer;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::connect::Broker;
use super::fault::{Doing, fault};
use super::headers;
use crate::base::task::Nursery;
use crate::comm::{CommunicationError, Payload};

/// Who waits for which answer; `None` when no answer will come any more.
type Waiting = Mutex<Option<HashMap<String, oneshot::Sender<Payload>>>>;

pub(super) struct Calls {
    waiting: Arc<Waiting>,
    /// What the identifiers of this connection's calls begin with.
    name: String,
    /// How many calls have begun.
    begun: AtomicU64,
    reply_to: ShortString,
    _reader: Nursery<()>,
}

/// A call in flight: dropping it forgets the call, and its answer is ignored.
pub(super) struct InFlight {
    waiting: Arc<Waiting>,
    id: String,
    answer: oneshot::Receiver<Payload>,
}

impl Calls {
    /// Declares an exclusive queue for answers, named by the broker, and begins to read from it.
    pub(super) async fn open(broker: &Broker) -> Result<Self, CommunicationError> {
        let failed = |error: lapin::Error| fault(broker.target(), Doing::Declaring("for answers"), &error);
        let channel = broker.channel().await?;
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare("".into(), exclusive, FieldTable::default()).await.map_err(failed)?;
        let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = channel
            .basic_consume(queue.name().clone(), "".into(), no_ack, FieldTable::default())
            .await
            .map_err(failed)?;
        let waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let mut reader = Nursery::new(&Handle::current());
        reader.begin(read(consumer, waiting.clone()));
        let name = format!("{}.", Uuid::new_v4().simple());
        Ok(Self { waiting, name, begun: AtomicU64::new(0), reply_to: queue.name().clone(), _reader: reader })
    }

    /// False when no answer will come any more.
    pub(super) fn is_live(&self) -> bool {
        lock(&self.waiting).is_some()
    }

    pub(super) fn reply_to(&self) -> ShortString {
        self.reply_to.clone()
    }

    /// Begins to wait for the answer to a new call.
    pub(super) fn begin(&self) -> InFlight {
        // To ask the system for randomness for each call would take longer than all that this does.
        let id = format!("{}{}", self.name, self.begun.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        if let Some(waiting) = lock(&self.waiting).as_mut() {
            waiting.insert(id.clone(), sender);
        }
        InFlight { waiting: self.waiting.clone(), id, answer }
    }
}

impl InFlight {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The answer; `None` when the connection was lost before it came. Cancel safe.
    pub(super) async fn answer(&mut self) -> Option<Payload> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(waiting) = lock(&self.waiting).as_mut() {
            waiting.remove(&self.id);
        }
    }
}

/// Hands out answers until the queue or the connection is gone; then nobody waits any longer.
async fn read(mut consumer: Consumer, waiting: Arc<Waiting>) {
    while let Some(Ok(delivery)) = consumer.next().await {
        let id = delivery.properties.correlation_id().as_ref().map_or("", |id| id.as_str());
        let caller = lock(&waiting).as_mut().and_then(|waiting| waiting.remove(id));
        let Some(caller) = caller else {
            tracing::debug!("an answer to a call that nobody waits for is ignored");
            continue;
        };
        // A caller that has just given up does not miss it.
        let _ = caller.send(headers::payload(&delivery.properties, delivery.data));
    }
    lock(&waiting).take();
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, Option<HashMap<String, oneshot::Sender<Payload>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
