//! Waits: what all tasks of a node share: its sessions, its clients at rendezvous servers, its doors.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, broadcast, mpsc, watch};

use super::call::Called;
use super::doors::{Doors, interfaces};
use super::meeting::{Meet, MeetError, Meeting};
use super::news::Elsewhere;
use super::ports::Ports;
use super::secure::Me;
use crate::key::tls::Allowed;
use crate::key::{OneTime, PeerId, ServerUrl, TicketAddress};
use crate::net::{Change, Family, Interface, Local, Resolver, Route};
use crate::peer::defaults::Public;
use crate::peer::greeting::{Greeting, Topic};
use crate::peer::session::{Carrier, ChannelKind, Keep, Role, SessionId, Shared};
use crate::peer::{Event, Multipath, PathInfo, PathKind};
use crate::pipe::tls::TlsClient;
use crate::punch::Puncher;
use crate::rendezvous::{Client, ClientBuilder, ConnectError, Proxy, Signal};
use crate::stun::{self, ServerName};
use crate::turn::TurnServer;

/// How long a name may take to be resolved.
const RESOLVE: Duration = Duration::from_secs(5);

/// Sessions of others at one time.
const SESSIONS: usize = 1024;

/// Of these, one peer's.
const OF_A_PEER: usize = 64;

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
    pub(super) multipath: Multipath,
    pub(super) allowed: Allowed,
    pub(super) stun: Vec<SocketAddr>,
    pub(super) turn: Vec<TurnServer>,
    public: Public,
    /// Addresses of the public STUN servers, once they were needed.
    public_stun: OnceCell<Vec<SocketAddr>>,
    pub(super) interfaces: Vec<String>,
    proxy: Option<Proxy>,
    tls: Option<TlsClient>,
    pub(super) doors: Option<Doors>,
    /// One-time secrets, where only their holders are let in.
    pub(super) secrets: Option<Mutex<OneTime>>,
    pub(super) opened: mpsc::Sender<Opened>,
    /// Counts the changes of this machine's network.
    pub(super) changes: watch::Sender<u64>,
    /// Where the node is met by strangers.
    pub(super) places: OnceLock<Vec<Meet>>,
    /// Who takes the conversations that others begin.
    entered: mpsc::Sender<Meeting>,
    /// How long a session lives without any path.
    pub(super) patience: Duration,
    #[cfg(feature = "lan")]
    pub(super) lan: super::near::Near,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    meetings: Vec<Meeting>,
    /// Whose turn it is to register at a server.
    registering: HashMap<ServerUrl, Arc<tokio::sync::Mutex<()>>>,
    /// Sessions that others have begun.
    answered: HashMap<(PeerId, SessionId), Arc<Keep>>,
    /// Sessions that were begun here: several with one peer where its tickets are good once.
    called: HashMap<(PeerId, SessionId), Call>,
    /// Who waits to be connected back to.
    awaited: HashMap<SessionId, mpsc::Sender<TcpStream>>,
}

/// A session that was begun here.
struct Call {
    keep: Weak<Keep>,
    session: Weak<Shared>,
    /// Where its peer is beside what the ticket says.
    elsewhere: Arc<Elsewhere>,
    /// What is told of it, as long as there is anything.
    events: broadcast::WeakSender<Event>,
    /// Where its peer is met.
    places: Vec<Meet>,
}

impl Call {
    /// Until the last word.
    fn goes_on(&self) -> bool {
        self.session.upgrade().is_some_and(|session| session.ended().borrow().is_none())
    }
}

