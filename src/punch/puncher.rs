//! Waits: a punch from its options to its hole: addresses, the conversation, the plan, and digging.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rand::Rng as _;
use tokio::time::timeout;

use super::agree::{self, Agreed};
use super::gather::{Gathered, Gathering};
use super::message::Candidate;
use super::trickle::{self, Later};
use super::{Channel, Hole, Plan, PunchError, Punched, Volley, tcp, udp};
use crate::nat::Proto;
use crate::net::Route;

/// How long a punch may take in all, unless said otherwise.
const DEADLINE: Duration = Duration::from_secs(15);

/// How long one takes where both NATs choose ports that can not be guessed.
const HOPELESS: Duration = Duration::from_secs(3);

/// How long the answer to the last packet is awaited.
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// How long the peer's candidates are awaited, unless said otherwise: people start their two ends by hand.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What to punch with.
#[derive(Clone, Debug)]
pub struct Puncher {
    pub(super) routes: Vec<Route>,
    pub(super) servers: Vec<SocketAddr>,
    limit: Duration,
    patience: Duration,
    all_out: bool,
    pub(super) port_mapping: bool,
    binding_lifetime: Option<Duration>,
}

impl Default for Puncher {
    fn default() -> Self {
        Self::new()
    }
}

impl Puncher {
    /// Without routes and servers.
    pub fn new() -> Self {
        Self {
            routes: Vec::new(),
            servers: Vec::new(),
            limit: DEADLINE,
            patience: PATIENCE,
            all_out: false,
            port_mapping: false,
            binding_lifetime: None,
        }
    }

    /// Punches from this route's first address as well.
    pub fn route(mut self, route: &Route) -> Self {
        self.routes.push(route.clone());
        self
    }

    /// Asks this STUN server for external addresses. Without one only the addresses on the cards are offered.
    pub fn stun(mut self, server: SocketAddr) -> Self {
        self.servers.push(server);
        self
    }

    /// How long it may take from the agreed instant. Default 15 s.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// How long the peer's candidates are awaited over the channel. Default 60 s. Mappings in NATs may not live longer
    /// than that.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Where both NATs take random ports out of all of them, tries all the same over UDP: 140,000 packets from each end in
    /// forty seconds, each once with few hops and once with all, and as many entries in the tables of both routers. The limit is
    /// lengthened to one and a half times that. Both ends have to want it. Default no.
    pub fn all_out(mut self, yes: bool) -> Self {
        self.all_out = yes;
        self
    }

    /// Asks the gateways of the routes to open the ports that are punched from (PCP, NAT-PMP, UPnP), and tells the peer of each when it
    /// is open; nothing waits for them. What the hole came to use stays open as long as a UDP hole does, the rest is taken back;
    /// over TCP all is, since the connection stands. Default no: it is for those who want one hole on one machine; a peer's node asks
    /// by itself.
    pub fn port_mapping(mut self, yes: bool) -> Self {
        self.port_mapping = yes;
        self
    }

    /// How long an idle UDP binding lives in the NATs on our side, as [`Prober::lifetime`](crate::nat::Prober::lifetime) measures: a UDP
    /// hole is then kept by two checks in that time. Without it, and where it is under six seconds, a check goes out
    /// every three seconds, and the peer is given up after 24 s of silence; with it after eight checks. More than ten minutes are taken
    /// for ten.
    pub fn binding_lifetime(mut self, lifetime: Duration) -> Self {
        self.binding_lifetime = Some(lifetime);
        self
    }

