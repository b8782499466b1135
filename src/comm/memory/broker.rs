//! Waits: queues by name, who is bound to what, and waiting for room or for a message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::answers::{Answers, ReplyTo};
use super::queue::Queue;
use crate::comm::{CommunicationError, Payload};

/// Queues that a broker may have: what comes over a pipe may name any number of them.
const QUEUES: usize = 10_000;
/// What queues that nobody consumes may hold in all, in bytes, before they take no more of what comes over a pipe.
const UNATTENDED: usize = 256 << 20;

/// What a queue is declared with, the same by all who declare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Properties {
    pub(crate) auto_delete: bool,
    pub(crate) durable: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) payload: Payload,
    pub(crate) reply: Option<ReplyTo>,
    pub(crate) tries: u32,
    pub(crate) redelivered: bool,
}

#[derive(Debug)]
struct Named {
    queue: Queue<Stored>,
    properties: Properties,
    consumers: usize,
    arrived: Arc<Notify>,
    room: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    /// Queues that there may be.
    limit: usize,
    queues: HashMap<String, Named>,
    /// Queues by exchange and routing key.
    bindings: HashMap<String, HashMap<String, Vec<String>>>,
    /// What queues hold that nobody consumes.
    unattended: usize,
}

/// A broker in memory.
#[derive(Debug)]
pub(crate) struct Broker {
    state: Mutex<State>,
    answers: Answers,
}

impl Default for Broker {
    fn default() -> Self {
        Self::with_queues(QUEUES)
    }
}

/// What publishing came to.
enum Published {
    Done,
    /// This queue is full; wait for room in it.
    Full(String, Arc<Notify>),
}

