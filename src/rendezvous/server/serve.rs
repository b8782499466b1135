//! Waits: a rendezvous server on real sockets.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::super::counters::Counters;
use super::super::limits::Limits;
use super::registry::{Conn, Registry};
use super::session;
use crate::base::task::Nursery;
use crate::key::{Carrier, Identity, PeerId, ServerUrl, UrlError, tls};
use crate::net::{Family, SocketError, SocketOptions, SocketStep, socket};
use crate::stun;

/// How many ports of the kernel's choice are tried until one is free over UDP and TCP.
const PORTS_TRIED: usize = 16;
/// How often the registry is told the time.
const TICK: Duration = Duration::from_secs(1);
/// After an error of `accept` (no file descriptor left): others must get a chance to end.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the sessions may take to say goodbye.
const PARTING: Duration = Duration::from_secs(3);

/// Why a server could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address can not be had: it is in use, or not this machine's. Choose another.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// STUN can not be served there.
    #[error(transparent)]
    Stun(#[from] stun::ServeError),
    /// The identity can not be used for TLS.
    #[error("the identity can not be used for TLS")]
    Identity(#[source] rustls::Error),
    /// The host that was given is none that a URL can have.
    #[error(transparent)]
    Host(#[from] UrlError),
    /// It was started outside a tokio runtime.
    #[error("a rendezvous server needs a tokio runtime")]
    NoRuntime,
}

impl ServeError {
    fn is_in_use(&self) -> bool {
        match self {
            Self::Socket(error) | Self::Stun(stun::ServeError::Socket(error)) => {
                error.source.kind() == std::io::ErrorKind::AddrInUse
            }
            _ => false,
        }
    }
}

/// A rendezvous server that is not yet running.
#[derive(Clone, Debug)]
pub struct ServerBuilder {
    listen: SocketAddr,
    listen2: Option<SocketAddr>,
    identity: Identity,
    host: Option<String>,
    limits: Limits,
}

impl ServerBuilder {
    /// A second address for STUN, so that clients can test how their NAT filters: of the same family, another IP address and
    /// another port ([`stun::ServerBuilder::listen2`]).
    pub fn listen2(mut self, addr: SocketAddr) -> Self {
        self.listen2 = Some(addr);
        self
    }

    /// The name or address by which others reach the server, for its URL. Default: the address that it listens on; on
    /// the any-address, the one from which this machine would reach the Internet.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// What it grants. Default: [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Binds all sockets and begins to serve. Port 0 means a free one.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn start(self) -> Result<Server, ServeError> {
        let runtime = Handle::try_current().map_err(|_| ServeError::NoRuntime)?;
        let config = tls::server_config(&self.identity, tls::Allowed::anyone(), &[super::super::ALPN]);
        let (stun, listener) = self.bind_free()?;
        let addr = stun.addr();
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner { registry: Registry::new(self.limits.clone()), bells: HashMap::new() }),
            tls: TlsAcceptor::from(config.map_err(ServeError::Identity)?),
            stun: stun.streams(),
            stop: Notify::new(),
        });
        let host = self.host.unwrap_or_else(|| shown_host(addr).to_string());
        let url = ServerUrl::new(Carrier::Natpipe, &host, addr.port(), self.identity.peer_id())?;
        let mut task = Nursery::new(&runtime);
        task.begin(accept(shared.clone(), listener, runtime.clone()));
        Ok(Server { shared, stun, addr, url, task })
    }

    fn bind_free(&self) -> Result<(stun::Server, TcpListener), ServeError> {
        let mut bound = self.bind();
        for _ in 1..if self.listen.port() == 0 { PORTS_TRIED } else { 1 } {
            match &bound {
                Err(error) if error.is_in_use() => bound = self.bind(),
                _ => break,
            }
        }
        bound
    }

    fn bind(&self) -> Result<(stun::Server, TcpListener), ServeError> {
        let builder = stun::Server::listen(self.listen).streams_are_handed_over();
        let stun = self.listen2.into_iter().fold(builder, stun::ServerBuilder::listen2).start()?;
        let addr = stun.addr();
        let options = SocketOptions { reuse_addr: true, ..SocketOptions::default() };
        let listener = socket::listener(&addr.into(), &options)?;
        let listener = TcpListener::from_std(listener.into());
        let failed = |source| SocketError { step: SocketStep::Register, target: addr.to_string(), source };
        Ok((stun, listener.map_err(failed)?))
    }
}

