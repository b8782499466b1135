//! Waits: a producer's end: a connection that is made again when it is needed, pushes and calls.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use arc_swap::ArcSwapOption;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::calls::{Calls, InFlight};
use super::connect::Broker;
use super::fault::{Doing, fault, is_final, nothing_was_sent};
use super::{declare, headers};
use crate::base::backoff::{Backoff, chance};
use crate::comm::{Boxed, CommunicationError, Config, Outlet, Payload};

/// Routing keys remembered as declared; beyond, all are forgotten and declared again.
const DECLARED: usize = 10_000;

pub(super) struct AmqpOutlet {
    conf: Config,
    calls: bool,
    exchange: ShortString,
    live: ArcSwapOption<Live>,
    connecting: Mutex<Backoff>,
    closed: AtomicBool,
}

/// What lives as long as a connection.
struct Live {
    broker: Broker,
    channel: Channel,
    calls: Option<Calls>,
    declared: StdMutex<HashSet<String>>,
}

impl Live {
    async fn open(conf: &Config, calls: bool) -> Result<Self, CommunicationError> {
        let broker = Broker::connect(conf).await?;
        let confirms = if calls { confirms_calls(conf) } else { conf.confirms };
        let channel = if confirms { broker.confirming().await? } else { broker.channel().await? };
        let calls = if calls { Some(Calls::open(&broker).await?) } else { None };
        Ok(Self { broker, channel, calls, declared: StdMutex::default() })
    }

    fn is_live(&self) -> bool {
        self.broker.is_connected()
            && self.channel.status().connected()
            && self.calls.as_ref().is_none_or(Calls::is_live)
    }

    fn declared(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Declares the queue that the default exchange takes messages with this key to, the first time.
    async fn declare(&self, conf: &Config, key: &str) -> Result<(), CommunicationError> {
        if !conf.declare || !conf.exchange.is_empty() || self.declared().contains(key) {
            return Ok(());
        }
        declare::queue(&self.broker, conf, key).await?;
        let mut declared = self.declared();
        if declared.len() >= DECLARED {
            declared.clear();
        }
        declared.insert(key.to_owned());
        Ok(())
    }
}

/// Calls to a queue that we have declared and that stays need no word that they arrived: the answer is
/// that word.
fn confirms_calls(conf: &Config) -> bool {
    conf.confirms && conf.mandatory && (!conf.exchange.is_empty() || !conf.declare || conf.auto_delete)
}

impl AmqpOutlet {
    pub(super) async fn open(conf: &Config, calls: bool) -> Result<Self, CommunicationError> {
        let exchange = headers::short("exchange", &conf.exchange)?;
        let live = Live::open(conf, calls).await?;
        if let Ok(key) = conf.key_of_pushes() {
            live.declare(conf, key).await?;
        }
        Ok(Self {
            conf: conf.clone(),
            calls,
            exchange,
            live: ArcSwapOption::from_pointee(live),
            connecting: Mutex::new(Backoff::new(conf.reconnect_wait, conf.reconnect_max)),
            closed: AtomicBool::new(false),
        })
    }

    /// The connection; a lost one is made again, as long as the caller waits.
    async fn live(&self) -> Result<Arc<Live>, CommunicationError> {
        if let Some(live) = self.live.load_full().filter(|live| live.is_live()) {
            return Ok(live);
        }
        let mut backoff = self.connecting.lock().await;
        loop {
            if self.closed.load(Ordering::Acquire) {
                return Err(CommunicationError::Closed);
            }
            // Another may have made it while this one waited for its turn.
            if let Some(live) = self.live.load_full().filter(|live| live.is_live()) {
                return Ok(live);
            }
            if !self.conf.reconnect {
                return Err(self.lost(false, "and `reconnect` is off"));
            }
            match Live::open(&self.conf, self.calls).await {
                Ok(live) => {
                    backoff.reset();
                    self.live.store(Some(Arc::new(live)));
                    // It may have been closed meanwhile, and with it what was there before.
                    if self.closed.load(Ordering::Acquire) {
                        self.shut().await;
                        return Err(CommunicationError::Closed);
                    }
                }
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    let wait = backoff.next(chance());
                    tracing::warn!(%error, ?wait, "no connection yet");
                    sleep(wait).await;
                }
            }
        }
    }

    async fn shut(&self) {
        if let Some(live) = self.live.swap(None) {
            live.broker.close(&self.conf).await;
        }
    }

    fn lost(&self, sent: bool, why: &str) -> CommunicationError {
        let target = self.conf.host.clone().unwrap_or_default();
        CommunicationError::Lost { target, sent, why: why.to_owned() }
    }

