//! Decides: an allocation from its first request to its end: proof, refreshes, permissions, channels, and whose datagram is whose.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::frame::{Cut, channel_data};
use super::message::{self, What};
use super::peers::{Ask, Peers};
use super::{Lost, Refused};
use crate::net::Family;
use crate::stun::{Challenge, Class, Credentials, Due, Message, Proof, Timer, Timing, TransactionId, kind};

/// Requests under way at one time: an answer is needed for each kind, and for each peer at the beginning; and connects, which
/// are counted apart, since a server that does not answer them says nothing about the allocation.
const EXCHANGES: usize = 160 + CONNECTS;
const CONNECTS: usize = 64;

/// Events that wait to be taken.
const EVENTS: usize = 256;

/// An allocation is refreshed this long before it ends, or at half of a shorter one.
const EARLY: Duration = Duration::from_secs(60);

/// What a server that says nothing grants (RFC 8656 section 3.2), and the longest that is believed.
const LIFETIME: Duration = Duration::from_secs(600);
const LONGEST: Duration = Duration::from_secs(3600);

/// A server tries for 30 s to connect to a peer (RFC 6062 section 5.2).
const CONNECTING: Duration = Duration::from_secs(35);

/// Characters of a server's words that are kept.
const WORDS: usize = 80;

/// How an allocation is asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// User name and password.
    pub credentials: Credentials,
    /// The family of the relayed address.
    pub family: Family,
    /// Whether a stream leads to the server: nothing is lost on it, and channel data is padded.
    pub stream: bool,
    /// Whether connections are relayed (RFC 6062) and no datagrams.
    pub tcp: bool,
    /// For how long it is asked for.
    pub lifetime: Duration,
    /// When requests are sent again.
    pub timing: Timing,
    /// From a cryptographic source: transaction ids are made from it.
    pub seed: [u8; 32],
}

/// What has come to be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The server gave an address.
    Allocated {
        /// Where others send to.
        relayed: SocketAddr,
        /// Where the server sees us.
        mapped: Option<SocketAddr>,
        /// For how long; it is refreshed before.
        lifetime: Duration,
    },
    /// It gave none.
    NotAllocated(Refused),
    /// Another server is to be asked (RFC 8489 section 10).
    Redirected(SocketAddr),
    /// This address may send to the relayed one.
    Permitted(IpAddr),
    /// It may not: the server said so, or nothing.
    NotPermitted(IpAddr, Option<Refused>),
    /// The server has connected to a peer; the connection waits to be bound (RFC 6062 section 4.3).
    Connected(SocketAddr, u32),
    /// It has not.
    NotConnected(SocketAddr, Option<Refused>),
    /// A peer that was let in has connected; the connection waits to be bound (RFC 6062 section 4.4).
    Attempted(SocketAddr, u32),
    /// It is over.
    Lost(Lost),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Allocating,
    Open {
        relayed: SocketAddr,
        /// None while it is asked for.
        refresh: Option<Instant>,
        ends: Instant,
    },
    Over,
}

struct Exchange {
    what: What,
    id: TransactionId,
    bytes: Bytes,
    timer: Timer,
    /// How many nonces had been learnt when it was signed.
    nonces: u32,
}

/// An allocation, to be driven: take [`poll_transmit`](Self::poll_transmit) and [`poll_event`](Self::poll_event) until they are
/// empty, wait for bytes of the server or until [`poll_timeout`](Self::poll_timeout), tell [`handle`](Self::handle) or
/// [`handle_timeout`](Self::handle_timeout), and begin again.
pub struct Core {
    settings: Settings,
    proof: Proof,
    nonces: u32,
    random: StdRng,
    phase: Phase,
    exchanges: Vec<Exchange>,
    peers: Peers,
    out: VecDeque<Bytes>,
    events: VecDeque<Event>,
}

impl Core {
    /// Asks for an allocation.
    pub fn new(settings: Settings, now: Instant) -> Self {
        // Long-term credentials need no key before the server has named a realm, so this can not fail for them.
        let proof = Proof::new(Some(settings.credentials.clone())).unwrap_or_default();
        let random = StdRng::from_seed(settings.seed);
        let (family, lifetime, tcp) = (settings.family, settings.lifetime, settings.tcp);
        let mut core = Self {
            settings,
            proof,
            nonces: 0,
            random,
            phase: Phase::Allocating,
            exchanges: Vec::new(),
            peers: Peers::default(),
            out: VecDeque::new(),
            events: VecDeque::new(),
        };
        core.ask(now, What::Allocate { family, lifetime, tcp });
        core
    }

