//! Waits: ICE over our sockets, by the crate `is`, until both ends have nominated a pair.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use is::stun::{StunMessage, StunPacket, TransId};
use is::{Candidate as IceCandidate, IceAgent, IceAgentEvent};
use sha1::Sha1;
use tokio::net::UdpSocket;
use tokio::time::sleep_until;

use super::Hole;
use super::agree::Agreed;
use super::bases::{Base, UdpBase, udp_socket};
use super::gather::Gathered;
use super::hole::{OFTEN, UdpHole};
use super::message::Candidate;
use super::plan::Plan;
use super::puncher::{Dug, Effort};
use super::trickle::{Late, Later};
use super::volley::Volley;
use crate::nat::Proto;
use crate::net::socket::send_now;
use crate::net::{Local, Scope, receive_any};
use crate::stun::is_stun;

/// Room for a check.
const ROOM: usize = 2048;

/// Between the first checks of a pair: a NAT may let in only what comes after its own host's packet, and each end's
/// first one may come too early (RFC 8445 leaves the timer to the implementation).
pub(super) const FIRST_RTO: Duration = Duration::from_millis(50);

/// Between checks of different pairs, which are few here (RFC 8445 section 14.2 allows 5 ms and more).
const PACE: Duration = Duration::from_millis(5);

/// Between the later checks of a pair where the peer begins at another time, and how many there are; and what the crate has
/// otherwise.
const BY_HAND_RTO: Duration = Duration::from_millis(800);
const BY_HAND_RETRANSMITS: usize = 4500;
const USUAL_RETRANSMITS: usize = 9;

/// Where the peer begins at another time, what the plan adds is done again so long after it was done.
const ONCE_MORE: Duration = Duration::from_secs(10);

/// Of a peer-reflexive candidate (RFC 8445 section 5.1.2.1), which is what a packet of the plan makes at the other end.
const PRIORITY: u32 = 110 << 24 | 65535 << 8 | 255;

/// Where the agent names no instant of its own: it is looked at again then.
const IDLE: Duration = Duration::from_millis(500);

/// Sends one packet that dies before the peer's NAT to each place where the peer may be: our NAT lets the peer's packets in from
/// then on, and no router at the peer's end sees ours before the peer has sent its own, which some would hold against it.
pub(super) fn prime(gathered: &Gathered, candidates: &[Candidate], effort: &Effort) {
    if gathered.row.is_some_and(|row| row.alone) {
        return;
    }
    for base in &gathered.udp {
        for candidate in candidates.iter().filter(|candidate| may_be_opened(base, candidate.addr)) {
            send_near(&base.socket, &[0], candidate.addr, gathered.hops);
            effort.count();
        }
    }
}

/// Whether there may be a NAT between.
fn may_be_opened(base: &UdpBase, to: SocketAddr) -> bool {
    base.local.is_ipv4() && to.is_ipv4() && !Scope::of(to.ip()).is_inside()
}

/// One packet of few hops.
fn send_near(socket: &UdpSocket, bytes: &[u8], to: SocketAddr, hops: u8) {
    let Ok(usual) = socket.ttl() else { return };
    if socket.set_ttl(hops.into()).is_ok() {
        // It is meant to be lost.
        let _ = send_now(socket, bytes, to);
        if let Err(error) = socket.set_ttl(usual) {
            tracing::debug!(%error, "setting the hops back");
        }
    }
}

