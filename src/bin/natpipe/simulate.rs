//! Decides: two simulated hosts, each behind a modelled NAT, that find their addresses, tell each other, and do what the plan of a
//! real punch says, with checks as ICE sends them.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use natpipe::lab::sim::{Fault, HostId, Link, Machine, Message, Network, Realm, Responder};
use natpipe::nat::model::{Access, Rules};
use natpipe::nat::probe::Change;
use natpipe::nat::{Packet, Proto, Rng, TTL};
use natpipe::punch::{Assigned, Plan, Shape, Shot, Volley};

/// A request is sent again after these; then who is silent is left out.
const ASKS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(700)];
const SILENT: Duration = Duration::from_millis(1100);

/// Between a pair's checks.
const CHECKS: [u64; 7] = [50, 100, 200, 400, 800, 1600, 3000];

/// Between the first packets, which die on their way, and the checks.
const MARGIN: Duration = Duration::from_millis(30);

/// After so many hops a packet has left its own NAT and not reached the peer's.
const HOPS: u8 = 2;

/// How long it goes on when everything is sent.
const AFTER: Duration = Duration::from_secs(3);

/// Mappings a second that others behind the same NAT make.
const OTHERS: f64 = 5.0;

const CHECK: &[u8] = b"check";
const REPLY: &[u8] = b"reply";

/// What came of one attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub open: bool,
    /// From the instant, where it is open.
    pub took: Duration,
    /// Sent by both ends from the instant on.
    pub packets: u32,
}

/// One attempt. Equal seeds give equal runs; `epoch` is the instant that virtual time counts from.
pub fn attempt(rules: [&Rules; 2], seed: u64, epoch: Instant) -> Attempt {
    let mut network = Network::new(Link::steady(Duration::from_millis(10)), seed);
    let servers: [SocketAddr; 2] = [([198, 51, 100, 1], 3478).into(), ([198, 51, 100, 2], 3479).into()];
    let responder = Responder::new(servers[0], servers[1], Fault::None);
    network.add_host(Realm::Core, &responder.addresses(), responder);
    let mut rng = Rng::new(seed);
    let mut hosts = Vec::new();
    for (at, rules) in (1u8..).zip(rules) {
        let outside = IpAddr::from([203, 0, 113, at]);
        let inside =
            if rules.access == Access::Nat { IpAddr::from([10, 0, at, 2]) } else { [203, 0, 113, 10 + at].into() };
        let nat = network.add_nat(Realm::Core, rules.clone(), vec![outside]);
        network.add_others(nat, OTHERS);
        let end = End::new(inside, servers, rng.word());
        hosts.push(network.add_host(Realm::Behind(nat), &[inside], end));
    }
    let hosts = [hosts[0], hosts[1]];
    let is = |network: &Network, id: HostId, what: fn(&End) -> bool| network.host::<End>(id).is_some_and(what);
    network.run_while(SILENT * 3, |network| hosts.iter().any(|id| !is(network, *id, |end| end.found.is_some())));
    let found = hosts.map(|id| network.host::<End>(id).and_then(|end| end.found.clone()).unwrap_or_default());
    let begun = network.now();
    let mut until = begun;
    for (id, other) in hosts.into_iter().zip([1, 0]) {
        if let Some(end) = network.host_mut::<End>(id) {
            until = until.max(end.begin(begun, epoch, &found[other]));
        }
    }
    network.run_while(until + AFTER, |network| hosts.iter().any(|id| !is(network, *id, |end| end.done)));
    let open = hosts.iter().all(|id| is(&network, *id, |end| end.done));
    let packets = hosts.iter().filter_map(|id| network.host::<End>(*id)).map(|end| end.sent).sum();
    Attempt { open, took: network.now() - begun, packets }
}

/// What a host tells the other.
#[derive(Clone, Debug, Default)]
struct Found {
    candidates: Vec<SocketAddr>,
    shape: Option<Shape>,
}

/// A place that checks are sent to, from one of our ports.
struct Pair {
    port: u16,
    to: SocketAddr,
    sent: usize,
    due: Duration,
}