    /// Sends a message over a connection that works. What was not sent for sure is sent over the next one.
    async fn send(
        &self,
        key: &str,
        body: &[u8],
        properties: impl Fn(&Live) -> BasicProperties,
    ) -> Result<(Arc<Live>, PublisherConfirm), CommunicationError> {
        let routing = headers::short("routing_key", key)?;
        loop {
            let live = self.live().await?;
            match live.declare(&self.conf, key).await {
                Err(CommunicationError::Lost { .. }) if self.conf.reconnect && !live.is_live() => continue,
                result => result?,
            }
            let options = BasicPublishOptions {
                mandatory: live.channel.status().confirm() && self.conf.mandatory,
                ..Default::default()
            };
            let sent = live
                .channel
                .basic_publish(self.exchange.clone(), routing.clone(), options, body, properties(&live))
                .await;
            match sent {
                Ok(confirm) => return Ok((live, confirm)),
                Err(error) if nothing_was_sent(&error) && self.conf.reconnect && !live.is_live() => {}
                Err(error) => return Err(fault(live.broker.target(), Doing::Waiting, &error)),
            }
        }
    }

    async fn confirmed(&self, live: &Live, key: &str, confirm: PublisherConfirm) -> Result<(), CommunicationError> {
        let routing_key = key.to_owned();
        match confirm.await {
            Ok(Confirmation::NotRequested | Confirmation::Ack(None)) => Ok(()),
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => {
                // The queue has gone since it was declared; the next message declares it again.
                live.declared().remove(key);
                Err(CommunicationError::Unroutable { exchange: self.conf.exchange.clone(), routing_key })
            }
            Ok(Confirmation::Nack(None)) => {
                Err(CommunicationError::Nacked { target: live.broker.target().to_owned(), routing_key })
            }
            Err(error) => Err(fault(live.broker.target(), Doing::Waiting, &error)),
        }
    }

    /// True when a message found no queue that is ours to declare, and may find it now.
    fn may_declare_again<T>(&self, result: &Result<T, CommunicationError>) -> bool {
        let unroutable = matches!(result, Err(CommunicationError::Unroutable { .. }));
        unroutable && self.conf.declare && self.conf.exchange.is_empty()
    }

    async fn push_once(&self, key: &str, payload: &Payload) -> Result<(), CommunicationError> {
        let (live, confirm) = self.send(key, &payload.body, |_| headers::of_push(&self.conf, payload)).await?;
        self.confirmed(&live, key, confirm).await
    }

    async fn call_once(&self, key: &str, payload: &Payload) -> Result<Payload, CommunicationError> {
        // Each connection has its own queue for answers, so a call is begun anew on each.
        let begun: StdMutex<Option<InFlight>> = StdMutex::new(None);
        let properties = |live: &Live| {
            let properties = headers::of_push(&self.conf, payload).with_expiration(self.expiration());
            let Some(calls) = &live.calls else { return properties };
            let flight = calls.begin();
            let properties = properties.with_reply_to(calls.reply_to()).with_correlation_id(flight.id().into());
            *begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(flight);
            properties
        };
        let (live, confirm) = self.send(key, &payload.body, properties).await?;
        let flight = begun.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some(mut flight) = flight else { return Err(CommunicationError::Closed) };
        let confirmed = self.confirmed(&live, key, confirm);
        tokio::pin!(confirmed);
        let answer = tokio::select! {
            biased;
            answer = flight.answer() => answer,
            confirmed = &mut confirmed => {
                confirmed?;
                flight.answer().await
            }
        };
        answer.ok_or_else(|| self.lost(true, "the answer cannot come any more"))
    }

    /// A call that nobody waits for any more need not be carried out: in milliseconds, at least one.
    fn expiration(&self) -> ShortString {
        u32::try_from(self.conf.timeout.as_millis()).unwrap_or(u32::MAX).max(1).to_string().into()
    }
}

impl Outlet for AmqpOutlet {
    fn push<'a>(&'a self, key: &'a str, payload: Payload) -> Boxed<'a, Result<(), CommunicationError>> {
        Box::pin(async move {
            let result = self.push_once(key, &payload).await;
            if self.may_declare_again(&result) { self.push_once(key, &payload).await } else { result }
        })
    }

    fn call<'a>(&'a self, key: &'a str, payload: Payload) -> Boxed<'a, Result<Payload, CommunicationError>> {
        Box::pin(async move {
            let result = self.call_once(key, &payload).await;
            if self.may_declare_again(&result) { self.call_once(key, &payload).await } else { result }
        })
    }

    fn close(&self) -> Boxed<'_, ()> {
        Box::pin(async move {
            self.closed.store(true, Ordering::Release);
            self.shut().await;
        })
    }
}
