//! Waits: a consumer's end: deliveries, over a connection that is made again when it is lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::Consumer;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::time::{Instant, sleep_until, timeout};

use super::connect::Broker;
use super::declare;
use super::fault::{Doing, fault, is_final};
use super::headers::{payload, short, tries};
use super::settle::{InHand, Session};
use crate::base::backoff::{Backoff, chance};
use crate::comm::{Boxed, CommunicationError, Config, Counters, Inlet, Job};

/// How long to wait for the broker's last deliveries after it was told to stop.
const LAST: Duration = Duration::from_secs(2);

pub(super) struct AmqpInlet {
    conf: Config,
    counters: Counters,
    live: Option<(Arc<Session>, Consumer)>,
    backoff: Backoff,
    /// Set while waiting before another attempt, which outlives the future that waits.
    waiting: Option<Instant>,
    stopped: bool,
}

impl AmqpInlet {
    pub(super) async fn open(conf: &Config, counters: Counters) -> Result<Self, CommunicationError> {
        let live = Some(consume(conf, &counters).await?);
        let (conf, backoff) = (conf.clone(), Backoff::new(conf.reconnect_wait, conf.reconnect_max));
        Ok(Self { conf, counters, live, backoff, waiting: None, stopped: false })
    }

    async fn take(&mut self) -> Result<Job, CommunicationError> {
        loop {
            if self.stopped {
                return Err(CommunicationError::Closed);
            }
            let Some((session, consumer)) = &mut self.live else {
                self.reconnect().await?;
                continue;
            };
            let why = match consumer.next().await {
                Some(Ok(delivery)) => return Ok(job(session.clone(), delivery)),
                Some(Err(error)) => error.to_string(),
                // The broker ends a consumer when its queue is deleted.
                None => "the broker has ended it".to_owned(),
            };
            tracing::warn!(why, queue = ?self.conf.queue, "a consumer was interrupted");
            self.live = None;
            if !self.conf.reconnect {
                let target = self.conf.host.clone().unwrap_or_default();
                return Err(CommunicationError::Lost { target, sent: false, why });
            }
        }
    }

    /// One attempt, after the wait that its predecessors have earned. Cancel safe: what was waited counts.
    async fn reconnect(&mut self) -> Result<(), CommunicationError> {
        if let Some(until) = self.waiting {
            sleep_until(until).await;
            self.waiting = None;
        }
        match consume(&self.conf, &self.counters).await {
            Ok(live) => {
                self.counters.count_reconnected();
                self.live = Some(live);
                self.backoff.reset();
                Ok(())
            }
            Err(error) if is_final(&error) => Err(error),
            Err(error) => {
                let wait = self.backoff.next(chance());
                tracing::warn!(%error, ?wait, "no connection yet");
                self.waiting = Some(Instant::now() + wait);
                Ok(())
            }
        }
    }
}

async fn consume(conf: &Config, counters: &Counters) -> Result<(Arc<Session>, Consumer), CommunicationError> {
    let broker = Broker::connect(conf).await?;
    declare::for_consumer(&broker, conf).await?;
    let failed = |error: lapin::Error| fault(broker.target(), Doing::Consuming, &error);
    let channel = broker.channel().await?;
    channel.basic_qos(conf.prefetch.get(), BasicQosOptions::default()).await.map_err(failed)?;
    let queue = short("queue", conf.queue_name()?)?;
    let consumer = channel
        .basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .map_err(failed)?;
    Ok((Arc::new(Session::new(broker, channel, conf.clone(), counters.clone())), consumer))
}

fn job(session: Arc<Session>, delivery: Delivery) -> Job {
    let properties = delivery.properties;
    let body = payload(&properties, delivery.data);
    Job {
        payload: body.clone(),
        is_call: properties.reply_to().is_some(),
        tries: tries(&properties),
        redelivered: delivery.redelivered,
        settle: Box::new(InHand::new(session, properties, body, delivery.acker)),
    }
}

impl Inlet for AmqpInlet {
    fn next(&mut self) -> Boxed<'_, Result<Job, CommunicationError>> {
        Box::pin(self.take())
    }

    fn stop(&mut self) -> Boxed<'_, ()> {
        Box::pin(async {
            self.stopped = true;
            let Some((session, consumer)) = &mut self.live else { return };
            let cancelled = session.channel().basic_cancel(consumer.tag(), BasicCancelOptions::default()).await;
            if let Err(error) = cancelled {
                tracing::debug!(%error, "the connection was lost before it was stopped");
                return;
            }
            // What came before the broker heard of it goes back at once.
            let give_back = async {
                while let Some(Ok(delivery)) = consumer.next().await {
                    let back = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
                    if delivery.acker.nack(back).await.is_err() {
                        break;
                    }
                }
            };
            if timeout(LAST, give_back).await.is_err() {
                tracing::debug!("the broker did not end the consumer in time");
            }
        })
    }

    fn close(&mut self) -> Boxed<'_, ()> {
        Box::pin(async {
            if let Some((session, _)) = self.live.take() {
                session.close().await;
            }
        })
    }
}
