//! Waits: the report of this machine: every interface, family and protocol, on real sockets.
//!
//! [`Probe`] and [`Lifetime`] decide what is sent; `udp` and `tcp` carry it, `mtu` finds what passes whole, `hops` asks
//! the nearest routers who they are.

mod hops;
mod mtu;
mod tcp;
mod udp;
mod words;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::runtime::Handle;

use super::lifetime::{AGES, Lifetime, Lived};
use super::probe::{Answer, Change, Effect, Probe, Server, Setup, SocketId};
use super::{Entry, Finding, Layers, Proto, Report, Why};
use crate::base::task::Nursery;
use crate::net::{Family, Interface, ResolveError, Resolver, Route};
use crate::stun::{self, ServerName};
#[cfg(feature = "punch")]
pub(crate) use hops::own_hops;

/// Public STUN servers that are asked when no other is named.
pub const DEFAULT_SERVERS: [&str; 6] = crate::base::public::STUN;

/// How long names may take.
const DNS_TIMEOUT: Duration = Duration::from_secs(2);

/// Interfaces that are tested at most.
const MOST_INTERFACES: usize = 16;

/// Why there is no report at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// No interface was given that has an address besides loopback's.
    #[error("no interface has an address to test: is the network up?")]
    NoInterface,
    /// No server was given.
    #[error("no STUN server was given")]
    NoServer,
    /// No server has an address of a family that an interface has.
    #[error("no STUN server could be found{}: name others, or check the name server", causes(.0))]
    NoAddress(Vec<ResolveError>),
}

fn causes(errors: &[ResolveError]) -> String {
    let mut said: Vec<String> = errors.iter().map(ToString::to_string).collect();
    said.sort();
    said.dedup();
    if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) }
}

/// What a measurement is doing.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// It tests this interface with this family and protocol.
    Testing {
        /// The interface's name.
        interface: String,
        /// The family.
        family: Family,
        /// The protocol.
        proto: Proto,
    },
    /// This entry is done. With lifetimes asked for, it comes once more when they are known.
    Done(Box<Entry>),
    /// Bindings are left alone, to see how long they live. It takes up to this long.
    Ageing {
        /// The interface's name.
        interface: String,
        /// At most.
        at_most: Duration,
    },
}

type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// Finds out what stands between this machine's interfaces and the world.
///
/// Interfaces and families are tested beside each other; UDP and TCP one after the other, since a NAT may count the
/// ports of both together. UDP takes three rounds to the servers; TCP two, of two round trips for the handshake, where
/// UDP has found a server with two addresses, otherwise three.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use natpipe::{Interface, nat::Prober, stun::ServerName};
///
/// let server: ServerName = "stun.example:3478".parse()?;
/// let report = Prober::new(Interface::list()?).stun(server).run().await?;
/// for entry in &report.entries {
///     println!("{} {} {}: {:?}", entry.interface, entry.family, entry.proto, entry.kind());
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Prober {
    interfaces: Vec<Interface>,
    servers: Vec<ServerName>,
    families: Vec<Family>,
    protos: Vec<Proto>,
    lifetime: Option<Vec<Duration>>,
    resolver: Option<Resolver>,
    progress: OnProgress,
}

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.interfaces.iter().map(Interface::name).collect();
        f.debug_struct("Prober").field("interfaces", &names).field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Prober {
    /// Of these, those that are up and have an address that is not loopback's are tested, unless there is no other.
    pub fn new(interfaces: impl IntoIterator<Item = Interface>) -> Self {
        Self {
            interfaces: interfaces.into_iter().collect(),
            servers: Vec::new(),
            families: Family::BOTH.to_vec(),
            protos: vec![Proto::Udp, Proto::Tcp],
            lifetime: None,
            resolver: None,
            progress: Arc::new(|_| {}),
        }
    }

    /// Adds a server. The first four of a family are asked; one with two addresses and ports (RFC 5780) lets filtering
    /// be tested.
    pub fn stun(mut self, server: impl Into<ServerName>) -> Self {
        self.servers.push(server.into());
        self
    }

    /// Only this family. Default: both.
    pub fn family(mut self, family: Family) -> Self {
        self.families = vec![family];
        self
    }

    /// Only this protocol. Default: UDP and then TCP.
    pub fn proto(mut self, proto: Proto) -> Self {
        self.protos = vec![proto];
        self
    }

    /// Measures as well how long idle UDP bindings live, for about three minutes.
    pub fn lifetime(self) -> Self {
        self.ages(&AGES)
    }

    /// The same with these idle times.
    pub fn ages(mut self, ages: &[Duration]) -> Self {
        self.lifetime = Some(ages.to_vec());
        self
    }

    /// Resolves names by this. Default: the system's way.
    pub fn resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// Is told what happens, from within [`run`](Self::run); it must not block.
    pub fn on_progress(mut self, tell: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(tell);
        self
    }

    /// Measures. What could not be tested is said in each entry, with the reason; a network without one family has no
    /// entries for it. The routes of the interfaces know their external addresses afterwards.
    ///
    /// # Errors
    /// [`MeasureError`], when nothing could even be tried. Cancel safe: dropping the future closes all sockets.
    pub async fn run(&self) -> Result<Report, MeasureError> {
        if self.servers.is_empty() {
            return Err(MeasureError::NoServer);
        }
        let routes = self.routes();
        if routes.is_empty() {
            return Err(MeasureError::NoInterface);
        }
        let resolver = self.resolver.clone();
        let found = stun::resolve(&self.servers, &self.families, resolver, DNS_TIMEOUT, stun::PORT).await;
        if !found.addrs.iter().any(|(_, addr)| routes.iter().any(|route| route.family() == Family::of(addr.ip()))) {
            return Err(MeasureError::NoAddress(found.failed));
        }
        let servers: Vec<SocketAddr> = found.addrs.into_iter().map(|(_, addr)| addr).collect();
        let mut tasks = Nursery::new(&Handle::current());
        for (at, route) in routes.into_iter().enumerate() {
            let one = One::new(self, route, &servers);
            tasks.begin(async move { (at, one.run().await) });
        }
        let mut done = Vec::new();
        while !tasks.is_empty() {
            done.extend(tasks.next().await);
        }
        done.sort_by_key(|(at, _)| *at);
        Ok(Report { entries: done.into_iter().flat_map(|(_, entries)| entries).collect() })
    }

    /// One route for each interface and family: the one that reaches furthest.
    fn routes(&self) -> Vec<Route> {
        let routes: Vec<Route> = self
            .interfaces
            .iter()
            .filter(|interface| interface.flags().up)
            .take(MOST_INTERFACES)
            .flat_map(|interface| self.families.iter().filter_map(|family| interface.route(*family).ok()))
            .filter(|route| !is_link_local(route.nic()[0]))
            .collect();
        let outward = routes.iter().any(|route| !route.nic()[0].is_loopback());
        routes.into_iter().filter(|route| !outward || !route.nic()[0].is_loopback()).collect()
    }
}

