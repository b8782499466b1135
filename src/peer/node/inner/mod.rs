//! Waits: what all tasks of a node share: its sessions, its clients at rendezvous servers, its doors.

mod places;
mod sessions;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, broadcast, mpsc, watch};

use super::doors::{Doors, interfaces};
use super::meeting::{Meet, Meeting};
use super::news::Elsewhere;
use super::ports::Ports;
use super::secure::Me;
use crate::key::tls::Allowed;
use crate::key::{OneTime, PeerId, ServerUrl, TicketAddress};
use crate::net::{Change, Family, Interface, Local, Resolver, Route};
use crate::peer::defaults::Public;
use crate::peer::session::{ChannelKind, Keep, SessionId, Shared};
use crate::peer::{Event, Multipath, PathInfo, PathKind};
use crate::pipe::tls::TlsClient;
use crate::punch::Puncher;
use crate::rendezvous::{Proxy, Signal};
use crate::stun::{self, ServerName};
use crate::turn::TurnServer;

/// How long a name may take to be resolved.
const RESOLVE: Duration = Duration::from_secs(5);

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

    /// This machine's network is another one: what stands on the old one is looked at, and better ways are looked for.
    pub(super) fn handle_change(&self, change: Change) {
        tracing::debug!(?change, "the network is another one, or may be");
        self.check_meetings();
        let listed: Vec<IpAddr> =
            interfaces(|_| true).iter().flat_map(|i| i.addrs().iter().map(|addr| addr.ip)).collect();
        for session in self.sessions() {
            session.0.handle_change(&here(&listed, &session.0.all_paths()));
        }
        self.changes.send_modify(|changes| *changes += 1);
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
}

/// The addresses that this machine has. A list without any is one that failed, as where no descriptors are left: then nothing that a
/// path stands on is known to be gone.
fn here(listed: &[IpAddr], paths: &[PathInfo]) -> Vec<IpAddr> {
    if !listed.is_empty() {
        return listed.to_vec();
    }
    paths.iter().filter_map(|path| path.local).map(|local| local.ip().to_canonical()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_interfaces_that_failed_takes_no_path_its_address() {
        let local = Some("[::ffff:192.0.2.7]:9".parse().unwrap());
        let proto = crate::nat::Proto::Tcp;
        let path = PathInfo { kind: PathKind::Direct, proto, local, remote: None, rtt: None };
        let other = [IpAddr::from([198, 51, 100, 1])];
        assert_eq!(here(&[], std::slice::from_ref(&path)), [IpAddr::from([192, 0, 2, 7])]);
        assert_eq!(here(&other, &[path]), other);
    }
}