impl Broker {
    /// One that may have so many queues; with none it refuses everything.
    pub(crate) fn with_queues(limit: usize) -> Self {
        let state = State { limit, queues: HashMap::new(), bindings: HashMap::new(), unattended: 0 };
        Self { state: Mutex::new(state), answers: Answers::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those to calls of its messages that are on their way.
    pub(crate) fn answers(&self) -> &Answers {
        &self.answers
    }

    pub(crate) fn declare(&self, name: &str, properties: Properties) -> Result<(), CommunicationError> {
        let mut state = self.state();
        if let Some(queue) = state.queues.get(name) {
            if queue.properties == properties {
                return Ok(());
            }
            let why = format!("it has {:?}, asked for are {properties:?}", queue.properties);
            return Err(CommunicationError::QueueDiffers { queue: name.to_owned(), why });
        }
        if state.queues.len() >= state.limit {
            let why = format!("it has {} queues and takes no more", state.limit);
            return Err(CommunicationError::Refused { target: "memory".to_owned(), why });
        }
        let (arrived, room) = <(Arc<Notify>, Arc<Notify>)>::default();
        state
            .queues
            .insert(name.to_owned(), Named { queue: Queue::default(), properties, consumers: 0, arrived, room });
        Ok(())
    }

    pub(crate) fn bind(&self, exchange: &str, key: &str, queue: &str) {
        let mut state = self.state();
        let bound = state.bindings.entry(exchange.to_owned()).or_default().entry(key.to_owned()).or_default();
        if !bound.iter().any(|name| name == queue) {
            bound.push(queue.to_owned());
        }
    }

    /// Stores a message in each queue that it is for, when there is room.
    pub(crate) async fn publish(&self, exchange: &str, key: &str, message: Stored) -> Result<(), CommunicationError> {
        loop {
            let full = match self.try_publish(exchange, key, &message, None)? {
                Published::Done => return Ok(()),
                Published::Full(queue, room) => (queue, room),
            };
            let room = full.1.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            // Room may have come between looking and listening.
            if self.is_full(&full.0) {
                room.await;
            }
        }
    }

    /// Stores a message that came over a pipe at once, or says that a queue is full, or that all which nobody consumes are.
    pub(crate) fn publish_now(&self, exchange: &str, key: &str, message: &Stored) -> Result<(), CommunicationError> {
        match self.try_publish(exchange, key, message, Some(UNATTENDED))? {
            Published::Done => Ok(()),
            Published::Full(queue, _) => Err(CommunicationError::Full { queue }),
        }
    }

    fn try_publish(
        &self,
        exchange: &str,
        key: &str,
        message: &Stored,
        unattended: Option<usize>,
    ) -> Result<Published, CommunicationError> {
        let mut state = self.state();
        let targets = state.route(exchange, key)?;
        let beyond = |named: &Named| named.consumers == 0 && unattended.is_some_and(|most| state.unattended >= most);
        for name in &targets {
            if let Some(named) = state.queues.get(name).filter(|named| named.queue.is_full() || beyond(named)) {
                return Ok(Published::Full(name.clone(), named.room.clone()));
            }
        }
        for name in &targets {
            state.change(name, |named| {
                named.queue.push(message.clone(), message.payload.body.len());
                named.arrived.notify_one();
            });
        }
        Ok(Published::Done)
    }

    fn is_full(&self, name: &str) -> bool {
        self.state().queues.get(name).is_some_and(|named| named.queue.is_full())
    }

    /// A consumer comes to a queue. Returns what tells it of messages.
    pub(crate) fn join(&self, name: &str) -> Result<Arc<Notify>, CommunicationError> {
        let joined = self.state().change(name, |named| {
            named.consumers += 1;
            named.arrived.clone()
        });
        joined.ok_or_else(|| no_queue(name))
    }

    /// A consumer leaves. The last one takes a queue with it that is to be deleted then.
    pub(crate) fn leave(&self, name: &str) {
        let mut state = self.state();
        let is_to_go = state.change(name, |named| {
            named.consumers -= 1;
            // Whoever was told of a message and left without it passes the word on.
            named.arrived.notify_one();
            named.consumers == 0 && named.properties.auto_delete
        });
        if is_to_go == Some(true) {
            state.remove(name);
            for keys in state.bindings.values_mut() {
                keys.values_mut().for_each(|queues| queues.retain(|queue| queue != name));
            }
        }
    }

    /// The next message, passing over calls whose caller has given up.
    pub(crate) fn take(&self, name: &str) -> Option<Stored> {
        let taken = self.state().change(name, |named| {
            let was_full = named.queue.is_full();
            let mut taken = named.queue.take();
            while taken.as_ref().and_then(|message| message.reply.as_ref()).is_some_and(ReplyTo::is_gone) {
                taken = named.queue.take();
            }
            if was_full {
                named.room.notify_waiters();
            }
            taken
        });
        taken.flatten()
    }

    /// Puts back what was taken and not settled.
    pub(crate) fn put_back(&self, name: &str, message: Stored) {
        let bytes = message.payload.body.len();
        self.state().change(name, |named| {
            named.queue.put_back(Stored { redelivered: true, ..message }, bytes);
            named.arrived.notify_one();
        });
    }

    /// Puts a message that was tried in vain at the end of its queue, where it takes the place that it had.
    pub(crate) fn again(&self, name: &str, message: Stored) {
        let bytes = message.payload.body.len();
        self.state().change(name, |named| {
            named.queue.push(message, bytes);
            named.arrived.notify_one();
        });
    }

    /// Puts a message into the queue of dead letters; a full one gives up its oldest.
    pub(crate) fn bury(&self, name: &str, message: Stored) {
        let bytes = message.payload.body.len();
        self.state().change(name, |named| {
            while named.queue.is_full() && named.queue.take().is_some() {
                tracing::warn!(queue = name, "the queue of dead letters is full and loses its oldest");
            }
            named.queue.push(Stored { reply: None, ..message }, bytes);
            named.arrived.notify_one();
        });
    }
}

impl Named {
    /// What it holds while nobody consumes it.
    fn unattended(&self) -> usize {
        if self.consumers == 0 { self.queue.weight() } else { 0 }
    }
}

impl State {
    /// Changes a queue, and the sum with it: to add it up for each message would take longer the more queues there are. `None`
    /// when there is no such queue.
    fn change<T>(&mut self, name: &str, change: impl FnOnce(&mut Named) -> T) -> Option<T> {
        let named = self.queues.get_mut(name)?;
        let before = named.unattended();
        let done = change(named);
        self.unattended = self.unattended - before + named.unattended();
        Some(done)
    }

    fn remove(&mut self, name: &str) {
        if let Some(named) = self.queues.remove(name) {
            self.unattended -= named.unattended();
            // A producer that waits for room finds no queue, and says so.
            named.room.notify_waiters();
        }
    }

    fn route(&self, exchange: &str, key: &str) -> Result<Vec<String>, CommunicationError> {
        let unroutable =
            || CommunicationError::Unroutable { exchange: exchange.to_owned(), routing_key: key.to_owned() };
        if exchange.is_empty() {
            return if self.queues.contains_key(key) { Ok(vec![key.to_owned()]) } else { Err(unroutable()) };
        }
        let keys = self.bindings.get(exchange).ok_or_else(|| CommunicationError::NotFound {
            target: "memory".to_owned(),
            what: format!("exchange `{exchange}`"),
        })?;
        let queues = keys.get(key).cloned().unwrap_or_default();
        if queues.is_empty() { Err(unroutable()) } else { Ok(queues) }
    }
}

fn no_queue(name: &str) -> CommunicationError {
    CommunicationError::NotFound { target: "memory".to_owned(), what: format!("queue `{name}`") }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn queues_with_names_of_the_other_ends_choice_hold_a_bounded_amount_of_memory() {
        let broker = Broker::default();
        // One body, shared: the test needs no memory for it.
        let body = Bytes::from(vec![0; 1 << 20]);
        let payload = Payload { body, format: None, code: None };
        let message = Stored { payload, reply: None, tries: 0, redelivered: false };
        let properties = Properties { auto_delete: false, durable: false };
        let stored = (0..20)
            .flat_map(|queue| (0..50).map(move |_| format!("q{queue}")))
            .filter(|name| {
                broker.declare(name, properties).unwrap();
                broker.publish_now("", name, &message).is_ok()
            })
            .count();
        assert_eq!(stored, 256);
        assert!(matches!(broker.publish_now("", "q9", &message), Err(CommunicationError::Full { .. })));
        // A queue with a consumer takes its own share all the same.
        broker.join("q9").unwrap();
        broker.publish_now("", "q9", &message).unwrap();
    }

    #[test]
    fn the_sum_of_what_nobody_consumes_is_that_of_the_queues_whatever_happens() {
        let (broker, mut state) = (Broker::default(), 3_u64);
        let mut next = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut held = Vec::new();
        let mut consumers = [0; 4];
        let mut most = 0;
        for step in 0..20_000 {
            let queue = next(4);
            let name = format!("q{queue}");
            broker.declare(&name, Properties { auto_delete: queue % 2 == 0, durable: false }).unwrap();
            let body = Bytes::from(vec![0; next(100) as usize]);
            let message = Stored {
                payload: Payload { body, format: None, code: None },
                reply: None,
                tries: 0,
                redelivered: false,
            };
            match next(9) {
                0 => {
                    broker.join(&name).unwrap();
                    consumers[queue as usize] += 1;
                }
                1 if consumers[queue as usize] > 0 => {
                    broker.leave(&name);
                    consumers[queue as usize] -= 1;
                }
                2 | 3 => held.extend(broker.take(&name)),
                4 => held.pop().into_iter().for_each(|message| broker.put_back(&name, message)),
                5 => held.pop().into_iter().for_each(|message| broker.again(&name, message)),
                6 => broker.bury(&name, message),
                _ => broker.publish_now("", &name, &message).unwrap(),
            }
            let state = broker.state();
            let sum: usize = state.queues.values().map(Named::unattended).sum();
            assert_eq!(state.unattended, sum, "step {step}");
            most = most.max(sum);
        }
        assert!(most > 0);
    }
}