struct End {
    local: IpAddr,
    servers: [SocketAddr; 2],
    rng: Rng,
    /// The port that is punched from.
    base: u16,
    /// What each server saw of it.
    seen: [Option<SocketAddr>; 2],
    /// Fresh ports and what the first server saw of them.
    samples: Vec<(u16, Option<u16>)>,
    asked: usize,
    /// When this round of asking began.
    asking: Duration,
    found: Option<Found>,
    pairs: Vec<Pair>,
    /// The plan's sockets are on the ports after this one.
    row: Option<u16>,
    /// Nothing else is sent before they are.
    alone: bool,
    /// The plan's sockets, as far as they have been used.
    many: BTreeMap<usize, u16>,
    plan: Plan,
    volley: Option<Volley>,
    epoch: Option<Instant>,
    outbox: VecDeque<Packet>,
    sent: u32,
    /// A check of ours was answered.
    done: bool,
}

impl End {
    fn new(local: IpAddr, servers: [SocketAddr; 2], seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let base = port(&mut rng);
        Self {
            local,
            servers,
            rng,
            base,
            seen: [None; 2],
            samples: Vec::new(),
            asked: 0,
            asking: Duration::ZERO,
            found: None,
            pairs: Vec::new(),
            row: None,
            alone: false,
            many: BTreeMap::new(),
            plan: Plan::Meet,
            volley: None,
            epoch: None,
            outbox: VecDeque::new(),
            sent: 0,
            done: false,
        }
    }

    fn send(&mut self, from: u16, to: SocketAddr, payload: &'static [u8], ttl: Option<u8>) {
        let packet = Packet::udp(SocketAddr::new(self.local, from), to, payload);
        self.outbox.push_back(packet.with_ttl(ttl.unwrap_or(TTL)));
        self.sent += 1;
    }

    // ---- finding our own addresses

    fn ask(&mut self) {
        self.asked += 1;
        let mut requests = Vec::new();
        if self.samples.is_empty() {
            let silent = (0..2).filter(|at| self.seen[*at].is_none());
            requests.extend(silent.map(|at| (self.base, self.servers[at], [at as u8, 0])));
        } else {
            let silent = self.samples.iter().enumerate().filter(|(_, (_, mapped))| mapped.is_none());
            requests.extend(silent.map(|(at, (port, _))| (*port, self.servers[0], [2, at as u8])));
        }
        for (from, to, tag) in requests {
            let mut id = [0; 12];
            id[..2].copy_from_slice(&tag);
            let payload = Message::Request { id, change: Change::None }.encode();
            self.outbox.push_back(Packet::udp(SocketAddr::new(self.local, from), to, payload));
        }
    }

    fn answered(&mut self, now: Duration, id: [u8; 12], mapped: SocketAddr) {
        match id[0] {
            at @ (0 | 1) => self.seen[usize::from(at)] = Some(mapped),
            _ => {
                if let Some(sample) = self.samples.get_mut(usize::from(id[1])) {
                    sample.1 = Some(mapped.port());
                }
            }
        }
        let all = self.seen.iter().all(Option::is_some) && self.samples.iter().all(|(_, mapped)| mapped.is_some());
        if all {
            self.conclude(now);
        }
    }

    fn same(&self) -> Vec<u16> {
        self.seen.iter().flatten().map(SocketAddr::port).collect()
    }

    /// What was asked is answered, or will not be.
    fn conclude(&mut self, now: Duration) {
        if self.found.is_some() {
            return;
        }
        if self.samples.is_empty() && Assigned::may_move(self.base, &self.same()) {
            self.samples = Assigned::samples(&mut self.rng).into_iter().map(|port| (port, None)).collect();
            (self.asked, self.asking) = (0, now);
            self.ask();
            return;
        }
        let fresh: Vec<(u16, u16)> =
            self.samples.iter().filter_map(|(local, mapped)| Some((*local, (*mapped)?))).collect();
        let host = |port| SocketAddr::new(self.local, port);
        let Some(SocketAddr::V4(mapped)) = self.seen.into_iter().flatten().next() else {
            self.found = Some(Found { candidates: vec![host(self.base)], shape: None });
            return;
        };
        let mut shape = Shape { addr: mapped, ports: Assigned::of(self.base, &self.same(), &fresh) };
        if let Some(by) = Assigned::fresh_by(&fresh) {
            self.base = port(&mut self.rng);
            shape = Shape { addr: mapped, ports: Assigned::First };
            shape.addr.set_port((i32::from(self.base) + by) as u16);
            self.row = Some(self.base);
        } else if let Some(after) = Assigned::row(&fresh) {
            (self.row, self.alone) = (Some(after), true);
        }
        let mut candidates = vec![shape.addr.into(), host(self.base)];
        candidates.dedup();
        self.found = Some(Found { candidates, shape: Some(shape) });
    }