    /// Punches a hole for this protocol, together with a peer that does the same at the other end of the channel. Local
    /// ports are random.
    ///
    /// # Errors
    /// [`PunchError`]. Dropping the future closes all sockets; the peer then ends by its own limit.
    pub async fn punch(&self, proto: Proto, channel: &mut impl Channel) -> Result<Punched, PunchError> {
        let (begun, effort) = (Instant::now(), Effort::new(false));
        let gather = || Gathering::new(proto, &self.routes, &self.servers, self.port_mapping);
        let ready = |gathered: &Gathered, candidates: &[Candidate]| {
            if proto == Proto::Udp {
                udp::prime(gathered, candidates, &effort);
            }
        };
        let mut gathering = gather();
        let (gathered, mut agreed) = agree::agree(channel, self.patience, &mut gathering, gather, ready).await?;
        agreed.more |= gathering.is_looking();
        let (finder, mut later) = trickle::later(&agreed);
        let plan = self.plan(proto, &gathered, &agreed);
        // While ports are being guessed no other sockets take any.
        let anew = (plan == Plan::Meet).then_some(|| Gathering::new(proto, &self.routes, &self.servers, false));
        let mut dug = pin!(self.dig(proto, gathered, agreed, plan, &effort, &mut later));
        let mut punched = tokio::select! {
            dug = &mut dug => dug?,
            never = finder.run(channel, &mut gathering, anew) => never,
        };
        punched.hold(gathering.assisted());
        Ok(Punched { total: begun.elapsed(), ..punched })
    }

    pub(super) fn plan(&self, proto: Proto, gathered: &Gathered, agreed: &Agreed) -> Plan {
        Plan::new(proto, gathered.shape, agreed.shape, self.all_out, rand::rng().next_u64())
    }

    pub(super) async fn dig(
        &self,
        proto: Proto,
        gathered: Gathered,
        mut agreed: Agreed,
        plan: Plan,
        effort: &Effort,
        later: &mut Later,
    ) -> Result<Punched, PunchError> {
        agreed.candidates = common(proto, &gathered, agreed.candidates);
        if agreed.candidates.is_empty() && !agreed.more {
            return Err(PunchError::NothingInCommon { proto });
        }
        tracing::debug!(%plan, "beside ordinary punching");
        let (begun, controlling, tried) = (Instant::now(), agreed.controlling, agreed.candidates.len());
        let (round_trip, limit) = (agreed.round_trip, self.limit_of(&plan, proto, effort));
        let dug = match proto {
            Proto::Udp => timeout(limit, udp::dig(gathered, agreed, &plan, effort, later)).await,
            Proto::Tcp => timeout(limit, tcp::dig(gathered, agreed, &plan, effort, later)).await,
        };
        let attempts = effort.counted();
        let Ok((mut hole, local, peer)) = dug else {
            return Err(PunchError::Closed { proto, limit, tried, attempts, plan });
        };
        if let (Hole::Udp(hole), Some(lifetime)) = (&mut hole, self.binding_lifetime) {
            hole.binds_for(lifetime);
        }
        let took = begun.elapsed();
        Ok(Punched { hole, local, peer, controlling, took, total: took, round_trip, plan, attempts })
    }

    fn limit_of(&self, plan: &Plan, proto: Proto, effort: &Effort) -> Duration {
        let limit = if effort.by_hand { self.patience } else { self.limit };
        let now = Instant::now();
        let lasts = Volley::of(proto, plan, now).and_then(|volley| Some(volley.ends()? - now)).unwrap_or_default();
        if plan.is_hopeless() {
            // A filter that lets more in than the ports say has done so by then.
            return limit.min(if effort.by_hand { DEADLINE } else { HOPELESS.max(lasts * 3 / 2 + ROUND_TRIP) });
        }
        // What was asked for takes as long as it takes, on a machine that is busy as well.
        limit.max(if self.all_out { lasts * 3 / 2 + HOPELESS } else { Duration::ZERO })
    }
}

/// The peer's candidates that a socket of ours can reach.
fn common(proto: Proto, gathered: &Gathered, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let ours = gathered.candidates();
    candidates
        .retain(|theirs| theirs.proto == proto && ours.iter().any(|our| our.addr.is_ipv4() == theirs.addr.is_ipv4()));
    candidates
}

/// What a dig is told, and counts.
#[derive(Clone, Debug)]
pub(super) struct Effort {
    pub(super) attempts: Arc<AtomicU32>,
    /// The other end may begin minutes later or earlier.
    pub(super) by_hand: bool,
}

impl Effort {
    pub(super) fn new(by_hand: bool) -> Self {
        Self { attempts: Arc::default(), by_hand }
    }

    pub(super) fn count(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counted(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }
}

/// What is dug: a hole, our end's address, and the peer's.
pub(super) type Dug = (Hole, SocketAddr, SocketAddr);
