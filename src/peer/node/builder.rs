//! Waits: making a node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, watch};

use super::answer;
use super::doors::Doors;
use super::handle::{Node, NodeHandle};
use super::inner::{Inner, Ways};
use super::meeting::Meet;
use super::ports::{self, Ports};
use crate::base::task::Nursery;
use crate::key::tls::Allowed;
use crate::key::{Identity, NoRandomness, OneTime, Place, Ticket};
use crate::peer::Multipath;
use crate::peer::defaults::Public;
use crate::pipe::tls::TlsClient;
use crate::rendezvous::Proxy;
use crate::turn::TurnServer;

/// Pipes that peers have opened and nobody has accepted; more wait at their peers.
const OPENED: usize = 64;

/// One-time tickets that are good at one time.
const TICKETS: usize = 256;

/// How long a session lives without any path: a machine that sleeps for some minutes finds it again.
const PATIENCE: Duration = Duration::from_secs(300);

/// Places where a node may be that it has not begun to listen at.
const ENTERED: usize = 64;

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// It was called outside a tokio runtime.
    #[error("a node needs a tokio runtime")]
    NoRuntime,
    /// No identity can be made.
    #[error("no identity can be made")]
    Identity(#[from] NoRandomness),
    /// Nobody can be met at any of the places that were named.
    #[error("can not meet others at {place}")]
    Meeting {
        /// Which one, or the first of them.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nobody can be found on this network.
    #[cfg(feature = "lan")]
    #[error("peers on this network can not be found")]
    Lan(#[from] crate::peer::LanError),
    /// No port can be opened to others.
    #[error("no port can be opened for peers on the same network")]
    Doors(#[source] std::io::Error),
    /// Both a relay and everything else were ruled out.
    #[error("neither a relay nor anything else may be used: leave one of direct-only and relay-only out")]
    NoWay,
}

/// What a node is made with.
#[derive(Debug)]
pub struct Builder {
    identity: Option<Identity>,
    via: Vec<Place>,
    stun: Vec<SocketAddr>,
    turn: Vec<TurnServer>,
    interfaces: Vec<String>,
    proxy: Option<Proxy>,
    tls: Option<TlsClient>,
    allowed: Allowed,
    once: bool,
    doors: bool,
    port_mapping: bool,
    #[cfg(feature = "lan")]
    lan: bool,
    public: Public,
    ways: Ways,
    multipath: Multipath,
    patience: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            identity: None,
            via: Vec::new(),
            stun: Vec::new(),
            turn: Vec::new(),
            interfaces: Vec::new(),
            proxy: None,
            tls: None,
            allowed: Allowed::anyone(),
            once: false,
            doors: true,
            port_mapping: true,
            #[cfg(feature = "lan")]
            lan: false,
            public: Public::default(),
            ways: Ways { direct: true, relay: true },
            multipath: Multipath::Off,
            patience: PATIENCE,
        }
    }
}

impl Builder {
    /// Who the node is. Default: someone new.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Where the node is met: a rendezvous server or an MQTT broker; its tickets name it. May be given several times: who looks for
    /// the node takes what answers first. Brokers relay nothing.
    pub fn via(mut self, place: impl Into<Place>) -> Self {
        self.via.push(place.into());
        self
    }

    /// Whom the web's TLS trusts: brokers at `mqtts://` and `wss://`, servers at `wss://`. Default: the roots of this system.
    pub fn web_tls(mut self, tls: TlsClient) -> Self {
        self.tls = Some(tls);
        self
    }

    /// One more STUN server to ask when punching, beside those of the rendezvous servers.
    pub fn stun(mut self, server: SocketAddr) -> Self {
        self.stun.push(server);
        self
    }

    /// Meets peers at this TURN server where nothing straighter works; one end that has one is enough. Given several times, the
    /// next is asked when one gives no address. [`direct_only`](Self::direct_only) rules it out.
    pub fn turn(mut self, server: TurnServer) -> Self {
        self.turn.push(server);
        self
    }

    /// Uses this interface. May be given several times; default: all.
    pub fn interface(mut self, name: impl Into<String>) -> Self {
        self.interfaces.push(name.into());
        self
    }

    /// Announces the node on this network, and looks there for whom it calls (feature `lan`). Its tickets say so, and who calls by one
    /// of them looks for it in any case.
    #[cfg(feature = "lan")]
    pub fn lan(mut self, yes: bool) -> Self {
        self.lan = yes;
        self
    }

    /// Is met at public MQTT brokers, where no other place is named (feature `mqtt`). Default: no. `docs/security.md` tells what they see.
    /// They are not waited for.
    pub fn public_brokers(mut self, yes: bool) -> Self {
        self.public.brokers = yes;
        self
    }

    /// Asks public STUN servers when punching, where no other is at hand. Default: no.
    pub fn public_stun(mut self, yes: bool) -> Self {
        self.public.stun = yes;
        self
    }

    /// Goes to rendezvous servers and brokers through an HTTP proxy. Ways straight to a peer do not lead through it.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Who may connect. Default: everybody who has a ticket.
    pub fn allow(mut self, allowed: Allowed) -> Self {
        self.allowed = allowed;
        self
    }

    /// Tickets are good for one connection each.
    pub fn one_time(mut self, yes: bool) -> Self {
        self.once = yes;
        self
    }

    /// No bytes go through a server: where no straight way is found, connecting fails.
    pub fn direct_only(mut self, yes: bool) -> Self {
        self.ways.relay = !yes;
        self
    }

    /// All bytes go through servers, so that the peers do not learn each other's addresses.
    pub fn relay_only(mut self, yes: bool) -> Self {
        self.ways.direct = !yes;
        self.doors = !yes;
        self
    }

    /// What several paths to one peer are used for. Default: [`Multipath::Off`]. With another, a call goes out by each interface of
    /// ours that it can, and up to three paths are kept in use. [`Multipath::Duplicate`] is for what this end sends and costs twice
    /// the traffic, [`Multipath::Throughput`] does nothing unless both ends want it.
    pub fn multipath(mut self, multipath: Multipath) -> Self {
        self.multipath = multipath;
        self
    }

    /// How long a connection to a peer lives without any path, in which its pipes wait: a peer whose machine sleeps, or is without a
    /// network, comes back within this time, and what was written meanwhile is there. Default: five minutes. What is written and
    /// not yet received stays in memory as long, up to 16 MiB for each peer.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Asks the gateways of all routes to open the ports of our doors (PCP, NAT-PMP, UPnP), so that peers reach us straight;
    /// what they open is taken back when the node is closed. Only routes of [`portmap::can_help`](crate::portmap::can_help) are
    /// asked on. Default: yes.
    pub fn port_mapping(mut self, yes: bool) -> Self {
        self.port_mapping = yes;
        self
    }

    /// Makes the node: opens its doors and goes where it is met. When one of several places can not be reached, it is tried
    /// again later.
    ///
    /// # Errors
    /// [`NodeError`]. Cancelling closes everything.
    pub async fn start(self) -> Result<Node, NodeError> {
        let runtime = Handle::try_current().map_err(|_| NodeError::NoRuntime)?;
        if !self.ways.direct && !self.ways.relay {
            return Err(NodeError::NoWay);
        }
        let me = Arc::new(self.identity.map_or_else(Identity::generate, Ok)?);
        let doors = if self.doors { Some(Doors::open(&me, &self.allowed).map_err(NodeError::Doors)?) } else { None };
        let secrets = self.once.then(|| OneTime::new(TICKETS));
        let (tell, opened) = mpsc::channel(OPENED);
        let (enter, entered) = mpsc::channel(ENTERED);
        let inner = Arc::new(Inner::new(
            me,
            runtime.clone(),
            self.ways,
            self.multipath,
            self.allowed,
            self.stun,
            self.turn,
            self.public,
            self.interfaces,
            self.proxy,
            self.tls,
            doors,
            secrets,
            tell,
            enter,
            self.patience,
        ));
        let mut tasks = Nursery::new(&runtime);
        #[cfg(feature = "lan")]
        if self.lan {
            inner.announce()?;
        }
        let asked = inner.doors.as_ref().filter(|_| self.port_mapping);
        let asked = asked.map(|doors| (doors.ports.get_or_init(|| Arc::new(Ports::new())).clone(), doors.port));
        let public = self.public.brokers(&self.via);
        let publicly = Some(Meet::Brokers(public.clone())).filter(|_| !public.is_empty());
        let named = self.via.iter().cloned().fold(Ticket::new(inner.me.peer_id()), Ticket::with_place);
        let named = Meet::places(&named);
        inner.places.get_or_init(|| named.iter().chain(&publicly).cloned().collect());
        tasks.begin(answer::at_changes(inner.clone()));
        tasks.begin(answer::at_meetings(inner.clone(), entered));
        answer::everywhere(&inner, named, &mut tasks).await?;
        publicly.into_iter().for_each(|place| tasks.begin(answer::at_place(inner.clone(), place)));
        let of_server = |place: &Place| if let Place::Server(url) = place { Some(url.clone()) } else { None };
        let servers = self.via.iter().filter_map(of_server).collect();
        let via = self.via.into_iter().chain(public.into_iter().map(Place::Broker)).collect();
        if inner.doors.is_some() {
            tasks.begin(answer::at_tcp(inner.clone()));
            tasks.begin(answer::at_quic(inner.clone()));
        }
        if let Some((ports, port)) = asked {
            tasks.begin(ports::follow(inner.clone(), ports, port, servers));
        }
        let (opened, tasks, closed) = (Mutex::new(opened), Mutex::new(tasks), watch::Sender::new(false));
        Ok(Node { handle: Arc::new(NodeHandle { inner, via, opened, closed, tasks }) })
    }
}
