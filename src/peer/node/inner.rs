//! Waits: what all tasks of a node share: its sessions, its clients at rendezvous servers, its doors.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::doors::{Doors, interfaces};
use super::secure::Me;
use crate::key::tls::Allowed;
use crate::key::{OneTime, PeerId, ServerUrl};
use crate::net::{Family, Interface, Resolver, Route};
use crate::peer::greeting::Greeting;
use crate::peer::session::{Carrier, ChannelKind, Keep, Role, SessionId, Shared};
use crate::peer::{PathInfo, PathKind};
use crate::punch::Puncher;
use crate::rendezvous::{self, Client, ClientBuilder, ConnectError, Proxy};
use crate::turn::TurnServer;

/// How long a name may take to be resolved.
const RESOLVE: Duration = Duration::from_secs(5);

/// Sessions of others at one time.
const SESSIONS: usize = 1024;

/// A channel that a peer has opened.
pub(super) struct Opened {
    pub(super) keep: Arc<Keep>,
    pub(super) id: u32,
    pub(super) kind: ChannelKind,
}

/// Which strategies are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ways {
    pub(super) direct: bool,
    pub(super) relay: bool,
}

pub(super) struct Inner {
    pub(super) me: Me,
    pub(super) runtime: Handle,
    pub(super) ways: Ways,
    pub(super) allowed: Allowed,
    pub(super) stun: Vec<SocketAddr>,
    pub(super) turn: Vec<TurnServer>,
    pub(super) interfaces: Vec<String>,
    proxy: Option<Proxy>,
    pub(super) doors: Option<Doors>,
    /// One-time secrets, where only their holders are let in.
    pub(super) secrets: Option<Mutex<OneTime>>,
    pub(super) opened: mpsc::Sender<Opened>,
    /// Counts the changes of this machine's network.
    pub(super) changes: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clients: Vec<(ServerUrl, Client)>,
    /// Whose turn it is to register at a server.
    registering: HashMap<ServerUrl, Arc<tokio::sync::Mutex<()>>>,
    /// Sessions that others have begun.
    answered: HashMap<(PeerId, SessionId), Arc<Keep>>,
    /// Sessions that were begun here.
    called: HashMap<PeerId, Weak<Keep>>,
    /// Who waits to be connected back to.
    awaited: HashMap<SessionId, mpsc::Sender<TcpStream>>,
}

