//! Waits: what producers and consumers hold of a broker in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::answers::ReplyTo;
use super::broker::{Broker, Properties, Stored};
use crate::comm::{Boxed, CommunicationError, Config, Counters, Fate, Inlet, Job, Outlet, Payload, Settle};

impl Properties {
    pub(crate) fn of(conf: &Config) -> Self {
        Self { auto_delete: conf.auto_delete, durable: conf.durable }
    }
}

/// Pushes a message, once there is room.
pub(crate) async fn push(
    broker: &Broker,
    conf: &Config,
    key: &str,
    payload: Payload,
) -> Result<(), CommunicationError> {
    declare(broker, conf, key)?;
    let message = Stored { payload, reply: None, tries: 0, redelivered: false };
    match broker.publish(&conf.exchange, key, message).await {
        Err(CommunicationError::Unroutable { .. }) if !(conf.confirms && conf.mandatory) => Ok(()),
        result => result,
    }
}

/// Pushes a message, once there is room, and waits for its answer.
pub(crate) async fn call(
    broker: &Broker,
    conf: &Config,
    key: &str,
    payload: Payload,
) -> Result<Payload, CommunicationError> {
    declare(broker, conf, key)?;
    let (sender, answer) = oneshot::channel();
    let reply = Some(ReplyTo::new(sender, broker.answers().clone()));
    let message = Stored { payload, reply, tries: 0, redelivered: false };
    broker.publish(&conf.exchange, key, message).await?;
    answer.await.map(|(answer, _)| answer).map_err(|_| CommunicationError::Lost {
        target: conf.protocol.clone(),
        sent: true,
        why: "the queue is gone".to_owned(),
    })
}

/// As the programs of seed 003 do, a producer declares the queue that the default exchange takes its
/// messages to.
fn declare(broker: &Broker, conf: &Config, key: &str) -> Result<(), CommunicationError> {
    if conf.declare && conf.exchange.is_empty() { broker.declare(key, Properties::of(conf)) } else { Ok(()) }
}

pub(crate) struct MemoryOutlet {
    broker: Arc<Broker>,
    conf: Config,
    closed: AtomicBool,
}

impl MemoryOutlet {
    pub(crate) fn new(broker: Arc<Broker>, conf: &Config) -> Self {
        Self { broker, conf: conf.clone(), closed: AtomicBool::new(false) }
    }

    fn open(&self) -> Result<(), CommunicationError> {
        if self.closed.load(Ordering::Acquire) { Err(CommunicationError::Closed) } else { Ok(()) }
    }
}

impl Outlet for MemoryOutlet {
    fn push<'a>(&'a self, key: &'a str, payload: Payload) -> Boxed<'a, Result<(), CommunicationError>> {
        Box::pin(async move {
            self.open()?;
            push(&self.broker, &self.conf, key, payload).await
        })
    }

    fn call<'a>(&'a self, key: &'a str, payload: Payload) -> Boxed<'a, Result<Payload, CommunicationError>> {
        Box::pin(async move {
            self.open()?;
            call(&self.broker, &self.conf, key, payload).await
        })
    }

    fn close(&self) -> Boxed<'_, ()> {
        self.closed.store(true, Ordering::Release);
        Box::pin(std::future::ready(()))
    }
}

/// A consumer's end. Dropping it gives back what was left unsettled, and leaves the queue.
pub(crate) struct MemoryInlet {
    place: Arc<Place>,
    arrived: Arc<Notify>,
    prefetch: Arc<Semaphore>,
    stopped: bool,
}

/// A consumer's place at its queue, shared with the jobs in hand.
struct Place {
    broker: Arc<Broker>,
    queue: String,
    dead_letter: Option<String>,
    counters: Counters,
    left: Mutex<Vec<(Stored, OwnedSemaphorePermit)>>,
}

impl MemoryInlet {
    pub(crate) fn open(broker: Arc<Broker>, conf: &Config, counters: Counters) -> Result<Self, CommunicationError> {
        let queue = conf.queue_name()?.to_owned();
        if conf.declare {
            broker.declare(&queue, Properties::of(conf))?;
        }
        if let Some(dead) = &conf.dead_letter {
            broker.declare(dead, Properties { auto_delete: false, durable: conf.durable })?;
        }
        if !conf.exchange.is_empty() {
            broker.bind(&conf.exchange, conf.key_of_pushes()?, &queue);
        }
        let arrived = broker.join(&queue)?;
        let prefetch = Arc::new(Semaphore::new(conf.prefetch.get().into()));
        let dead_letter = conf.dead_letter.clone();
        let place = Arc::new(Place { broker, queue, dead_letter, counters, left: Mutex::default() });
        Ok(Self { place, arrived, prefetch, stopped: false })
    }

    async fn take(&mut self) -> Job {
        let Ok(permit) = self.prefetch.clone().acquire_owned().await else { return std::future::pending().await };
        let message = loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            match self.place.broker.take(&self.place.queue) {
                Some(message) => break message,
                None => arrived.await,
            }
        };
        // From here on nothing waits, so what was taken is given.
        Job {
            payload: message.payload.clone(),
            is_call: message.reply.is_some(),
            tries: message.tries,
            redelivered: message.redelivered,
            settle: Box::new(InHand { place: self.place.clone(), held: Some((message, permit)) }),
        }
    }
}

impl Inlet for MemoryInlet {
    fn next(&mut self) -> Boxed<'_, Result<Job, CommunicationError>> {
        Box::pin(async { if self.stopped { Err(CommunicationError::Closed) } else { Ok(self.take().await) } })
    }

    fn stop(&mut self) -> Boxed<'_, ()> {
        self.stopped = true;
        Box::pin(std::future::ready(()))
    }

    fn close(&mut self) -> Boxed<'_, ()> {
        self.place.give_back();
        Box::pin(std::future::ready(()))
    }
}

impl Drop for MemoryInlet {
    fn drop(&mut self) {
        self.place.give_back();
    }
}

impl Place {
    fn give_back(&self) {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        for (message, _) in left {
            self.broker.put_back(&self.queue, message);
        }
    }
}

/// The queue lives until nobody has anything of it in hand.
impl Drop for Place {
    fn drop(&mut self) {
        self.give_back();
        self.broker.leave(&self.queue);
    }
}

/// A message that a consumer has in hand; dropped, it goes back.
struct InHand {
    place: Arc<Place>,
    held: Option<(Stored, OwnedSemaphorePermit)>,
}

impl Settle for InHand {
    fn settle(
        mut self: Box<Self>,
        answer: Option<Payload>,
        fate: Fate,
    ) -> Boxed<'static, Result<(), CommunicationError>> {
        let Some((message, permit)) = self.held.take() else { return Box::pin(std::future::ready(Ok(()))) };
        if let (Some(reply), Some(answer)) = (&message.reply, answer)
            && !reply.answer(answer)
        {
            self.place.counters.count_undelivered();
        }
        match fate {
            Fate::Done => {}
            Fate::Retry => {
                let tries = message.tries.saturating_add(1);
                self.place.broker.again(&self.place.queue, Stored { tries, redelivered: true, ..message });
            }
            Fate::Dead(_) => {
                if let Some(dead) = &self.place.dead_letter {
                    self.place.broker.bury(dead, Stored { tries: 0, redelivered: false, ..message });
                }
            }
            Fate::Leave => {
                self.place.left.lock().unwrap_or_else(PoisonError::into_inner).push((message, permit));
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        if let Some((message, _)) = self.held.take() {
            self.place.broker.put_back(&self.place.queue, message);
        }
    }
}