/// An address that others may reach.
fn shown_host(addr: SocketAddr) -> IpAddr {
    match addr.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => socket::source_towards_internet(Family::V4).unwrap_or(Family::V4.loopback()),
        IpAddr::V6(_) => socket::source_towards_internet(Family::V4)
            .or_else(|| socket::source_towards_internet(Family::V6))
            .unwrap_or(Family::V6.loopback()),
    }
}

/// A running rendezvous server. Dropping it ends it at once; [`close`](Self::close) says goodbye first.
///
/// ```
/// use natpipe::Identity;
/// use natpipe::rendezvous::{Client, Server};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::listen("127.0.0.1:0".parse()?, Identity::generate()?).start().await?;
/// let (ann, bob) = (Identity::generate()?, Identity::generate()?);
/// let at_ann = Client::connect(&server.url(), &ann).await?;
/// let at_bob = Client::connect(&server.url(), &bob).await?;
///
/// let to_bob = at_ann.signal(bob.peer_id())?;
/// to_bob.send("hello").await?;
/// let from_ann = at_bob.accept().await?;
/// assert_eq!((from_ann.peer(), &from_ann.recv().await?[..]), (ann.peer_id(), &b"hello"[..]));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    stun: stun::Server,
    addr: SocketAddr,
    url: ServerUrl,
    task: Nursery<()>,
}

impl Server {
    /// A server at this address: TLS and STUN over TCP, STUN over UDP, on one port.
    pub fn listen(addr: SocketAddr, identity: Identity) -> ServerBuilder {
        ServerBuilder { listen: addr, listen2: None, identity, host: None, limits: Limits::default() }
    }

    /// What peers are told to find the server and to know it.
    pub fn url(&self) -> ServerUrl {
        self.url.clone()
    }

    /// The address, with its real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where STUN is answered over UDP: one address, or the four of two addresses by two ports.
    pub fn stun_addrs(&self) -> &[SocketAddr] {
        self.stun.addrs()
    }

    /// What was seen so far, and what is held now.
    pub fn counters(&self) -> Counters {
        Counters { stun: self.stun.counters().answered, ..self.shared.with(|registry, _| registry.counters()) }
    }

    /// Takes no more connections, tells the peers that the server stops, and returns when all have heard it or after a
    /// few seconds.
    pub async fn close(mut self) {
        self.shared.stop.notify_one();
        // After that they are ended.
        let _ = timeout(PARTING + PARTING, self.task.next()).await;
    }
}

/// What the tasks of a server share.
pub(super) struct Shared {
    inner: Mutex<Inner>,
    pub(super) tls: TlsAcceptor,
    pub(super) stun: stun::Streams,
    stop: Notify,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    /// Wakes the session of each connection.
    bells: HashMap<Conn, Arc<Notify>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Inner {
    fn ring(&mut self) {
        while let Some(conn) = self.registry.poll_wake() {
            if let Some(bell) = self.bells.get(&conn) {
                bell.notify_one();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One turn of the registry, and then its wakes.
    pub(super) fn with<R>(&self, turn: impl FnOnce(&mut Registry, Instant) -> R) -> R {
        let mut inner = self.lock();
        let done = turn(&mut inner.registry, Instant::now());
        inner.ring();
        done
    }

    pub(super) fn register(&self, peer: PeerId, ip: IpAddr, bell: &Arc<Notify>) -> Conn {
        let mut inner = self.lock();
        let conn = inner.registry.handle_registration(Instant::now(), peer, ip);
        inner.bells.insert(conn, bell.clone());
        inner.ring();
        conn
    }

    pub(super) fn leave(&self, conn: Conn) {
        let mut inner = self.lock();
        inner.bells.remove(&conn);
        inner.registry.handle_gone(conn);
        inner.ring();
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, runtime: Handle) {
    let mut sessions = Nursery::new(&runtime);
    let mut tick = interval(TICK);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    if shared.with(|registry, now| registry.handle_arrival(now, from.ip())) {
                        sessions.begin(session::serve(shared.clone(), stream, from));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    sleep(PAUSE).await;
                }
            },
            _ = sessions.next(), if !sessions.is_empty() => {}
            _ = tick.tick() => shared.with(|registry, now| registry.handle_timeout(now)),
            () = shared.stop.notified() => break,
        }
    }
    drop(listener);
    shared.with(|registry, _| registry.handle_stop());
    let gone = async {
        while !sessions.is_empty() {
            sessions.next().await;
        }
    };
    if timeout(PARTING, gone).await.is_err() {
        tracing::debug!("some peers do not hear that the server stops");
    }
}