impl Inner {
    #[expect(clippy::too_many_arguments, reason = "one place, from the builder")]
    pub(super) fn new(
        me: Me,
        runtime: Handle,
        ways: Ways,
        allowed: Allowed,
        stun: Vec<SocketAddr>,
        turn: Vec<TurnServer>,
        interfaces: Vec<String>,
        proxy: Option<Proxy>,
        doors: Option<Doors>,
        secrets: Option<OneTime>,
        opened: mpsc::Sender<Opened>,
    ) -> Self {
        let secrets = secrets.map(Mutex::new);
        let changes = watch::Sender::new(0);
        Self {
            me,
            runtime,
            ways,
            allowed,
            stun,
            turn,
            interfaces,
            proxy,
            doors,
            secrets,
            opened,
            changes,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- rendezvous

    /// Our registration at a server; made when there is none.
    pub(super) async fn client(&self, url: &ServerUrl) -> Result<Client, ConnectError> {
        // One at a time: a second registration with our key would replace the first.
        let turn = self.lock().registering.entry(url.clone()).or_default().clone();
        let _turn = turn.lock().await;
        if let Some(client) = self.registered().into_iter().find(|client| client.url() == url) {
            return Ok(client);
        }
        let builder = Client::builder(url, &self.me);
        let client = self.proxy.iter().cloned().fold(builder, ClientBuilder::proxy).connect().await?;
        let mut state = self.lock();
        state.clients.retain(|(known, _)| known != url);
        state.clients.push((url.clone(), client.clone()));
        Ok(client)
    }

    /// Those that stand, or come back by themselves.
    pub(super) fn registered(&self) -> Vec<Client> {
        let lives = |client: &&Client| !matches!(*client.state().borrow(), rendezvous::State::Closed { .. });
        self.lock().clients.iter().map(|(_, client)| client).filter(lives).cloned().collect()
    }

    /// Lets all look whether they are still connected.
    pub(super) fn check_clients(&self) {
        self.registered().iter().for_each(Client::check);
    }

    /// This machine's network is another one: what stands on the old one is looked at, and better ways are looked for.
    pub(super) fn handle_change(&self) {
        tracing::debug!("the network has changed");
        self.check_clients();
        let here: Vec<IpAddr> =
            interfaces(|_| true).iter().flat_map(|i| i.addrs().iter().map(|addr| addr.ip)).collect();
        self.sessions().iter().for_each(|session| session.0.handle_change(&here));
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Takes all registrations back.
    pub(super) fn take_clients(&self) -> Vec<Client> {
        std::mem::take(&mut self.lock().clients).into_iter().map(|(_, client)| client).collect()
    }

    // ---- punching

    /// What to punch with: all our routes, and where STUN is answered.
    pub(super) async fn puncher(&self, servers: &[ServerUrl]) -> Puncher {
        let mut puncher = Puncher::new();
        for interface in interfaces(|interface| self.wants(interface)) {
            for family in [Family::V4, Family::V6] {
                if let Ok(route) = interface.route(family)
                    && is_useful(&route)
                {
                    puncher = puncher.route(&route);
                }
            }
        }
        self.stun_servers(servers).await.into_iter().fold(puncher, Puncher::stun)
    }

    /// Where STUN is answered: the servers that were named, and rendezvous servers, which answer it too.
    pub(super) async fn stun_servers(&self, servers: &[ServerUrl]) -> Vec<SocketAddr> {
        let mut stun = self.stun.clone();
        for server in servers {
            for ip in resolve(server.host()).await {
                stun.push(SocketAddr::new(ip, server.port()));
            }
        }
        stun
    }

    pub(super) fn wants(&self, interface: &Interface) -> bool {
        self.interfaces.is_empty() || self.interfaces.iter().any(|name| name == interface.name())
    }

    // ---- sessions

    /// An authenticated path of a caller: to the session that it names, or to a new one.
    pub(super) fn admit(self: &Arc<Self>, peer: PeerId, greeting: &Greeting, carrier: Carrier, info: PathInfo) {
        if !self.allowed.lets_in(peer) {
            tracing::info!(%peer, "a peer that is not allowed was turned away");
            return;
        }
        let Some(keep) = self.session(peer, greeting) else { return };
        keep.0.attach(carrier, info);
    }

    fn session(self: &Arc<Self>, peer: PeerId, greeting: &Greeting) -> Option<Arc<Keep>> {
        let mut state = self.lock();
        let key = (peer, greeting.session);
        if let Some(keep) = state.answered.get(&key) {
            return Some(keep.clone());
        }
        if state.answered.len() >= SESSIONS {
            tracing::warn!(%peer, "too many sessions: a peer was turned away");
            return None;
        }
        if !self.uses_up(greeting) {
            tracing::info!(%peer, "a peer without a good one-time ticket was turned away");
            return None;
        }
        let keep = Shared::begin(&self.runtime, peer, greeting.session, Role::Answerer);
        state.answered.insert(key, keep.clone());
        drop(state);
        crate::base::task::drive(&self.runtime, attend(Arc::downgrade(self), keep.clone(), self.opened.clone()));
        Some(keep)
    }

    fn uses_up(&self, greeting: &Greeting) -> bool {
        let Some(secrets) = &self.secrets else { return true };
        let mut secrets = secrets.lock().unwrap_or_else(PoisonError::into_inner);
        greeting.secret.as_ref().is_some_and(|secret| secrets.use_up(secret))
    }

    pub(super) fn called(&self, peer: PeerId) -> Option<Arc<Keep>> {
        let keep = self.lock().called.get(&peer)?.upgrade()?;
        let over = keep.0.ended().borrow().is_some();
        (!over).then_some(keep)
    }

    pub(super) fn remember(&self, keep: &Arc<Keep>) {
        let mut state = self.lock();
        state.called.retain(|_, keep| keep.strong_count() > 0);
        state.called.insert(keep.0.peer, Arc::downgrade(keep));
    }

    /// All sessions, of both kinds.
    pub(super) fn sessions(&self) -> Vec<Arc<Keep>> {
        let state = self.lock();
        let called = state.called.values().filter_map(Weak::upgrade);
        state.answered.values().cloned().chain(called).collect()
    }

    fn forget(&self, peer: PeerId, session: SessionId) {
        self.lock().answered.remove(&(peer, session));
    }

    // ---- being connected back to

    pub(super) fn await_back(&self, session: SessionId) -> mpsc::Receiver<TcpStream> {
        let (tell, told) = mpsc::channel(4);
        self.lock().awaited.insert(session, tell);
        told
    }

    pub(super) fn await_no_more(&self, session: SessionId) {
        self.lock().awaited.remove(&session);
    }

    pub(super) fn came_back(&self, session: SessionId, stream: TcpStream) {
        let waits = self.lock().awaited.get(&session).cloned();
        // Whoever nobody waits for is dropped, and one over the few that are taken.
        let taken = waits.is_some_and(|waits| waits.try_send(stream).is_ok());
        tracing::debug!(taken, "connected back to");
    }
}

/// Passes on the channels that a peer opens, and has the servers looked at when its path falls silent, until the session is
/// over.
async fn attend(node: Weak<Inner>, keep: Arc<Keep>, opened: mpsc::Sender<Opened>) {
    loop {
        let next = tokio::select! {
            next = std::future::poll_fn(|cx| keep.0.poll_accept(cx)) => next,
            () = keep.0.ailing.notified() => {
                if let Some(node) = node.upgrade() {
                    node.check_clients();
                }
                continue;
            }
        };
        let Ok((id, kind)) = next else { break };
        if opened.send(Opened { keep: keep.clone(), id, kind }).await.is_err() {
            break;
        }
    }
    if let Some(node) = node.upgrade() {
        node.forget(keep.0.peer, keep.0.id);
    }
}

/// Neither this machine alone nor one link only.
fn is_useful(route: &Route) -> bool {
    route.nic().iter().any(|ip| {
        let link = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        !ip.is_loopback() && !link
    })
}

async fn resolve(host: &str) -> Vec<IpAddr> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return vec![ip];
    }
    let Ok(resolver) = Resolver::system() else { return Vec::new() };
    let (v4, v6) = tokio::join!(resolver.lookup(host, Family::V4, RESOLVE), resolver.lookup(host, Family::V6, RESOLVE));
    [v4, v6].into_iter().filter_map(Result::ok).filter_map(|found| found.first().copied()).collect()
}

/// An IPv4 address as such, also at a door that is open to both families.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// A path over a connection whose addresses are known.
pub(super) fn tcp_path(kind: PathKind, stream: &TcpStream) -> PathInfo {
    PathInfo {
        kind,
        proto: crate::nat::Proto::Tcp,
        local: stream.local_addr().ok().map(canonical),
        remote: stream.peer_addr().ok().map(canonical),
        rtt: None,
    }
}
