//! The backend with no broker: straight between two processes, over any pipe, a peer's included.
//!
//! The process that consumes holds the queues, in a broker in memory; the other one's pushes and calls go there in
//! frames. `frame` decides how these look, `link` is one pipe with its tasks, `serve` what comes in from the other
//! end, `server` and `client` make pipes by `host` and `port`, `unfinished` counts what has not come whole. With [`OverPipe`]
//! both ends can do both. A push is confirmed when it is in the other process's queue, and is lost with that process.

mod client;
mod frame;
mod link;
mod serve;
mod server;
#[cfg(test)]
mod tests;
mod unfinished;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::memory::{Broker, MemoryInlet};
use super::{Backend, Boxed, CommunicationError, Config, ConfigError, Counters, Inlet, Job, Outlet, Payload};
use crate::pipe::{Keepalive, NetConf, Pipe};
use client::Client;
use link::{Link, Terms};
use server::Server;

/// The longest body that [`OverPipe::new`] takes from the other end, in bytes.
const BODY: usize = 16 << 20;

/// The backend registered as `pipe`: a consumer listens on TCP at `host` and `port`, producers connect
/// there, and again when the connection is lost.
#[derive(Default)]
pub struct Direct {
    servers: Mutex<HashMap<(String, u16), Weak<Server>>>,
}

impl Direct {
    /// No one listens yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The server at this place: one for all consumers of this process.
    async fn server(&self, conf: &Config) -> Result<Arc<Server>, CommunicationError> {
        let place = place(conf)?;
        let mut servers = self.servers.lock().await;
        servers.retain(|_, server| server.strong_count() > 0);
        if let Some(server) = servers.get(&place).and_then(Weak::upgrade) {
            return Ok(server);
        }
        let server = Arc::new(Server::listen(&place.0, place.1, conf).await?);
        servers.insert(place, Arc::downgrade(&server));
        Ok(server)
    }
}

fn place(conf: &Config) -> Result<(String, u16), ConfigError> {
    if conf.tls {
        let why = "open a TLS pipe and hand it to `OverPipe`";
        return Err(ConfigError::Both { a: "protocol: pipe", b: "tls", why });
    }
    let named = [
        ("user", conf.user.is_some()),
        ("password", conf.password.is_some()),
        ("vhost", conf.vhost.is_some()),
        ("ca_file", conf.ca_file.is_some()),
    ];
    if let Some((key, _)) = named.into_iter().find(|(_, is_set)| *is_set) {
        let why = "a pipe asks nobody for it, and who relies on it is not protected";
        return Err(ConfigError::Both { a: "protocol: pipe", b: key, why });
    }
    let host = conf.needed("host", conf.host.as_deref())?;
    Ok((host.to_owned(), *conf.needed("port", conf.port.as_ref())?))
}

/// TCP's own signs of life, since frames have none: a connection without one for twice as long is dead. It is asked for them
/// where nothing is on its way; where something is, its acknowledgement is one, and the system asks for no other.
fn signs_of_life(net: NetConf, conf: &Config) -> NetConf {
    const PROBES: u32 = 4;
    /// The longest time before the first question that Linux takes (MAX_TCP_KEEPIDLE).
    const IDLE: Duration = Duration::from_secs(32_767);
    let heartbeat = Duration::from_secs(conf.heartbeat.into());
    if heartbeat.is_zero() {
        return net;
    }
    let interval = (heartbeat / PROBES).max(Duration::from_secs(1));
    net.keepalive(Keepalive { idle: heartbeat.min(IDLE), interval, retries: PROBES }).user_timeout(2 * heartbeat)
}

impl Backend for Direct {
    fn outlet<'a>(&'a self, conf: &'a Config, _calls: bool) -> Boxed<'a, Result<Box<dyn Outlet>, CommunicationError>> {
        Box::pin(async move { Ok(Box::new(Client::connect(place(conf)?, conf).await?) as Box<dyn Outlet>) })
    }

    fn inlet<'a>(
        &'a self,
        conf: &'a Config,
        counters: Counters,
    ) -> Boxed<'a, Result<Box<dyn Inlet>, CommunicationError>> {
        Box::pin(async move {
            let server = self.server(conf).await?;
            let inlet = MemoryInlet::open(server.broker().clone(), conf, counters)?;
            Ok(Box::new(Served { inlet, server }) as Box<dyn Inlet>)
        })
    }
}