/// Runs ICE until a pair is nominated, with what the plan adds; it is for the caller to give up. ICE goes on in the hole: the
/// other end may still need answers, and both go on proving that they are there.
pub(super) async fn dig(gathered: Gathered, agreed: Agreed, plan: &Plan, effort: &Effort, later: &mut Later) -> Dug {
    let check = check(&agreed);
    let (hops, shaped, by_hand) = (gathered.hops, gathered.shaped, effort.by_hand);
    let many = match plan {
        Plan::Open { sockets, .. } | Plan::Cross { sockets, .. } | Plan::Either { sockets, .. } => {
            open(&gathered, *sockets)
        }
        _ => Vec::new(),
    };
    let volley = Volley::of(Proto::Udp, plan, Instant::now());
    let held = volley.as_ref().and_then(Volley::opened).filter(|_| gathered.row.is_some_and(|row| row.alone));
    let bases = gathered.udp;
    let controlling = agreed.controlling;
    let theirs = agreed.candidates.iter().map(|candidate| candidate.addr).collect();
    let agent = agent(&bases, agreed, by_hand);
    let mut dig = Dig { agent, bases, theirs, many, volley, held, check, hops, shaped, effort, nominated: None };
    let (local, peer) = dig.nominate(plan, later).await;
    let mut agent = dig.agent;
    if by_hand {
        // From now on a peer that is silent is gone.
        agent.set_max_stun_rto(OFTEN);
        agent.set_max_stun_retransmits(USUAL_RETRANSMITS);
    }
    settle(&mut agent, controlling, local, peer);
    // The nominated socket is ours: ICE names it by its base.
    let at = dig.bases.iter().position(|base| base.local == local).unwrap_or_default();
    let socket = dig.bases.swap_remove(at).socket;
    (Hole::Udp(Box::new(UdpHole::new(socket, local, peer, agent, controlling))), local, peer)
}

/// Where many ports are tried several are hit, within one round trip. The other sockets are closed now, and the end that
/// controls stays with the pair that it has nominated first: it is the one that the other end takes.
fn settle(agent: &mut IceAgent, controlling: bool, local: SocketAddr, peer: SocketAddr) {
    let ours = agent.local_candidates().filter(|candidate| candidate.local() != local);
    let theirs = agent.remote_candidates().filter(|candidate| controlling && candidate.addr() != peer);
    let others: Vec<IceCandidate> = ours.chain(theirs).collect();
    for candidate in &others {
        agent.invalidate_candidate(candidate);
    }
}

/// More sockets beside the one whose NAT takes another port for each destination, as many as there can be.
fn open(gathered: &Gathered, count: usize) -> Vec<Option<UdpBase>> {
    let Some(base) = gathered.udp.get(gathered.shaped) else { return Vec::new() };
    let port = |at| gathered.row.map_or(0, |row| row.port(at));
    let mut many = Vec::new();
    for at in 0..count {
        let addr = SocketAddr::new(base.local.ip(), port(at));
        let local = Local { addr, ..gathered.locals[gathered.shaped].clone() };
        let made = udp_socket(&local, None).ok().and_then(|socket| {
            let local = socket.local_addr().ok()?;
            Some(UdpBase { socket, local, mapped: None, fresh: false })
        });
        match made {
            Some(base) => many.push(Some(base)),
            // The port may be taken: one of many.
            None if port(at) != 0 => many.push(None),
            None => break,
        }
    }
    many
}

/// A check as ICE sends it, to be sent to many places: who answers it has proved to be the peer by what it sends itself.
fn check(agreed: &Agreed) -> Vec<u8> {
    let username = format!("{}:{}", agreed.theirs.ufrag, agreed.ours.ufrag);
    let request =
        StunMessage::binding_request(&username, TransId::new(), agreed.controlling, agreed.tie, PRIORITY, false);
    let mut bytes = vec![0; ROOM];
    let len = request.to_bytes(Some(agreed.theirs.pass.as_bytes()), &mut bytes, hmac_sha1).unwrap_or_default();
    bytes.truncate(len);
    bytes
}

fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key) else { return [0; 20] };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn agent(bases: &[UdpBase], agreed: Agreed, by_hand: bool) -> IceAgent {
    let mut agent = IceAgent::new(agreed.ours);
    agent.set_controlling(agreed.controlling);
    agent.set_remote_credentials(agreed.theirs);
    agent.set_initial_stun_rto(FIRST_RTO);
    agent.set_timing_advance(PACE);
    if by_hand {
        // People paste their lines minutes apart.
        agent.set_max_stun_rto(BY_HAND_RTO);
        agent.set_max_stun_retransmits(BY_HAND_RETRANSMITS);
    }
    bases.iter().for_each(|base| add_ours(&mut agent, base));
    agreed.candidates.iter().for_each(|candidate| add_theirs(&mut agent, candidate.addr));
    agent
}

fn add_ours(agent: &mut IceAgent, base: &UdpBase) {
    let host = IceCandidate::host(base.local, "udp").ok();
    host.and_then(|host| agent.add_local_candidate(host).cloned());
    let reflexive = base.mapped.filter(|mapped| *mapped != base.local);
    let reflexive = reflexive.and_then(|mapped| IceCandidate::server_reflexive(mapped, base.local, "udp").ok());
    reflexive.and_then(|reflexive| agent.add_local_candidate(reflexive).cloned());
}

/// What kind it is to the peer matters only for its place in the order: each is a place to send checks to.
fn add_theirs(agent: &mut IceAgent, addr: SocketAddr) {
    if let Ok(remote) = IceCandidate::host(addr, "udp") {
        agent.add_remote_candidate(remote);
    }
}

struct Dig<'a> {
    agent: IceAgent,
    bases: Vec<UdpBase>,
    theirs: Vec<SocketAddr>,
    /// Those that only the plan uses; one that the peer is heard on becomes a base.
    many: Vec<Option<UdpBase>>,
    volley: Option<Volley>,
    /// ICE begins then.
    held: Option<Instant>,
    check: Vec<u8>,
    hops: u8,
    shaped: usize,
    effort: &'a Effort,
    nominated: Option<(SocketAddr, SocketAddr)>,
}