/// Such an address leaves its link never.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The measurement of one route.
struct One {
    route: Route,
    servers: Vec<Server>,
    protos: Vec<Proto>,
    lifetime: Option<Vec<Duration>>,
    progress: OnProgress,
}

impl One {
    fn new(prober: &Prober, route: Route, servers: &[SocketAddr]) -> Self {
        let fitting = servers.iter().filter(|addr| Family::of(addr.ip()) == route.family());
        let servers = fitting.map(|addr| Server { primary: *addr, alternate: None }).collect();
        let (protos, lifetime) = (prober.protos.clone(), prober.lifetime.clone());
        Self { route, servers, protos, lifetime, progress: prober.progress.clone() }
    }

    async fn run(self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut lead = None;
        if self.protos.contains(&Proto::Udp) {
            self.begun(Proto::Udp);
            let mut probe = Probe::new(self.setup(Proto::Udp));
            udp::drive(&mut probe, &self.route).await;
            lead = lead_of(&probe);
            entries.push(probe.entry());
        }
        let server = lead.map(|(_, server)| server.primary);
        let (mtu, layers, tcp) = tokio::join!(self.mtu(server), self.layers(&entries, server), self.tcp(lead));
        if let Some(udp) = entries.first_mut() {
            udp.mtu = mtu;
            udp.layers = layers.unwrap_or(udp.layers);
            (self.progress)(Progress::Done(Box::new(udp.clone())));
        }
        entries.extend(tcp);
        if let (Some(layers), Some(tcp)) = (layers, entries.get_mut(1)) {
            tcp.layers = layers;
        }
        self.note_external(&entries);
        if let Some(entry) = entries.iter_mut().find(|entry| entry.proto == Proto::Udp && entry.answered > 0) {
            self.age(entry).await;
        }
        entries
    }

    fn setup(&self, proto: Proto) -> Setup {
        Setup {
            interface: self.route.interface().name().to_owned(),
            local: self.route.nic()[0],
            proto,
            servers: self.servers.clone(),
            lead: None,
            router: None,
            seed: rand::rng().next_u64(),
        }
    }

    fn begun(&self, proto: Proto) {
        let interface = self.route.interface().name().to_owned();
        (self.progress)(Progress::Testing { interface, family: self.route.family(), proto });
    }

    /// Beside the first round over TCP: its one mapping is made before those that are compared.
    async fn mtu(&self, server: Option<SocketAddr>) -> Option<u16> {
        if !self.protos.contains(&Proto::Udp) {
            return None;
        }
        mtu::measure(&self.route, server?).await
    }

    /// Where the addresses alone do not tell how many NATs there are, the routers may; as [`mtu`](Self::mtu) in time.
    async fn layers(&self, entries: &[Entry], server: Option<SocketAddr>) -> Option<Finding<Layers>> {
        let unclear = |entry: &Entry| entry.layers == Finding::Untested(Why::NoRouterAddress);
        if !entries.iter().any(unclear) {
            return None;
        }
        hops::layers(&self.route, server?).await
    }

