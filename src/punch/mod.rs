//! Hole punching: a pipe between two peers, each behind a NAT, who can already exchange short messages.
//!
//! ```text
//! bases     a socket on a route ─► host candidate; STUN from the same socket ─► server-reflexive one, the NAT's shape
//! gather    those of all routes at once, and what comes later
//! assisted  their gateways, asked to open the same ports ─► NAT-assisted candidates
//! agree     Channel ─► Hello, round trip, Offer both ways: both begin at one instant
//! by_hand   the same without a channel: one line each way, which people carry, and both go on until both have begun
//! plan      two shapes ─► what is done beside ordinary punching: open, spray, cross, or nothing
//! udp       ICE (RFC 8445, the crate `is`): checks, peer-reflexive addresses, nomination ─► a socket and an address
//! tcp       connects and accepts on one port, again 10 ms after each refusal ─► connections
//! choice    each proves itself ─► the one that both take
//! trickle   meanwhile: addresses that either end finds later, each passed on at once
//! ```
//!
//! `message`, `shape`, `plan` and `volley` decide; `channel`, `ask`, `assisted`, `bases`, `gather`, `agree`, `trickle`, `by_hand`, `udp`, `tcp`, `choice` and `hole` (the
//! pipe) wait.

mod agree;
mod ask;
mod assisted;
mod bases;
mod by_hand;
mod channel;
mod choice;
mod gather;
mod hole;
mod message;
mod plan;
mod shape;
mod tcp;
#[cfg(test)]
mod tests;
mod trickle;
mod udp;
mod volley;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rand::Rng as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::nat::Proto;
use crate::net::{Route, SocketError};
use agree::Agreed;
pub use by_hand::ByHand;
pub use channel::{Channel, PipeChannel};
use gather::{Gathered, Gathering};
pub use hole::UdpHole;
use message::Candidate;
pub use message::MessageError;
pub use plan::Plan;
pub use shape::{Assigned, Shape};
use trickle::Later;
pub use volley::{Shot, Volley};

/// How long a punch may take in all, unless said otherwise.
const DEADLINE: Duration = Duration::from_secs(15);

/// How long one takes where both NATs choose ports that can not be guessed.
const HOPELESS: Duration = Duration::from_secs(3);

/// How long the answer to the last packet is awaited.
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// How long the peer's candidates are awaited, unless said otherwise: people start their two ends by hand.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a peer that has spoken may be silent, or its channel take no message.
const SILENCE: Duration = Duration::from_secs(10);

/// Why there is no hole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PunchError {
    /// No route was given.
    #[error("no interface to punch from")]
    NoRoute,
    /// No socket can be made on any of the routes.
    #[error("no socket to punch from")]
    Socket(#[from] SocketError),
    /// The channel to the peer broke, or it ended before both had agreed.
    #[error("the channel to the peer broke while {doing}")]
    Channel {
        /// What was being said.
        doing: &'static str,
        /// What the channel says.
        #[source]
        source: io::Error,
    },
    /// The channel stands and nothing comes through it. The peer may not have started, or have given up.
    #[error("the peer was silent for {limit:?} while {doing}")]
    Silent {
        /// What was being said.
        doing: &'static str,
        /// How long it was awaited.
        limit: Duration,
    },
    /// The peer says what can not be understood.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The peer says something at the wrong time.
    #[error("the peer does not keep to the protocol while {0}")]
    OutOfTurn(&'static str),
    /// The peer has no candidate of the protocol and the families that we have.
    #[error("the peer offers no {proto} address of a family that we have")]
    NothingInCommon {
        /// UDP or TCP.
        proto: Proto,
    },
    /// Nothing came through within the limit. Another protocol or a relay may.
    #[error("nothing came through over {proto} within {limit:?}: {tried} addresses of the peer were tried, {}; {plan}", packets(.proto, .attempts))]
    Closed {
        /// UDP or TCP.
        proto: Proto,
        /// How long.
        limit: Duration,
        /// How many addresses.
        tried: usize,
        /// Packets that were sent (UDP) or connections that were begun (TCP) towards them.
        attempts: u32,
        /// What else was done.
        plan: Plan,
    },
}

/// What was punched.
#[derive(Debug)]
#[non_exhaustive]
pub enum Hole {
    /// A socket of ours, and the peer's address that it reaches, nominated by ICE at both ends.
    Udp(Box<UdpHole>),
    /// A connection, the same one at both ends.
    Tcp {
        /// The connection.
        stream: TcpStream,
    },
}

/// A hole and the story of how it came to be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Punched {
    /// The way through.
    pub hole: Hole,
    /// Our end's address.
    pub local: SocketAddr,
    /// The peer's, as we see it.
    pub peer: SocketAddr,
    /// True at the end that chose: where a protocol above needs a client, it is this one.
    pub controlling: bool,
    /// From the agreed instant to the hole.
    pub took: Duration,
    /// From the call to the hole, with finding our own addresses and agreeing.
    pub total: Duration,
    /// The round trip over the channel; zero where it was done by hand.
    pub round_trip: Duration,
    /// What was ready beside ordinary punching, and why.
    pub plan: Plan,
    /// Packets that were sent (UDP) or connections that were begun (TCP) towards the peer's addresses. STUN servers were sent a
    /// few beside, and some thirty where the NAT takes another port for each destination.
    pub attempts: u32,
}

/// The story in a sentence.
impl fmt::Display for Punched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proto = if matches!(self.hole, Hole::Udp(_)) { Proto::Udp } else { Proto::Tcp };
        write!(f, "{proto} from {} to {}", self.local, self.peer)?;
        write!(
            f,
            ", {} ms after the start and {} ms after the instant",
            self.total.as_millis(),
            self.took.as_millis()
        )?;
        write!(f, ", {}; {}", packets(&proto, &self.attempts), self.plan)
    }
}

fn packets(proto: &Proto, attempts: &u32) -> String {
    let plural = if *attempts == 1 { "" } else { "s" };
    match proto {
        Proto::Udp => format!("{attempts} packet{plural} sent"),
        Proto::Tcp => format!("{attempts} attempt{plural} to connect"),
    }
}

/// What a dig is told, and counts.
#[derive(Clone, Debug)]
struct Effort {
    attempts: Arc<AtomicU32>,
    /// The other end may begin minutes later or earlier.
    by_hand: bool,
}

impl Effort {
    fn new(by_hand: bool) -> Self {
        Self { attempts: Arc::default(), by_hand }
    }

    fn count(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }

    fn counted(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }
}

/// What is dug: a hole, our end's address, and the peer's.
type Dug = (Hole, SocketAddr, SocketAddr);

/// What to punch with.
#[derive(Clone, Debug)]
pub struct Puncher {
    routes: Vec<Route>,
    servers: Vec<SocketAddr>,
    limit: Duration,
    patience: Duration,
    all_out: bool,
    port_mapping: bool,
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

    fn plan(&self, proto: Proto, gathered: &Gathered, agreed: &Agreed) -> Plan {
        Plan::new(proto, gathered.shape, agreed.shape, self.all_out, rand::rng().next_u64())
    }

    async fn dig(
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
