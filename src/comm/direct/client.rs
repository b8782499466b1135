//! Waits: a producer's connection to the process that consumes, made again when it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::link::{Link, Terms};
use super::signs_of_life;
use crate::base::backoff::{Backoff, chance};
use crate::comm::memory::Broker;
use crate::comm::{Boxed, CommunicationError, Config, Outlet, Payload};
use crate::pipe::{NetConf, Proto, pipe_open};

pub(super) struct Client {
    conf: Config,
    place: (String, u16),
    link: ArcSwapOption<Link>,
    connecting: Mutex<Backoff>,
    closed: AtomicBool,
}

impl Client {
    pub(super) async fn connect(place: (String, u16), conf: &Config) -> Result<Self, CommunicationError> {
        let link = connect(&place, conf).await?;
        Ok(Self {
            conf: conf.clone(),
            place,
            link: ArcSwapOption::from_pointee(link),
            connecting: Mutex::new(Backoff::new(conf.reconnect_wait, conf.reconnect_max)),
            closed: AtomicBool::new(false),
        })
    }

    async fn live(&self) -> Result<Arc<Link>, CommunicationError> {
        if let Some(link) = self.link.load_full().filter(|link| link.is_live()) {
            return Ok(link);
        }
        let mut backoff = self.connecting.lock().await;
        loop {
            if self.closed.load(Ordering::Acquire) {
                return Err(CommunicationError::Closed);
            }
            if let Some(link) = self.link.load_full().filter(|link| link.is_live()) {
                return Ok(link);
            }
            if !self.conf.reconnect {
                let why = "and `reconnect` is off".to_owned();
                return Err(CommunicationError::Lost { target: self.target(), sent: false, why });
            }
            match connect(&self.place, &self.conf).await {
                Ok(link) => {
                    backoff.reset();
                    self.link.store(Some(Arc::new(link)));
                    // It may have been closed meanwhile, and with it what was there before.
                    if self.closed.load(Ordering::Acquire) {
                        self.shut().await;
                        return Err(CommunicationError::Closed);
                    }
                }
                Err(error) => {
                    let wait = backoff.next(chance());
                    tracing::warn!(%error, ?wait, "no connection yet");
                    sleep(wait).await;
                }
            }
        }
    }

    async fn shut(&self) {
        if let Some(link) = self.link.swap(None) {
            link.close().await;
        }
    }

    fn target(&self) -> String {
        format!("{}:{}", self.place.0, self.place.1)
    }
}

async fn connect(place: &(String, u16), conf: &Config) -> Result<Link, CommunicationError> {
    let net = signs_of_life(NetConf::default().con_timeout(conf.connect_timeout).nodelay(true), conf);
    let opening = pipe_open(Proto::Tcp).dest((place.0.as_str(), place.1)).conf(net);
    let pipe = opening.await.map_err(|error| CommunicationError::Connect {
        target: format!("{}:{}", place.0, place.1),
        why: error.to_string(),
    })?;
    // Who connects serves nobody.
    Ok(Link::start(pipe, Arc::new(Broker::with_queues(0)), Terms::alone(conf.max_body)).await)
}

impl Outlet for Client {
    fn push<'a>(&'a self, key: &'a str, payload: Payload) -> Boxed<'a, Result<(), CommunicationError>> {
        Box::pin(async move { self.live().await?.push(&self.conf, key, payload).await })
    }

    fn call<'a>(&'a self, key: &'a str, payload: Payload) -> Boxed<'a, Result<Payload, CommunicationError>> {
        Box::pin(async move { self.live().await?.call(&self.conf, key, payload).await })
    }

    fn close(&self) -> Boxed<'_, ()> {
        Box::pin(async move {
            self.closed.store(true, Ordering::Release);
            self.shut().await;
        })
    }
}