    /// With a server that UDP has found the tests begin at once; if it does not answer over TCP, others are looked for.
    async fn tcp(&self, lead: Option<(usize, Server)>) -> Option<Entry> {
        if !self.protos.contains(&Proto::Tcp) {
            return None;
        }
        self.begun(Proto::Tcp);
        let mut setup = self.setup(Proto::Tcp);
        if let Some((at, server)) = lead.filter(|(_, server)| server.alternate.is_some()) {
            setup.servers[at] = server;
            setup.lead = Some(at);
        }
        let hasty = setup.lead.is_some();
        let mut entry = self.probe_tcp(setup).await;
        if hasty && entry.mapping.known().is_none() {
            entry = self.probe_tcp(self.setup(Proto::Tcp)).await;
        }
        (self.progress)(Progress::Done(Box::new(entry.clone())));
        Some(entry)
    }

    async fn probe_tcp(&self, setup: Setup) -> Entry {
        let mut probe = Probe::new(setup);
        tcp::drive(&mut probe, &self.route).await;
        probe.entry()
    }

    async fn age(&self, entry: &mut Entry) {
        let Some(ages) = &self.lifetime else { return };
        let at_most = ages.iter().max().copied().unwrap_or_default();
        (self.progress)(Progress::Ageing { interface: entry.interface.clone(), at_most });
        // The first server that knows RESPONSE-PORT tells.
        for server in &self.servers {
            let mut test = Lifetime::new(self.route.nic()[0], server.primary, ages, rand::rng().next_u64());
            udp::drive(&mut test, &self.route).await;
            match test.result() {
                Finding::Known(Lived { at_least, .. }) => {
                    entry.lifetime = Some(at_least);
                    break;
                }
                Finding::Untested(Why::NotHonoured | Why::NoAnswer) => {}
                Finding::AtLeast(_) | Finding::Untested(_) => break,
            }
        }
        (self.progress)(Progress::Done(Box::new(entry.clone())));
    }

    fn note_external(&self, entries: &[Entry]) {
        let mut seen: Vec<IpAddr> = entries.iter().filter_map(|entry| entry.external).collect();
        seen.sort();
        seen.dedup();
        if !seen.is_empty() {
            self.route.set_external(seen);
        }
    }
}

/// The server that answered first, with its other address: one that has another before one that has not.
fn lead_of(probe: &Probe) -> Option<(usize, Server)> {
    let seen = probe.observations();
    let heard = seen.asked.iter().filter(|asked| asked.change == Change::None);
    let heard = heard.filter_map(|asked| Some((asked.heard?, asked.server?, asked.to)));
    let first = heard.min_by_key(|(heard, server, _)| (seen.alternates[*server].is_none(), heard.at))?;
    let (_, at, to) = first;
    Some((at, Server { primary: to, alternate: seen.alternates[at] }))
}

/// What drives sockets for a test: the probe, or the test of lifetimes.
trait Asking: Send {
    fn poll_effect(&mut self) -> Option<Effect>;
    fn poll_timeout(&self) -> Option<Duration>;
    fn is_done(&self) -> bool;
    fn handle_opened(&mut self, now: Duration, socket: SocketId, local: SocketAddr);
    fn handle_open_failed(&mut self, now: Duration, socket: SocketId);
    fn handle_answer(&mut self, now: Duration, socket: SocketId, from: SocketAddr, answer: Answer);
    fn handle_timeout(&mut self, now: Duration);
    /// A request came, as when a packet is turned around by a NAT.
    fn handle_request(&mut self, _now: Duration, _socket: SocketId, _from: SocketAddr, _id: [u8; 12]) {}
    /// This request can not succeed.
    fn handle_failed(&mut self, _now: Duration, _id: [u8; 12]) {}
}

macro_rules! asking {
    ($what:ty, { $($more:item)* }) => {
        impl Asking for $what {
            fn poll_effect(&mut self) -> Option<Effect> {
                Self::poll_effect(self)
            }

            fn poll_timeout(&self) -> Option<Duration> {
                Self::poll_timeout(self)
            }

            fn is_done(&self) -> bool {
                Self::is_done(self)
            }

            fn handle_opened(&mut self, now: Duration, socket: SocketId, local: SocketAddr) {
                Self::handle_opened(self, now, socket, local);
            }

            fn handle_open_failed(&mut self, now: Duration, socket: SocketId) {
                Self::handle_open_failed(self, now, socket);
            }

            fn handle_answer(&mut self, now: Duration, socket: SocketId, from: SocketAddr, answer: Answer) {
                Self::handle_answer(self, now, socket, from, answer);
            }

            fn handle_timeout(&mut self, now: Duration) {
                Self::handle_timeout(self, now);
            }

            $($more)*
        }
    };
}

asking!(Lifetime, {});
asking!(Probe, {
    fn handle_request(&mut self, now: Duration, socket: SocketId, from: SocketAddr, id: [u8; 12]) {
        Self::handle_request(self, now, socket, from, id);
    }

    fn handle_failed(&mut self, now: Duration, id: [u8; 12]) {
        Self::handle_failed(self, now, id);
    }
});