    /// The relayed address, while there is one.
    pub fn relayed(&self) -> Option<SocketAddr> {
        match self.phase {
            Phase::Open { relayed, .. } => Some(relayed),
            _ => None,
        }
    }

    // ---- what is wanted

    /// Lets an address send to the relayed one, and keeps it let in. False when too many are. An event tells what came of it, also
    /// when it was let in before.
    pub fn permit(&mut self, now: Instant, ip: IpAddr) -> bool {
        if self.peers.is_permitted(ip) {
            self.tell(Event::Permitted(ip));
            return true;
        }
        match self.peers.want(ip) {
            None => false,
            Some(ask) => {
                if ask {
                    self.ask(now, What::Permit(ip));
                }
                true
            }
        }
    }

    /// A datagram for a peer, as it is sent to the server. `None` when the peer is not let in, or the datagram is too long.
    pub fn send(&mut self, now: Instant, peer: SocketAddr, data: &[u8]) -> Option<Bytes> {
        if !self.peers.is_permitted(peer.ip()) || self.relayed().is_none() {
            return None;
        }
        let (channel, ask) = self.peers.channel_to(peer);
        if let Some(ask) = ask {
            self.renew(now, ask);
        }
        match channel {
            Some(number) => channel_data(number, data, self.settings.stream).map(Bytes::from),
            None => message::send_indication(self.id(), peer, data).ok(),
        }
    }

    /// Has the server connect to a peer that was let in. An event tells what came of it.
    pub fn connect(&mut self, now: Instant, peer: SocketAddr) {
        let under_way = self.exchanges.iter().filter(|exchange| matches!(exchange.what, What::Connect(_))).count();
        if self.relayed().is_some() && self.peers.is_permitted(peer.ip()) && under_way < CONNECTS {
            self.ask(now, What::Connect(peer));
        } else {
            self.tell(Event::NotConnected(peer, None));
        }
    }

    /// What requests are signed with now, for the connections that are bound.
    pub(super) fn proof(&self) -> Proof {
        self.proof.clone()
    }

    /// Gives the address back.
    pub fn close(&mut self, now: Instant) {
        if self.phase == Phase::Over {
            return;
        }
        self.exchanges.clear();
        // An allocation that was asked for with a proof may have been granted, though nobody has heard of it; where there is
        // none, the server says so to nobody.
        let may_be_granted = self.phase == Phase::Allocating && self.nonces > 0;
        if self.relayed().is_some() || may_be_granted {
            self.ask(now, What::Refresh { lifetime: Duration::ZERO });
            // It is sent, and its answer changes nothing any more.
            self.exchanges.clear();
        }
        self.lose(Lost::Closed);
    }

    // ---- what comes