/// Answers that were given are written before a consumer's pipes end, if that takes no longer.
const WRITTEN: Duration = Duration::from_secs(2);

async fn close(inlet: &mut MemoryInlet, broker: &Broker) {
    inlet.close().await;
    if timeout(WRITTEN, broker.answers().none()).await.is_err() {
        tracing::debug!("who called does not take its answer");
    }
}

/// A consumer that keeps its server listening.
struct Served {
    inlet: MemoryInlet,
    server: Arc<Server>,
}

impl Inlet for Served {
    fn next(&mut self) -> Boxed<'_, Result<Job, CommunicationError>> {
        self.inlet.next()
    }

    fn stop(&mut self) -> Boxed<'_, ()> {
        self.inlet.stop()
    }

    fn close(&mut self) -> Boxed<'_, ()> {
        Box::pin(close(&mut self.inlet, self.server.broker()))
    }
}

/// The backend over one pipe that is there already: TCP, TLS, Unix, memory, or to a peer behind a NAT.
///
/// Each end makes one. Consumers at one end serve the producers at the other. When the pipe ends, pushes and calls over
/// it fail with `Lost`, and consumers go on with what has come.
#[derive(Clone)]
pub struct OverPipe {
    link: Arc<Link>,
    broker: Arc<Broker>,
}

impl OverPipe {
    /// Takes a stream pipe that nobody else reads or writes. The other end may send bodies of up to 16 MiB.
    pub async fn new(pipe: Pipe) -> Self {
        Self::with_max_body(pipe, BODY).await
    }

    /// As [`new`](Self::new), with another limit for bodies that come in, in bytes.
    pub async fn with_max_body(pipe: Pipe, limit: usize) -> Self {
        let broker = Arc::new(Broker::default());
        let link = Arc::new(Link::start(pipe, broker.clone(), Terms::alone(limit)).await);
        Self { link, broker }
    }
}

impl Backend for OverPipe {
    fn outlet<'a>(&'a self, conf: &'a Config, _calls: bool) -> Boxed<'a, Result<Box<dyn Outlet>, CommunicationError>> {
        let outlet = Linked { link: self.link.clone(), conf: conf.clone() };
        Box::pin(async move { Ok(Box::new(outlet) as Box<dyn Outlet>) })
    }

    fn inlet<'a>(
        &'a self,
        conf: &'a Config,
        counters: Counters,
    ) -> Boxed<'a, Result<Box<dyn Inlet>, CommunicationError>> {
        let (link, broker) = (self.link.clone(), self.broker.clone());
        Box::pin(async move {
            let inlet = MemoryInlet::open(broker.clone(), conf, counters)?;
            Ok(Box::new(OnLink { inlet, broker, _link: link }) as Box<dyn Inlet>)
        })
    }
}

/// A consumer that keeps its pipe open.
struct OnLink {
    inlet: MemoryInlet,
    broker: Arc<Broker>,
    _link: Arc<Link>,
}

impl Inlet for OnLink {
    fn next(&mut self) -> Boxed<'_, Result<Job, CommunicationError>> {
        self.inlet.next()
    }

    fn stop(&mut self) -> Boxed<'_, ()> {
        self.inlet.stop()
    }

    fn close(&mut self) -> Boxed<'_, ()> {
        Box::pin(close(&mut self.inlet, &self.broker))
    }
}

/// A producer on a pipe that is there.
struct Linked {
    link: Arc<Link>,
    conf: Config,
}

impl Outlet for Linked {
    fn push<'a>(&'a self, key: &'a str, payload: Payload) -> Boxed<'a, Result<(), CommunicationError>> {
        Box::pin(self.link.push(&self.conf, key, payload))
    }

    fn call<'a>(&'a self, key: &'a str, payload: Payload) -> Boxed<'a, Result<Payload, CommunicationError>> {
        Box::pin(self.link.call(&self.conf, key, payload))
    }

    /// The pipe belongs to the `OverPipe`, and others may use it.
    fn close(&self) -> Boxed<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Direct")
    }
}

impl fmt::Debug for OverPipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OverPipe({})", self.link.target())
    }
}
