//! Waits: settling a message: its answer, and its acknowledgement, another try, or its burial.

use std::sync::Arc;

use lapin::options::{BasicAckOptions, BasicNackOptions, BasicPublishOptions, BasicQosOptions, BasicRejectOptions};
use lapin::{Acker, BasicProperties, Channel, Confirmation};
use tokio::sync::Mutex;

use super::connect::Broker;
use super::fault::{Doing, fault};
use super::headers;
use crate::comm::{Boxed, CommunicationError, Config, Counters, Fate, Payload, Settle};

/// What the messages of one connection share.
pub(super) struct Session {
    broker: Broker,
    channel: Channel,
    /// For what is put back or buried: it is acknowledged here when it is confirmed there.
    confirming: Mutex<Option<Channel>>,
    conf: Config,
    counters: Counters,
}

impl Session {
    pub(super) fn new(broker: Broker, channel: Channel, conf: Config, counters: Counters) -> Self {
        Self { broker, channel, confirming: Mutex::default(), conf, counters }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Counts the answers that came back, then closes the connection.
    pub(super) async fn close(&self) {
        // What the broker returns comes before its answer to this.
        let again = self.channel.basic_qos(self.conf.prefetch.get(), BasicQosOptions::default()).await;
        if again.is_ok() {
            self.count_returned().await;
        }
        self.broker.close(&self.conf).await;
    }

    /// Answers whose queue has gone came back by now, or will be counted with the next ones.
    async fn count_returned(&self) {
        for _ in self.channel.wait_for_confirms().await.unwrap_or_default() {
            self.counters.count_undelivered();
        }
    }

    async fn answer(&self, properties: &BasicProperties, answer: &Payload) -> Result<(), CommunicationError> {
        let Some(reply_to) = properties.reply_to() else { return Ok(()) };
        let ours = headers::of_answer(answer, properties.correlation_id().clone());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = self.channel.basic_publish("".into(), reply_to.clone(), options, &answer.body, ours).await;
        sent.map(drop).map_err(|error| fault(self.broker.target(), Doing::Waiting, &error))?;
        self.count_returned().await;
        Ok(())
    }

    async fn confirming(&self) -> Result<Channel, CommunicationError> {
        let mut confirming = self.confirming.lock().await;
        if let Some(channel) = confirming.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        Ok(confirming.insert(self.broker.confirming().await?).clone())
    }

    /// Publishes to a queue, and returns when it is safe there.
    async fn store(&self, queue: &str, body: &[u8], properties: BasicProperties) -> Result<(), CommunicationError> {
        let channel = self.confirming().await?;
        let failed = |error: lapin::Error| fault(self.broker.target(), Doing::Waiting, &error);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let key = headers::short("queue", queue)?;
        let confirm = channel.basic_publish("".into(), key, options, body, properties).await.map_err(failed)?;
        match confirm.await.map_err(failed)? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => {
                Err(CommunicationError::Unroutable { exchange: String::new(), routing_key: queue.to_owned() })
            }
            _ => Err(CommunicationError::Nacked {
                target: self.broker.target().to_owned(),
                routing_key: queue.to_owned(),
            }),
        }
    }
}

/// A delivery that is not yet settled; dropped, it stays with the channel and comes again when that closes.
pub(super) struct InHand {
    session: Arc<Session>,
    properties: BasicProperties,
    body: Payload,
    acker: Acker,
}

impl InHand {
    pub(super) fn new(session: Arc<Session>, properties: BasicProperties, body: Payload, acker: Acker) -> Self {
        Self { session, properties, body, acker }
    }

    async fn finish(&self, answer: Option<Payload>, fate: Fate) -> Result<(), CommunicationError> {
        if let Some(answer) = &answer {
            self.session.answer(&self.properties, answer).await?;
        }
        let queue = self.session.conf.queue_name()?;
        let dead_letter = self.session.conf.dead_letter.as_deref();
        let stored = match (&fate, dead_letter) {
            (Fate::Leave, _) => return Ok(()),
            (Fate::Retry, _) => {
                let tries = headers::tries(&self.properties);
                self.session.store(queue, &self.body.body, headers::again(&self.properties, tries)).await
            }
            (Fate::Dead(why), Some(dead)) => {
                let properties = headers::dead(&self.properties, queue, why);
                self.session.store(dead, &self.body.body, properties).await
            }
            (Fate::Done | Fate::Dead(_), _) => Ok(()),
        };
        let settled = match (&stored, fate, dead_letter) {
            (Err(_), ..) => self.acker.nack(BasicNackOptions { requeue: true, ..Default::default() }).await,
            // The queue's own rule for dead letters in the broker, if it has one, applies.
            (Ok(()), Fate::Dead(_), None) => self.acker.reject(BasicRejectOptions { requeue: false }).await,
            (Ok(()), ..) => self.acker.ack(BasicAckOptions::default()).await,
        };
        stored?;
        settled.map(drop).map_err(|error| fault(self.session.broker.target(), Doing::Waiting, &error))
    }
}

impl Settle for InHand {
    fn settle(self: Box<Self>, answer: Option<Payload>, fate: Fate) -> Boxed<'static, Result<(), CommunicationError>> {
        Box::pin(async move { self.finish(answer, fate).await })
    }
}