    /// Takes what came from the server; a datagram of a peer that was let in comes back.
    pub fn handle<'a>(&mut self, now: Instant, from_server: Cut<'a>) -> Option<(SocketAddr, &'a [u8])> {
        match from_server {
            Cut::Channel { number, data } => {
                self.relayed()?;
                Some((self.peers.peer_of(number)?, data))
            }
            Cut::Message(bytes) => self.handle_message(now, bytes),
        }
    }

    fn handle_message<'a>(&mut self, now: Instant, bytes: &'a [u8]) -> Option<(SocketAddr, &'a [u8])> {
        let message = Message::parse(bytes).ok().filter(|message| message.fingerprint() != Some(false))?;
        match message.class() {
            Class::Indication if message.method() == message::DATA_INDICATION => {
                self.relayed()?;
                let peer = message.xor_address(message::XOR_PEER_ADDRESS)?;
                let data = message.get(message::DATA)?;
                // A server lets in only whom it was told to; one that does not is no reason to listen to strangers.
                self.peers.is_permitted(peer.ip()).then_some((peer, data))
            }
            Class::Indication if message.method() == message::CONNECTION_ATTEMPT => {
                self.relayed()?;
                let (peer, connection) = (message.xor_address(message::XOR_PEER_ADDRESS)?, connection(&message)?);
                if self.settings.tcp && self.peers.is_permitted(peer.ip()) {
                    self.tell(Event::Attempted(peer, connection));
                }
                None
            }
            Class::Success | Class::Error => {
                self.handle_answer(now, &message);
                None
            }
            _ => None,
        }
    }

    fn handle_answer(&mut self, now: Instant, message: &Message<'_>) {
        let mine = |exchange: &Exchange| exchange.id == message.id() && exchange.what.method() == message.method();
        let Some(at) = self.exchanges.iter().position(mine) else { return };
        if !self.proof.accepts(message) {
            return;
        }
        let exchange = self.exchanges.swap_remove(at);
        if message.class() == Class::Success {
            self.proof.settle();
            return self.succeeded(now, exchange.what, message);
        }
        let Some(error) = message.error() else { return self.lose(Lost::Nonsense) };
        if matches!(error.code, 401 | 438) {
            // Several may have been under way with the nonce that grew stale.
            let signed_anew = exchange.nonces < self.nonces;
            match if signed_anew { Ok(Challenge::Retry) } else { self.proof.challenge(message) } {
                Ok(Challenge::Retry) => {
                    self.nonces += u32::from(!signed_anew);
                    return self.ask(now, exchange.what);
                }
                Ok(_) => {}
                Err(_) => return self.lose(Lost::Nonsense),
            }
        }
        let reason = error.reason.chars().filter(|c| !c.is_control()).take(WORDS).collect();
        let elsewhere = message.address(kind::ALTERNATE_SERVER).filter(|_| error.code == 300);
        self.refused(now, exchange.what, Refused { code: error.code, reason }, elsewhere);
    }

    fn succeeded(&mut self, now: Instant, what: What, message: &Message<'_>) {
        match what {
            What::Allocate { family, .. } => {
                let relayed = message.xor_address(message::XOR_RELAYED_ADDRESS);
                let relayed = relayed.filter(|addr| Family::of(addr.ip()) == family && addr.port() != 0);
                let Some(relayed) = relayed else { return self.lose(Lost::Nonsense) };
                let Some(lifetime) = granted(message) else { return self.lose(Lost::Nonsense) };
                self.phase = Phase::Open { relayed, refresh: Some(now + before(lifetime)), ends: now + lifetime };
                self.tell(Event::Allocated { relayed, mapped: message.mapped(), lifetime });
            }
            What::Refresh { .. } => match (granted(message), &mut self.phase) {
                (Some(lifetime), Phase::Open { refresh, ends, .. }) => {
                    (*refresh, *ends) = (Some(now + before(lifetime)), now + lifetime);
                }
                _ => self.lose(Lost::Nonsense),
            },
            What::Permit(ip) => {
                if self.peers.granted(now, ip) {
                    self.tell(Event::Permitted(ip));
                }
            }
            What::Bind { channel, peer } => {
                self.peers.bound(now, channel);
                self.peers.granted(now, peer.ip());
            }
            What::Connect(peer) => match connection(message) {
                Some(connection) => self.tell(Event::Connected(peer, connection)),
                None => self.tell(Event::NotConnected(peer, None)),
            },
            // It is asked for on a connection of its own.
            What::BindConnection(_) => {}
        }
    }

    fn refused(&mut self, now: Instant, what: What, refused: Refused, elsewhere: Option<SocketAddr>) {
        match (what, elsewhere) {
            (What::Allocate { .. }, Some(server)) => self.end(Event::Redirected(server)),
            (What::Allocate { .. }, None) => self.end(Event::NotAllocated(refused)),
            // Whatever it was about: there is no allocation to do it with.
            _ if matches!(refused.code, 437 | 441) => self.lose(Lost::Refused(refused)),
            (What::Refresh { .. }, _) => self.lose(Lost::Refused(refused)),
            (What::Permit(_) | What::Bind { .. }, _) if refused.code == 401 => self.lose(Lost::Refused(refused)),
            (What::Permit(ip), _) => {
                self.peers.refused(ip);
                if let (400, Phase::Open { refresh, .. }) = (refused.code, &mut self.phase) {
                    // So some servers speak of an allocation that they have forgotten: it is asked for itself.
                    *refresh = refresh.map(|due| due.min(now));
                }
                self.tell(Event::NotPermitted(ip, Some(refused)));
            }
            (What::Bind { channel, .. }, _) => self.peers.unbound(now, channel),
            (What::Connect(peer), _) => self.tell(Event::NotConnected(peer, Some(refused))),
            (What::BindConnection(_), _) => {}
        }
    }

    // ---- time

    /// Sends again, refreshes and gives up what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut given_up = Vec::new();
        for exchange in &mut self.exchanges {
            match exchange.timer.due(now) {
                Due::Send => self.out.push_back(exchange.bytes.clone()),
                Due::TimedOut => given_up.push(exchange.id),
                Due::Nothing => {}
            }
        }
        for id in given_up {
            if let Some(at) = self.exchanges.iter().position(|exchange| exchange.id == id) {
                let what = self.exchanges.swap_remove(at).what;
                self.unanswered(now, what);
            }
        }
        if let Phase::Open { refresh, .. } = &mut self.phase {
            if refresh.is_some_and(|due| due <= now) {
                *refresh = None;
                let lifetime = self.settings.lifetime;
                self.ask(now, What::Refresh { lifetime });
            }
            while let Some(ask) = self.peers.due(now) {
                self.renew(now, ask);
            }
        }
    }

    fn unanswered(&mut self, now: Instant, what: What) {
        match what {
            // What was granted may outlast a network that is gone for a while.
            What::Refresh { .. } if matches!(self.phase, Phase::Open { ends, .. } if now < ends) => self.ask(now, what),
            What::Allocate { .. } | What::Refresh { .. } => self.lose(Lost::NoAnswer),
            What::Permit(ip) if self.peers.is_still_granted(now, ip) => self.ask(now, what),
            What::Permit(ip) => {
                self.peers.refused(ip);
                self.tell(Event::NotPermitted(ip, None));
            }
            What::Bind { channel, .. } => self.peers.unbound(now, channel),
            What::Connect(peer) => self.tell(Event::NotConnected(peer, None)),
            What::BindConnection(_) => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) will have something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let exchanges = self.exchanges.iter().map(|exchange| exchange.timer.next()).min();
        let Phase::Open { refresh, .. } = self.phase else { return exchanges };
        [exchanges, refresh, self.peers.next_due()].into_iter().flatten().min()
    }

    /// Whether there is a message for the server: time runs until it answers.
    pub(super) fn is_asking(&self) -> bool {
        !self.out.is_empty()
    }

    /// The next message for the server.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.out.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    // ---- within

    fn renew(&mut self, now: Instant, ask: Ask) {
        match ask {
            Ask::Permit(ip) => self.ask(now, What::Permit(ip)),
            Ask::Bind { channel, peer } => self.ask(now, What::Bind { channel, peer }),
        }
    }

    fn ask(&mut self, now: Instant, what: What) {
        let id = self.id();
        let bytes = match what.encode(id, &self.proof) {
            Ok(bytes) if self.exchanges.len() < EXCHANGES => bytes,
            // Only a realm and a nonce beyond all limits make a request too long.
            _ => return self.lose(Lost::Nonsense),
        };
        let mut timing = self.settings.timing;
        if let What::Connect(_) = what {
            timing = timing.stream_timeout(CONNECTING);
        }
        let mut timer = Timer::new(timing, self.settings.stream, now);
        if timer.due(now) == Due::Send {
            self.out.push_back(bytes.clone());
        }
        self.exchanges.push(Exchange { what, id, bytes, timer, nonces: self.nonces });
    }

    fn id(&mut self) -> TransactionId {
        let mut id = [0; 12];
        self.random.fill_bytes(&mut id);
        TransactionId::modern(id)
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < EVENTS {
            self.events.push_back(event);
        }
    }

    fn lose(&mut self, lost: Lost) {
        self.end(Event::Lost(lost));
    }

    fn end(&mut self, event: Event) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.exchanges.clear();
            self.events.truncate(EVENTS - 1);
            self.tell(event);
        }
    }
}

fn connection(message: &Message<'_>) -> Option<u32> {
    message.get(message::CONNECTION_ID)?.first_chunk().map(|id| u32::from_be_bytes(*id))
}

/// For how long the server grants it.
fn granted(message: &Message<'_>) -> Option<Duration> {
    let Some(value) = message.get(message::LIFETIME) else { return Some(LIFETIME) };
    let seconds = u32::from_be_bytes(*value.first_chunk()?);
    (seconds > 0).then(|| Duration::from_secs(seconds.into()).min(LONGEST))
}

fn before(lifetime: Duration) -> Duration {
    if lifetime > 2 * EARLY { lifetime - EARLY } else { lifetime / 2 }
}
