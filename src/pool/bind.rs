//! Waits: listening for members.

use std::future::{Future, IntoFuture};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use super::admit::{self, Admission, Origins, Visitor};
use super::core::Core;
use super::member::{Birth, Member};
use super::session::Session;
use super::wire::{Counted, Delimited, Wire};
use super::{BindError, Con, Event, conf, url};
use crate::base::task;
use crate::frame::sniff::{self, First};
use crate::frame::ws::{self, Incoming, Refusal, Role, WebSocket};
use crate::pipe::{Addr, Dest, NetConf, Pipe, Proto, RecvError, pipe_open};

/// Connections that are on their way to become members, at once, for one listener.
const HANDSHAKES: usize = 512;
/// How long a Unix client may be silent before it is taken for one of the seed's, which waits to be spoken to; a
/// WebSocket's client speaks at once.
const SILENT: Duration = Duration::from_millis(300);

/// A listener that is about to be opened; awaiting it opens it.
#[must_use = "it does nothing until it is awaited"]
pub struct Bind {
    core: Arc<Core>,
    proto: Proto,
    local: Dest,
    net: NetConf,
    ws: ws::Conf,
    admission: Admission,
}

impl Bind {
    pub(super) fn new(core: Arc<Core>, proto: Proto, local: Dest) -> Self {
        let ws = core.conf.ws();
        let admission = Admission { path: Some(url::PATH.into()), origins: Origins::same(), hook: None };
        Self { core, proto, local, net: NetConf::default().nodelay(true), ws, admission }
    }

    /// The options of the socket; with `tls_server` it is `wss://`. Nagle's delay is off unless these say otherwise.
    pub fn conf(self, net: NetConf) -> Self {
        Self { net, ..self }
    }

    /// The path of the URL. Default `/ws`; others are answered 404.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.admission.path = Some(path.into());
        self
    }

    /// Takes any path; [`Con::path`] tells which it was.
    pub fn any_path(mut self) -> Self {
        self.admission.path = None;
        self
    }

    /// Which pages may connect from a browser. Default: those of the same host and port.
    pub fn origins(mut self, origins: Origins) -> Self {
        self.admission.origins = origins;
        self
    }

    /// Asks `hook` about each who wants to become a member, before the upgrade; a [`Refusal`] is what it gets then.
    pub fn authenticate<F, R>(mut self, hook: F) -> Self
    where
        F: Fn(Visitor) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        self.admission.hook = Some(Arc::new(move |visitor| Box::pin(hook(visitor))));
        self
    }

    /// Lets in only who sends this bearer token (RFC 6750); others are answered 401. It is compared in constant time.
    pub fn bearer(mut self, token: impl Into<String>) -> Self {
        self.admission.hook = Some(admit::bearer(token.into()));
        self
    }

    /// A header of the response that accepts.
    pub fn header(self, name: http::HeaderName, value: http::HeaderValue) -> Self {
        Self { ws: self.ws.header(name, value), ..self }
    }

    async fn open(self) -> Result<Bound, BindError> {
        let Self { core, proto, local, net, ws, admission } = self;
        if core.is_closed() {
            return Err(BindError::Closed);
        }
        let tls = is_tls(&net);
        let server = pipe_open(proto).bind(local).conf(net).await?;
        let url = url_of(server.local_addr(), tls, admission.path.as_deref());
        let bound = Bound { server: server.clone(), url, stop: watch::Sender::new(false) };
        let listener = Listener { entry: Arc::new(Entry { core: core.clone(), ws, admission }), server };
        let (guard, mut stop) = (core.task(), bound.stop.subscribe());
        task::drive(&Handle::current(), async move {
            let _counted = guard;
            tokio::select! {
                () = listener.run() => {}
                () = core.closed() => {}
                // Only a stop, not the end of the handle, ends the listening.
                Ok(_) = stop.wait_for(|stop| *stop) => {}
            }
            listener.server.stop_listening().await;
        });
        Ok(bound)
    }
}

#[cfg(feature = "tls")]
fn is_tls(net: &NetConf) -> bool {
    net.use_ssl
}

#[cfg(not(feature = "tls"))]
fn is_tls(_: &NetConf) -> bool {
    false
}

#[cfg(feature = "tls")]
fn certificate(pipe: &Pipe) -> Option<bytes::Bytes> {
    pipe.peer_certificate()
}

#[cfg(not(feature = "tls"))]
fn certificate(_: &Pipe) -> Option<bytes::Bytes> {
    None
}

/// Where clients on this machine find it.
fn url_of(local: &Addr, tls: bool, path: Option<&str>) -> String {
    match local {
        Addr::Ip(addr) => {
            let ip = match addr.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            let at = SocketAddr::new(ip, addr.port());
            format!("{}://{at}{}", if tls { "wss" } else { "ws" }, path.unwrap_or(url::PATH))
        }
        Addr::Unix(path) => format!("unix:{}", path.display()),
        _ => String::new(),
    }
}

impl IntoFuture for Bind {
    type Output = Result<Bound, BindError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.open())
    }
}

/// A pool's listener. Dropping it leaves it to the pool, which listens until it is closed.
#[derive(Debug)]
pub struct Bound {
    server: Pipe,
    url: String,
    stop: watch::Sender<bool>,
}