    // ---- digging

    /// Begins, and says when everything is sent.
    fn begin(&mut self, now: Duration, epoch: Instant, theirs: &Found) -> Duration {
        let ours = self.found.as_ref().and_then(|found| found.shape);
        self.plan = Plan::new(Proto::Udp, ours, theirs.shape, false, self.rng.word());
        self.volley = Volley::of(Proto::Udp, &self.plan, epoch + now + MARGIN);
        self.epoch = Some(epoch);
        self.sent = 0;
        let held = self.volley.as_ref().and_then(Volley::opened).filter(|_| self.alone).map(|at| at - epoch);
        for to in &theirs.candidates {
            if !is_inside(to.ip()) && !self.alone {
                self.send(self.base, *to, b"", Some(HOPS));
            }
            self.pairs.push(Pair { port: self.base, to: *to, sent: 0, due: held.unwrap_or(now + MARGIN) });
        }
        self.volley.as_ref().and_then(Volley::ends).map_or(now, |ends| ends - epoch)
    }

    fn check(&mut self, now: Duration) {
        let mut checks = Vec::new();
        for pair in self.pairs.iter_mut().filter(|pair| pair.due <= now) {
            checks.push((pair.port, pair.to));
            pair.due = CHECKS.get(pair.sent).map_or(Duration::MAX, |ms| now + Duration::from_millis(*ms));
            pair.sent += 1;
        }
        checks.into_iter().for_each(|(port, to)| self.send(port, to, CHECK, None));
    }

    fn shoot(&mut self, now: Duration) {
        let Some(epoch) = self.epoch else { return };
        while let Some(shot) = self.volley.as_mut().and_then(|volley| volley.poll_shot(epoch + now)) {
            let to = match &self.plan {
                Plan::Either { to, ports, .. } if shot.sprays => SocketAddr::new(to.ip(), ports[shot.target]),
                Plan::Open { to, .. } | Plan::Either { to, .. } => *to,
                Plan::Cross { ip, ports, .. } | Plan::Spray { ip, ports } => (*ip, ports[shot.target]).into(),
                _ => return,
            };
            let from = if shot.sprays { self.base } else { self.socket(shot) };
            self.send(from, to, CHECK, shot.primes.then_some(HOPS));
        }
    }

    fn socket(&mut self, shot: Shot) -> u16 {
        let (rng, row) = (&mut self.rng, self.row);
        let make = || row.map_or_else(|| port(rng), |after| after + 1 + shot.socket as u16);
        *self.many.entry(shot.socket).or_insert_with(make)
    }
}

/// As a kernel chooses it for who does not care.
fn port(rng: &mut Rng) -> u16 {
    rng.port(32_768, 60_999)
}

fn is_inside(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_private())
}

impl Machine for End {
    fn handle_packet(&mut self, now: Duration, packet: Packet) {
        let port = packet.dst.port();
        if let Some(Message::Answer { id, mapped, .. }) = Message::decode(&packet.payload) {
            self.answered(now, id, mapped);
        } else if &packet.payload[..] == CHECK {
            self.send(port, packet.src, REPLY, None);
            // An address that checks come from is one to send them to.
            if !self.pairs.iter().any(|pair| pair.port == port && pair.to == packet.src) {
                self.pairs.push(Pair { port, to: packet.src, sent: 0, due: now });
            }
            self.check(now);
        } else if &packet.payload[..] == REPLY {
            self.done = true;
        }
    }

    fn handle_timeout(&mut self, now: Duration) {
        if self.found.is_none() {
            if now >= self.asking + SILENT {
                self.conclude(now);
            } else if ASKS.get(self.asked).is_some_and(|after| now >= self.asking + *after) {
                self.ask();
            }
        }
        self.check(now);
        self.shoot(now);
    }

    fn poll_transmit(&mut self, _now: Duration) -> Option<Packet> {
        self.outbox.pop_front()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        let asks = self.asking + ASKS.get(self.asked).copied().unwrap_or(SILENT);
        let asks = self.found.is_none().then_some(asks);
        let checks = self.pairs.iter().map(|pair| pair.due).filter(|due| *due != Duration::MAX).min();
        let shots = self.volley.as_ref().and_then(Volley::poll_timeout).zip(self.epoch).map(|(at, epoch)| at - epoch);
        [asks, checks, shots].into_iter().flatten().min()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
