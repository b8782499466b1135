//! Hole punching: a pipe between two peers, each behind a NAT, who can already exchange short messages.
//!
//! ```text
//! gather    sockets on routes ─► host candidates; STUN from the same sockets ─► server-reflexive ones
//! agree     Channel ─► Offer both ways, round trip, Go: both begin at one instant
//! udp       ICE (RFC 8445, the crate `is`): checks, peer-reflexive addresses, nomination ─► a socket and an address
//! tcp       connects and accepts on one port, again 10 ms after each refusal ─► one connection, chosen by both
//! ```
//!
//! `message` decides what is said; `channel`, `gather`, `udp`, `tcp` and `hole` (the pipe) wait.

mod channel;
mod gather;
mod hole;
mod message;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use is::IceCreds;
use rand::Rng as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::nat::Proto;
use crate::net::{Route, SocketError};
pub use channel::{Channel, PipeChannel};
use gather::Gathered;
pub use hole::UdpHole;
pub use message::MessageError;
use message::{Candidate, Message};

/// How long a punch may take in all, unless said otherwise.
const DEADLINE: Duration = Duration::from_secs(15);

/// How long the peer's candidates are awaited, unless said otherwise: people start their two ends by hand.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a peer that has spoken may be silent, or its channel take no message.
const SILENCE: Duration = Duration::from_secs(10);

/// Rounds of asking how far away the peer is over the channel; the shortest counts.
const PINGS: usize = 3;

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
    #[error("nothing came through over {proto} within {limit:?}: {tried} addresses of the peer were tried")]
    Closed {
        /// UDP or TCP.
        proto: Proto,
        /// How long.
        limit: Duration,
        /// How many addresses.
        tried: usize,
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
    /// The round trip over the channel.
    pub round_trip: Duration,
    /// Packets or connections that were begun towards the peer's addresses.
    pub attempts: u32,
}

/// What to punch with.
#[derive(Clone, Debug)]
pub struct Puncher {
    routes: Vec<Route>,
    servers: Vec<SocketAddr>,
    limit: Duration,
    patience: Duration,
}

impl Default for Puncher {
    fn default() -> Self {
        Self::new()
    }
}

impl Puncher {
    /// Without routes and servers.
    pub fn new() -> Self {
        Self { routes: Vec::new(), servers: Vec::new(), limit: DEADLINE, patience: PATIENCE }
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

    /// Punches a hole for this protocol, together with a peer that does the same at the other end of the channel. Local
    /// ports are random.
    ///
    /// # Errors
    /// [`PunchError`]. Dropping the future closes all sockets; the peer then ends by its own limit.
    pub async fn punch(&self, proto: Proto, channel: &mut impl Channel) -> Result<Punched, PunchError> {
        let gathered = gather::gather(proto, &self.routes, &self.servers).await?;
        let creds = IceCreds::new();
        let tie = rand::rng().next_u64();
        let offer = Message::Offer {
            tie,
            ufrag: creds.ufrag.clone(),
            password: creds.pass.clone(),
            candidates: gathered.offered(),
        };
        say(channel, &offer, "sending candidates").await?;
        let Message::Offer { tie: theirs, ufrag, password, candidates } =
            hear(channel, "awaiting candidates", self.patience).await?
        else {
            return Err(PunchError::OutOfTurn("awaiting candidates"));
        };
        let candidates = common(proto, &gathered, candidates);
        if candidates.is_empty() {
            return Err(PunchError::NothingInCommon { proto });
        }
        if tie == theirs {
            return Err(PunchError::OutOfTurn("choosing who controls"));
        }
        let controlling = tie > theirs;
        let agreed = Agreed { controlling, ours: creds, theirs: IceCreds { ufrag, pass: password }, candidates };
        let round_trip = if controlling { lead(channel).await? } else { follow(channel).await? };
        self.dig(proto, gathered, agreed, round_trip).await
    }

    async fn dig(
        &self,
        proto: Proto,
        gathered: Gathered,
        agreed: Agreed,
        round_trip: Duration,
    ) -> Result<Punched, PunchError> {
        let (begun, controlling, tried) = (Instant::now(), agreed.controlling, agreed.candidates.len());
        let dug = match proto {
            Proto::Udp => timeout(self.limit, udp::dig(gathered.udp, agreed)).await,
            Proto::Tcp => timeout(self.limit, tcp::dig(gathered.tcp, agreed)).await,
        };
        let Ok(dug) = dug else { return Err(PunchError::Closed { proto, limit: self.limit, tried }) };
        let (hole, local, peer, attempts) = dug;
        Ok(Punched { hole, local, peer, controlling, took: begun.elapsed(), round_trip, attempts })
    }
}

/// What both ends know when they begin.
#[derive(Debug)]
struct Agreed {
    controlling: bool,
    ours: IceCreds,
    theirs: IceCreds,
    /// Of the peer.
    candidates: Vec<Candidate>,
}

/// The peer's candidates that a socket of ours can reach.
fn common(proto: Proto, gathered: &Gathered, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    let ours = gathered.candidates();
    candidates
        .retain(|theirs| theirs.proto == proto && ours.iter().any(|our| our.addr.is_ipv4() == theirs.addr.is_ipv4()));
    candidates
}

async fn say(channel: &mut impl Channel, message: &Message, doing: &'static str) -> Result<(), PunchError> {
    match timeout(SILENCE, channel.send(message.encode())).await {
        Ok(sent) => sent.map_err(|source| PunchError::Channel { doing, source }),
        Err(_) => Err(PunchError::Silent { doing, limit: SILENCE }),
    }
}

async fn hear(channel: &mut impl Channel, doing: &'static str, limit: Duration) -> Result<Message, PunchError> {
    let received = timeout(limit, channel.recv()).await.map_err(|_| PunchError::Silent { doing, limit })?;
    let bytes = received.map_err(|source| PunchError::Channel { doing, source })?;
    Ok(Message::decode(&bytes)?)
}

/// Measures the channel, says "go", and waits until the other end hears it: half a round trip, no clock compared.
async fn lead(channel: &mut impl Channel) -> Result<Duration, PunchError> {
    const DOING: &str = "measuring the channel";
    let mut shortest = Duration::MAX;
    for _ in 0..PINGS {
        let asked = Instant::now();
        say(channel, &Message::Ping, DOING).await?;
        if hear(channel, DOING, SILENCE).await? != Message::Pong {
            return Err(PunchError::OutOfTurn(DOING));
        }
        shortest = shortest.min(asked.elapsed());
    }
    say(channel, &Message::Go, DOING).await?;
    sleep(shortest / 2).await;
    Ok(shortest)
}

/// Answers until "go" comes. The round trip is the time between the leader's questions.
async fn follow(channel: &mut impl Channel) -> Result<Duration, PunchError> {
    const DOING: &str = "answering over the channel";
    let (mut last, mut shortest) = (None, Duration::MAX);
    for _ in 0..=PINGS {
        match hear(channel, DOING, SILENCE).await? {
            Message::Ping => {
                let now = Instant::now();
                shortest = last.replace(now).map_or(shortest, |last: Instant| shortest.min(now - last));
                say(channel, &Message::Pong, DOING).await?;
            }
            Message::Go => return Ok(shortest),
            _ => break,
        }
    }
    Err(PunchError::OutOfTurn(DOING))
}