impl Bound {
    /// Where it listens; port 0 has become the kernel's choice.
    pub fn local_addr(&self) -> &Addr {
        self.server.local_addr()
    }

    /// What a client on this machine gives to [`Pool::client`](super::Pool::client).
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops listening; the members stay.
    pub async fn close(self) {
        self.stop.send_replace(true);
        self.server.ended().await;
    }
}

/// What a listener makes of a connection.
pub(super) struct Entry {
    pub(super) core: Arc<Core>,
    pub(super) ws: ws::Conf,
    pub(super) admission: Admission,
}

struct Listener {
    entry: Arc<Entry>,
    server: Pipe,
}

impl Listener {
    async fn run(&self) {
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        while let Ok(pipe) = self.server.accept().await {
            // It is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let (entry, guard) = (self.entry.clone(), self.entry.core.task());
            task::drive(&Handle::current(), async move {
                let _counted = guard;
                let entering = async {
                    let entered = entry.enter(pipe).await;
                    drop(place);
                    entered
                };
                let entered = tokio::select! {
                    entered = entering => entered,
                    () = entry.core.closed() => return,
                };
                match entered {
                    Ok((_, session)) => {
                        session.await;
                    }
                    Err(error) => entry.core.tell(Event::Refused { why: error.to_string() }),
                }
            });
        }
    }
}

impl Entry {
    /// Makes a member of a pipe, whatever it speaks.
    pub(super) async fn enter(&self, pipe: Pipe) -> Result<(Con, Session), BindError> {
        let unix = matches!(pipe.local_addr(), Addr::Unix(_));
        if unix && self.is_delimited(&pipe).await? {
            return self.enter_delimited(pipe).await;
        }
        let (peer, certificate) = (pipe.peer_addr().cloned(), certificate(&pipe));
        let incoming = Incoming::read(Counted::new(pipe.into_stream().await), &self.ws).await?;
        if let Err(refusal) = self.judge(incoming.request(), peer.clone(), certificate).await {
            return Err(incoming.refuse(refusal).await.into());
        }
        let path = incoming.request().uri().path().into();
        let accepted = incoming.accept(&self.ws).await?;
        let kin = accepted.subprotocol.is_some_and(|spoken| spoken == conf::SUBPROTOCOL);
        self.add(Birth { role: Role::Server, peer, path, kin }, Wire::Ws(Box::new(accepted.socket)))
    }

    /// Whether this client of a Unix socket speaks the seed's framing: its first byte is no HTTP, or there is none.
    async fn is_delimited(&self, pipe: &Pipe) -> Result<bool, BindError> {
        match sniff::pipe(pipe, SILENT).await {
            Ok(First::Http) => Ok(false),
            Ok(_) | Err(RecvError::TimedOut(_)) => Ok(true),
            Err(error) => Err(ws::UpgradeError::Io(error.into()).into()),
        }
    }

    async fn enter_delimited(&self, pipe: Pipe) -> Result<(Con, Session), BindError> {
        // It has no request that a hook could see.
        if self.admission.hook.is_some() {
            pipe.close().await;
            return Err(ws::UpgradeError::Refused(Refusal::forbidden("this framing carries no credentials")).into());
        }
        let limit = self.core.conf.max_message.saturating_add(self.core.conf.max_meta).saturating_add(1024);
        let peer = pipe.peer_addr().cloned();
        let wire = Wire::Delimited(Box::new(Delimited::new(Counted::new(pipe.into_stream().await), limit)));
        self.add(Birth { role: Role::Server, peer, path: "".into(), kin: false }, wire)
    }

    pub(super) async fn judge(
        &self,
        request: &http::Request<()>,
        peer: Option<Addr>,
        certificate: Option<bytes::Bytes>,
    ) -> Result<(), Refusal> {
        self.admission.judge(request)?;
        if let Some(hook) = &self.admission.hook {
            let mut copy = http::Request::new(());
            *copy.uri_mut() = request.uri().clone();
            *copy.headers_mut() = request.headers().clone();
            hook(Visitor { request: copy, peer, certificate }).await?;
        }
        if self.core.is_full() { Err(full()) } else { Ok(()) }
    }

    pub(super) fn add(&self, birth: Birth, wire: Wire) -> Result<(Con, Session), BindError> {
        let member = Member::new(birth, &self.core);
        if self.core.add(&member) {
            Ok((Con(member.clone()), Session::new(&self.core, member, wire)))
        } else if self.core.is_closed() {
            Err(BindError::Closed)
        } else {
            Err(ws::UpgradeError::Refused(full()).into())
        }
    }
}

fn full() -> Refusal {
    Refusal::new(http::StatusCode::SERVICE_UNAVAILABLE, "the pool has as many members as it may")
}

/// A member of a stream that another HTTP server has upgraded.
pub(super) async fn upgraded(
    entry: &Entry,
    birth: Birth,
    io: impl super::wire::Io + 'static,
) -> Result<(Con, Session), BindError> {
    let socket = WebSocket::after_upgrade(Counted::new(io), bytes::BytesMut::new(), Role::Server, &entry.ws).await;
    entry.add(birth, Wire::Ws(Box::new(socket)))
}