impl Dig<'_> {
    /// Until a pair is nominated.
    async fn nominate(&mut self, plan: &Plan, later: &mut Later) -> (SocketAddr, SocketAddr) {
        if self.held.is_none() {
            self.agent.handle_timeout(Instant::now());
        }
        loop {
            self.transmit();
            if let Some(nominated) = self.nominated {
                return nominated;
            }
            self.shoot(plan);
            self.turn(later).await;
        }
    }

    /// One packet, one timer, or what was found later.
    async fn turn(&mut self, later: &mut Later) {
        let next = self.held.or_else(|| self.agent.poll_timeout()).unwrap_or_else(|| Instant::now() + IDLE);
        let shot = self.volley.as_ref().and_then(Volley::poll_timeout);
        let mut buf = [0; ROOM];
        let received = tokio::select! {
            received = receive_any(|| sockets(&self.bases, &self.many), &mut buf) => Some(received),
            late = later.next() => return self.late(late),
            () = sleep_until(shot.map_or(next, |shot| next.min(shot)).into()) => None,
        };
        match received {
            Some((at, from, len)) => self.hear(at, from, &buf[..len]),
            None if Instant::now() >= next => {
                self.held = None;
                self.agent.handle_timeout(Instant::now());
            }
            None => {}
        }
    }

    /// Sends what the plan has due.
    fn shoot(&mut self, plan: &Plan) {
        let now = Instant::now();
        if self.effort.by_hand && self.volley.as_ref().is_some_and(|volley| volley.poll_timeout().is_none()) {
            self.volley = Volley::of(Proto::Udp, plan, now + ONCE_MORE);
        }
        while let Some(shot) = self.volley.as_mut().and_then(|volley| volley.poll_shot(now)) {
            let to = match plan {
                Plan::Either { to, ports, .. } if shot.sprays => SocketAddr::new(to.ip(), ports[shot.target]),
                Plan::Open { to, .. } | Plan::Either { to, .. } => *to,
                Plan::Cross { ip, ports, .. } | Plan::Spray { ip, ports } => (*ip, ports[shot.target]).into(),
                Plan::Meet | Plan::Hopeless { .. } => return,
            };
            let of_many = || self.many.get(shot.socket).and_then(Option::as_ref);
            let from = if shot.sprays { self.bases.get(self.shaped) } else { of_many() };
            let Some(base) = from else { continue };
            self.effort.count();
            if shot.primes {
                send_near(&base.socket, &self.check, to, self.hops);
            } else {
                // One that is lost was one of many.
                let _ = send_now(&base.socket, &self.check, to);
            }
        }
    }

    /// One more place to send from, or more places to send to; our own NAT is opened first in each case.
    fn late(&mut self, late: Late) {
        match late {
            Late::Ours(Base::Udp(base)) => {
                add_ours(&mut self.agent, &base);
                self.theirs.iter().for_each(|to| self.open(&base, *to));
                self.bases.push(base);
            }
            // Of the other protocol there is none.
            Late::Ours(Base::Tcp(_)) => {}
            Late::Theirs(candidates) => {
                for candidate in candidates.into_iter().filter(|candidate| candidate.proto == Proto::Udp) {
                    if self.theirs.contains(&candidate.addr) {
                        continue;
                    }
                    self.bases.iter().for_each(|base| self.open(base, candidate.addr));
                    self.theirs.push(candidate.addr);
                    add_theirs(&mut self.agent, candidate.addr);
                }
            }
        }
        if self.held.is_none() {
            self.agent.handle_timeout(Instant::now());
        }
    }

    fn open(&self, base: &UdpBase, to: SocketAddr) {
        if self.held.is_none() && may_be_opened(base, to) {
            send_near(&base.socket, &[0], to, self.hops);
            self.effort.count();
        }
    }

    fn hear(&mut self, at: Heard, source: SocketAddr, bytes: &[u8]) {
        if !is_stun(bytes) {
            return;
        }
        let Ok(message) = StunMessage::parse(bytes) else { return };
        if !self.agent.accepts_message(&message) {
            return;
        }
        let at = match at {
            Heard::Base(at) => at,
            Heard::Many(at) => match self.many.get_mut(at).and_then(Option::take) {
                Some(base) => self.promote(base),
                None => return,
            },
        };
        let (now, destination) = (Instant::now(), self.bases[at].local);
        self.agent.handle_packet(now, StunPacket { proto: is::Protocol::Udp, source, destination, message });
        self.agent.handle_timeout(now);
    }

    /// The peer has been heard on this socket: ICE uses it from now on.
    fn promote(&mut self, base: UdpBase) -> usize {
        if let Ok(host) = IceCandidate::host(base.local, "udp") {
            self.agent.add_local_candidate(host);
        }
        self.bases.push(base);
        self.bases.len() - 1
    }

    fn transmit(&mut self) {
        while let Some(transmit) = self.agent.poll_transmit() {
            if let Some(base) = self.bases.iter().find(|base| base.local == transmit.source) {
                self.effort.count();
                // Unreachable now may be reachable at the next check.
                let _ = send_now(&base.socket, &transmit.contents, transmit.destination);
            }
        }
        while let Some(event) = self.agent.poll_event() {
            if let IceAgentEvent::NominatedSend { source, destination, .. } = event {
                self.nominated.get_or_insert((source, destination));
            }
        }
    }
}

/// At which socket something came.
#[derive(Clone, Copy, Debug)]
enum Heard {
    Base(usize),
    Many(usize),
}

/// All sockets.
fn sockets<'a>(bases: &'a [UdpBase], many: &'a [Option<UdpBase>]) -> impl Iterator<Item = (Heard, &'a UdpSocket)> {
    let bases = bases.iter().enumerate().map(|(at, base)| (Heard::Base(at), &base.socket));
    let many = many.iter().enumerate().filter_map(|(at, base)| Some((Heard::Many(at), &base.as_ref()?.socket)));
    bases.chain(many)
}