impl Inner {
    #[expect(clippy::too_many_arguments, reason = "one place, from the builder")]
    pub(super) fn new(
        me: Me,
        runtime: Handle,
        ways: Ways,
        multipath: Multipath,
        allowed: Allowed,
        stun: Vec<SocketAddr>,
        turn: Vec<TurnServer>,
        public: Public,
        interfaces: Vec<String>,
        proxy: Option<Proxy>,
        tls: Option<TlsClient>,
        doors: Option<Doors>,
        secrets: Option<OneTime>,
        opened: mpsc::Sender<Opened>,
        entered: mpsc::Sender<Meeting>,
        patience: Duration,
    ) -> Self {
        let secrets = secrets.map(Mutex::new);
        let changes = watch::Sender::new(0);
        #[cfg(feature = "lan")]
        let lan = super::near::Near::default();
        Self {
            #[cfg(feature = "lan")]
            lan,
            public,
            public_stun: OnceCell::new(),
            me,
            runtime,
            ways,
            multipath,
            allowed,
            stun,
            turn,
            interfaces,
            proxy,
            tls,
            doors,
            secrets,
            opened,
            changes,
            places: OnceLock::new(),
            entered,
            patience,
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- rendezvous

    /// Our presence at a place; made when there is none.
    pub(super) async fn meeting(&self, place: &Meet) -> Result<Meeting, MeetError> {
        match place {
            Meet::Server(url) => Ok(Meeting::Server(self.client(url).await?)),
            Meet::Brokers(_) => self.brokers(place).await,
        }
    }

    /// Whether strangers may begin conversations there.
    pub(super) fn serves(&self, meeting: &Meeting) -> bool {
        self.places.get().is_some_and(|places| places.iter().any(|place| meeting.is_at(place)))
    }

    /// Our registration at a server; made when there is none.
    async fn client(&self, url: &ServerUrl) -> Result<Client, ConnectError> {
        // One at a time: a second registration with our key would replace the first.
        let turn = self.lock().registering.entry(url.clone()).or_default().clone();
        let _turn = turn.lock().await;
        if let Some(Meeting::Server(client)) = self.present(&Meet::Server(url.clone())) {
            return Ok(client);
        }
        let builder = Client::builder(url, &self.me);
        let builder = self.proxy.iter().cloned().fold(builder, ClientBuilder::proxy);
        let client = self.tls.iter().cloned().fold(builder, ClientBuilder::web_tls).connect().await?;
        self.enter(Meeting::Server(client.clone()));
        Ok(client)
    }

    #[cfg(feature = "mqtt")]
    async fn brokers(&self, place: &Meet) -> Result<Meeting, MeetError> {
        use crate::rendezvous::{MqttBuilder, MqttClient};
        let found = self.present(place);
        let meeting = match (found, place) {
            (Some(meeting), _) => meeting,
            (None, Meet::Brokers(urls)) => {
                let builder = urls.iter().cloned().fold(MqttClient::builder(&self.me), MqttBuilder::broker);
                let builder = self.proxy.iter().cloned().fold(builder, MqttBuilder::proxy);
                let client = self.tls.iter().cloned().fold(builder, MqttBuilder::tls).start()?;
                let meeting = Meeting::Brokers(client);
                self.enter(meeting.clone());
                meeting
            }
            (None, Meet::Server(_)) => return Err(crate::rendezvous::BrokerError::NoBroker.into()),
        };
        Ok(meeting)
    }

    /// Has all places looked at: are we still there?
    pub(super) fn check_meetings(&self) {
        self.lock().meetings.iter().filter(|meeting| meeting.lives()).for_each(Meeting::check);
    }

    /// This machine's network is another one: what stands on the old one is looked at, and better ways are looked for.
    pub(super) fn handle_change(&self, change: Change) {
        tracing::debug!(?change, "the network is another one, or may be");
        self.check_meetings();
        let here: Vec<IpAddr> =
            interfaces(|_| true).iter().flat_map(|i| i.addrs().iter().map(|addr| addr.ip)).collect();
        self.sessions().iter().for_each(|session| session.0.handle_change(&here));
        self.changes.send_modify(|changes| *changes += 1);
    }

    #[cfg(not(feature = "mqtt"))]
    async fn brokers(&self, _: &Meet) -> Result<Meeting, MeetError> {
        Err(MeetError::NoMqtt)
    }

    fn enter(&self, meeting: Meeting) {
        let mut state = self.lock();
        state.meetings.retain(Meeting::lives);
        state.meetings.push(meeting.clone());
        drop(state);
        if self.entered.try_send(meeting).is_err() {
            tracing::debug!("the node is closed, or has too many places: nobody is heard at this one");
        }
    }

    /// Where we are now.
    pub(super) fn meetings(&self) -> Vec<Meeting> {
        self.lock().meetings.iter().filter(|meeting| meeting.lives()).cloned().collect()
    }

    /// Where we are now, if who is wanted there can be met.
    fn present(&self, place: &Meet) -> Option<Meeting> {
        let state = self.lock();
        let fits = |meeting: &&Meeting| meeting.lives() && meeting.is_at(place);
        state.meetings.iter().find(fits).cloned()
    }

    /// The servers where we are registered.
    pub(super) fn servers(&self) -> Vec<ServerUrl> {
        let state = self.lock();
        state.meetings.iter().filter(|meeting| meeting.lives()).filter_map(Meeting::server).cloned().collect()
    }

    /// Leaves the places where we are not to be met, and where nobody is whom we have called. A call has to be remembered before it
    /// goes to a place.
    pub(super) async fn leave_unwanted(&self) {
        let unwanted = {
            let mut state = self.lock();
            state.called.retain(|_, call| call.goes_on());
            let called: Vec<Meet> = state.called.values().flat_map(|call| call.places.iter().cloned()).collect();
            let is_wanted = |meeting: &Meeting| self.serves(meeting) || called.iter().any(|place| meeting.is_at(place));
            let (wanted, unwanted) = std::mem::take(&mut state.meetings).into_iter().partition::<Vec<_>, _>(is_wanted);
            state.meetings = wanted;
            state.registering.retain(|_, turn| Arc::strong_count(turn) > 1);
            unwanted
        };
        for meeting in unwanted {
            meeting.close().await;
        }
    }

    /// Leaves all places.
    pub(super) fn take_meetings(&self) -> Vec<Meeting> {
        std::mem::take(&mut self.lock().meetings)
    }

    // ---- gateways

    fn ports(&self) -> Option<&Arc<Ports>> {
        self.doors.as_ref().filter(|_| self.ways.direct)?.ports.get()
    }

    /// Waits until gateways let others in at addresses that are not among these; it keeps nothing alive.
    pub(super) fn more_addresses(&self, known: &[TicketAddress]) -> impl Future<Output = Vec<TicketAddress>> + use<> {
        let (found, known) = (self.ports().map(|ports| ports.found()), known.to_vec());
        async move {
            match found {
                Some(mut found) => found.more_than(&known).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Where gateways let others in now.
    pub(super) fn mapped(&self) -> Vec<TicketAddress> {
        self.ports().map(|ports| ports.addresses()).unwrap_or_default()
    }

    /// True when no gateway is asked any more.
    pub(super) fn gateways_have_answered(&self) -> bool {
        self.ports().is_none_or(|ports| ports.are_settled())
    }

    /// Tells the other end of a conversation where gateways let it in.
    pub(super) async fn tell_ports(&self, signal: &Signal) {
        if let Some(ports) = self.ports() {
            super::news::tell(ports, signal).await;
        }
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
        if stun.is_empty() {
            // None found, as where the network is not there yet: the next one asks again.
            let found = self.public_stun.get_or_try_init(|| async {
                let found = resolve_all(self.public.stun(0)).await;
                if found.is_empty() { Err(()) } else { Ok(found) }
            });
            stun.extend(found.await.into_iter().flatten());
        }
        stun
    }

    /// Where connections to an address begin: wherever the kernel's routes lead; where several paths are wanted, at each interface.
    pub(super) fn locals(&self, to: SocketAddr) -> Vec<Local> {
        let family = Family::of(to.ip());
        if self.multipath == Multipath::Off || to.ip().is_loopback() {
            return vec![Local::any(family)];
        }
        let routes = interfaces(|interface| self.wants(interface)).into_iter().filter_map(|i| i.route(family).ok());
        let locals: Vec<Local> = routes.filter(is_useful).map(|route| route.bind(0).local()).collect();
        if locals.len() < 2 { vec![Local::any(family)] } else { locals }
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
        let Ok(left) = state.in_the_way_of(peer) else {
            tracing::warn!(%peer, "too many sessions: a peer was turned away");
            return None;
        };
        if !self.uses_up(greeting) {
            tracing::info!(%peer, "a peer without a good one-time ticket was turned away");
            return None;
        }
        if let Some(left) = left.and_then(|left| state.answered.remove(&left)) {
            left.0.give_up();
        }
        let keep = Shared::begin(&self.runtime, peer, greeting.session, Role::Answerer, self.multipath, self.patience);
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

    /// A session with a peer that was begun here and goes on.
    pub(super) fn called(&self, peer: PeerId) -> Option<Called> {
        let state = self.lock();
        let theirs = state.called.iter().filter(|((of, _), _)| *of == peer).map(|(_, call)| call);
        let mut held =
            theirs.filter_map(|call| Some(Called { keep: call.keep.upgrade()?, events: call.events.upgrade()? }));
        held.find(|called| !called.keep.0.is_ending())
    }

    pub(super) fn remember(&self, called: &Called, elsewhere: Arc<Elsewhere>, places: Vec<Meet>) {
        let (keep, events) = (Arc::downgrade(&called.keep), called.events.downgrade());
        let mut state = self.lock();
        state.called.retain(|_, call| call.goes_on());
        let session = Arc::downgrade(&called.keep.0);
        state.called.insert((called.keep.0.peer, called.keep.0.id), Call { keep, session, elsewhere, events, places });
    }

    /// A peer that we have called says that it is elsewhere now.
    pub(super) fn handle_moved(
        &self,
        peer: PeerId,
        session: SessionId,
        number: u64,
        left: bool,
        addresses: Vec<TicketAddress>,
    ) {
        let known = {
            let state = self.lock();
            let call = state.called.get(&(peer, session));
            call.and_then(|call| Some((call.keep.upgrade()?, call.elsewhere.clone())))
        };
        match known {
            Some((keep, elsewhere)) => {
                if keep.0.handle_moved(number, left) && self.ways.direct {
                    elsewhere.replace(addresses);
                }
            }
            None => tracing::debug!(%peer, "the word of a peer that was not called"),
        }
    }

    /// What to tell each of those who have called us, when our network is another one.
    pub(super) fn moved(&self, number: u64) -> Vec<(PeerId, Vec<u8>)> {
        let doors = self.doors.as_ref().filter(|_| self.ways.direct);
        let addresses = doors.map(|doors| doors.addresses(|i| self.wants(i))).unwrap_or_default();
        let of = |keep: &Arc<Keep>| {
            let left = keep.0.good_path().is_none();
            let word = Topic::Moved { session: keep.0.id, number, left, addresses: addresses.clone() };
            (keep.0.peer, word.to_bytes())
        };
        self.lock().answered.values().map(of).collect()
    }

    /// All sessions, of both kinds.
    pub(super) fn sessions(&self) -> Vec<Arc<Keep>> {
        let state = self.lock();
        let called = state.called.values().filter_map(|call| call.keep.upgrade());
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

/// No session can be taken out for another.
struct Full;

impl State {
    /// The session that makes room for one of this peer, where that is needed: the one that nobody has come back to for longest,
    /// of the same peer, where that has its share.
    fn in_the_way_of(&self, peer: PeerId) -> Result<Option<(PeerId, SessionId)>, Full> {
        let of_peer = self.answered.keys().filter(|(of, _)| *of == peer).count();
        if self.answered.len() < SESSIONS && of_peer < OF_A_PEER {
            return Ok(None);
        }
        let fits = |of: &PeerId| of_peer < OF_A_PEER || *of == peer;
        let left = self.answered.iter().filter(|((of, _), _)| fits(of));
        let left = left.filter_map(|(key, keep)| Some((keep.0.orphaned()?, *key))).min_by_key(|(since, _)| *since);
        left.map(|(_, key)| Some(key)).ok_or(Full)
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
                    node.check_meetings();
                }
                continue;
            }
            // The node is gone: the session lives as long as its pipes, not as long as it has patience.
            () = opened.closed() => break,
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

/// One address of each family of each that is found.
async fn resolve_all(names: Vec<ServerName>) -> Vec<SocketAddr> {
    let found = stun::resolve(&names, &[Family::V4, Family::V6], None, RESOLVE, stun::PORT).await;
    found.addrs.into_iter().map(|(_, addr)| addr).collect()
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
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
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
