//! Decides: which packet is where at which virtual time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::Machine;
use crate::nat::model::{Access, Nat, Refusal, Rules, Verdict};
use crate::nat::{Packet, Rng};

/// The time that a packet occupies a LAN: what keeps packets sent at once in their order.
const LAN_SERIAL: Duration = Duration::from_micros(100);
/// From a LAN's host to its router.
const LAN_DELAY: Duration = Duration::from_micros(300);
/// Turns of one host at one moment, before it is taken for a loop that never rests.
const MAX_TURNS: u32 = 100_000;

/// What the core of the network does to packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// One way.
    pub delay: Duration,
    /// Added to the delay, evenly between zero and this.
    pub jitter: Duration,
    /// The share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// The share that is lost between a host and its NAT, in each direction: there a lost packet makes no mapping.
    pub lan_loss: f64,
    /// The share that arrives twice.
    pub duplicated: f64,
    /// The share that is held back for another delay, so that later ones overtake it.
    pub reordered: f64,
}

impl Link {
    /// A link that only delays.
    pub fn steady(delay: Duration) -> Self {
        Self { delay, jitter: Duration::ZERO, loss: 0.0, lan_loss: 0.0, duplicated: 0.0, reordered: 0.0 }
    }

    /// The same link, losing this share of packets in each direction, half of it on either side of the NAT.
    pub fn losing(self, loss: f64) -> Self {
        Self { loss: loss / 2.0, lan_loss: loss / 2.0, ..self }
    }
}

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(usize);

/// A NAT or firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NatId(usize);

/// A place where addresses mean one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Realm {
    /// The internet.
    Core,
    /// Behind this NAT.
    Behind(NatId),
}

/// What happened to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent by hosts.
    pub sent: u64,
    /// Delivered to hosts.
    pub delivered: u64,
    /// Lost by the core on purpose.
    pub lost: u64,
    /// Dropped or refused by a NAT.
    pub stopped: u64,
    /// For addresses that nobody has.
    pub unroutable: u64,
}

/// The whole network. Equal seeds and calls give equal runs.
pub struct Network {
    now: Duration,
    rng: Rng,
    link: Link,
    hosts: Vec<Host>,
    nats: Vec<Router>,
    owners: HashMap<(Realm, IpAddr), Owner>,
    events: BinaryHeap<Reverse<Event>>,
    serial: u64,
    counts: Counts,
}

struct Host {
    realm: Realm,
    machine: Box<dyn Machine>,
    /// When its LAN is free again.
    free: Duration,
}

struct Router {
    nat: Nat,
    outside: Realm,
    /// Mappings per second that other users make, and when the next one is due.
    others: f64,
    next_other: Duration,
}

#[derive(Clone, Copy)]
enum Owner {
    Host(HostId),
    Nat(NatId),
}

struct Event {
    at: Duration,
    serial: u64,
    realm: Realm,
    packet: Packet,
}

impl Network {
    /// An empty network whose core behaves like `link`.
    pub fn new(link: Link, seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            rng: Rng::new(seed),
            link,
            hosts: Vec::new(),
            nats: Vec::new(),
            owners: HashMap::new(),
            events: BinaryHeap::new(),
            serial: 0,
            counts: Counts::default(),
        }
    }

    /// Puts a NAT or firewall between `outside` and a new realm, with these addresses on its outside.
    pub fn add_nat(&mut self, outside: Realm, rules: Rules, addresses: Vec<IpAddr>) -> NatId {
        let id = NatId(self.nats.len());
        for address in &addresses {
            self.owners.insert((outside, *address), Owner::Nat(id));
        }
        let nat = Nat::new(rules, addresses, self.rng.word());
        self.nats.push(Router { nat, outside, others: 0.0, next_other: Duration::MAX });
        id
    }

    /// Lets other users of a NAT make this many mappings per second, at random times.
    pub fn add_others(&mut self, nat: NatId, per_second: f64) {
        let wait = self.wait(per_second);
        let router = &mut self.nats[nat.0];
        router.others = per_second;
        router.next_other = self.now + wait;
    }

    /// Puts a host with these addresses into a realm. Behind a firewall, and through each further one, they
    /// are known outside too.
    pub fn add_host(&mut self, realm: Realm, addresses: &[IpAddr], machine: impl Machine) -> HostId {
        let id = HostId(self.hosts.len());
        for address in addresses {
            self.owners.insert((realm, *address), Owner::Host(id));
            self.announce(realm, *address);
        }
        self.hosts.push(Host { realm, machine: Box::new(machine), free: self.now });
        id
    }

    fn announce(&mut self, mut realm: Realm, address: IpAddr) {
        while let Realm::Behind(nat) = realm {
            let router = &self.nats[nat.0];
            if router.nat.rules().access == Access::Nat {
                return;
            }
            realm = router.outside;
            self.owners.insert((realm, address), Owner::Nat(nat));
        }
    }

    /// The time now.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// What happened to packets so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A host's program, if it is of this type.
    pub fn host<M: Machine>(&self, id: HostId) -> Option<&M> {
        self.hosts.get(id.0)?.machine.as_any().downcast_ref()
    }

    /// A host's program, to change it; [`run_until`](Self::run_until) then sends what it wants sent.
    pub fn host_mut<M: Machine>(&mut self, id: HostId) -> Option<&mut M> {
        self.hosts.get_mut(id.0)?.machine.as_any_mut().downcast_mut()
    }

    /// A NAT, to ask it about its bindings.
    pub fn nat_mut(&mut self, id: NatId) -> Option<&mut Nat> {
        self.nats.get_mut(id.0).map(|router| &mut router.nat)
    }

    /// Moves packets and time until `until`, or until nothing is left to do.
    pub fn run_until(&mut self, until: Duration) {
        self.turn_all();
        while self.step(until) {}
        self.now = self.now.max(until);
    }

    /// Like [`run_until`](Self::run_until), but ends as soon as `busy` says no, at the time of that moment.
    pub fn run_while(&mut self, until: Duration, mut busy: impl FnMut(&Self) -> bool) {
        self.turn_all();
        while busy(self) && self.step(until) {}
    }

    /// The next moment at which something happens, if it is not after `until`.
    fn step(&mut self, until: Duration) -> bool {
        let event = self.events.peek().map(|Reverse(event)| event.at);
        let timeout = self.hosts.iter().filter_map(|h| h.machine.poll_timeout()).min();
        let Some(next) = event.into_iter().chain(timeout).min().filter(|next| *next <= until) else { return false };
        self.now = self.now.max(next);
        if event.is_some_and(|at| at <= self.now) {
            if let Some(Reverse(event)) = self.events.pop() {
                self.arrive(event.realm, event.packet);
            }
            return true;
        }
        for id in 0..self.hosts.len() {
            if self.hosts[id].machine.poll_timeout().is_some_and(|at| at <= self.now) {
                self.hosts[id].machine.handle_timeout(self.now);
                self.turn(HostId(id));
            }
        }
        true
    }

    fn turn_all(&mut self) {
        (0..self.hosts.len()).for_each(|id| self.turn(HostId(id)));
    }

    /// Sends what a host wants sent.
    fn turn(&mut self, id: HostId) {
        for turns in 0.. {
            assert!(turns < MAX_TURNS, "host {} never stops sending", id.0);
            let host = &mut self.hosts[id.0];
            let Some(packet) = host.machine.poll_transmit(self.now) else { return };
            self.counts.sent += 1;
            let starts = host.free.max(self.now);
            host.free = starts + LAN_SERIAL;
            let realm = host.realm;
            match realm {
                Realm::Core => self.cross(packet),
                Realm::Behind(_) => self.local(starts + LAN_DELAY, realm, packet),
            }
        }
    }

    fn schedule(&mut self, at: Duration, realm: Realm, packet: Packet) {
        self.serial += 1;
        self.events.push(Reverse(Event { at, serial: self.serial, realm, packet }));
    }

    /// Over a LAN, which may lose it.
    fn local(&mut self, at: Duration, realm: Realm, packet: Packet) {
        if self.rng.chance(self.link.lan_loss) {
            self.counts.lost += 1;
        } else {
            self.schedule(at, realm, packet);
        }
    }

    /// Into the core, which may lose, hold back or double it.
    fn cross(&mut self, packet: Packet) {
        let copies = if self.rng.chance(self.link.duplicated) { 2 } else { 1 };
        for _ in 0..copies {
            if self.rng.chance(self.link.loss) {
                self.counts.lost += 1;
                continue;
            }
            let held = if self.rng.chance(self.link.reordered) { self.link.delay } else { Duration::ZERO };
            let at = self.now + self.link.delay + self.link.jitter.mul_f64(self.rng.unit()) + held;
            self.schedule(at, Realm::Core, packet.clone());
        }
    }

    /// A packet is on the wire of this realm: its owner there takes it, or the way out does.
    fn arrive(&mut self, realm: Realm, packet: Packet) {
        match (self.owners.get(&(realm, packet.dst.ip())).copied(), realm) {
            (Some(Owner::Host(host)), _) => self.deliver(host, packet),
            (Some(Owner::Nat(nat)), _) => self.inbound(nat, realm, packet),
            (None, Realm::Behind(nat)) => self.outbound(nat, packet),
            (None, Realm::Core) => self.counts.unroutable += 1,
        }
    }

    fn deliver(&mut self, id: HostId, packet: Packet) {
        self.counts.delivered += 1;
        self.hosts[id.0].machine.handle_packet(self.now, packet);
        self.turn(id);
    }

    fn inbound(&mut self, id: NatId, from: Realm, packet: Packet) {
        self.let_others(id);
        let verdict = self.nats[id.0].nat.inbound(self.now, packet);
        self.apply(verdict, Realm::Behind(id), from);
    }

    fn outbound(&mut self, id: NatId, packet: Packet) {
        self.let_others(id);
        let verdict = self.nats[id.0].nat.outbound(self.now, packet);
        self.apply(verdict, self.nats[id.0].outside, Realm::Behind(id));
    }

    fn apply(&mut self, verdict: Verdict, forward: Realm, back: Realm) {
        match verdict {
            Verdict::Forward(packet) => self.enter(forward, packet),
            Verdict::Hairpin(packet) => self.enter(back, packet),
            Verdict::Drop(_) => self.counts.stopped += 1,
            Verdict::Refuse(Refusal::Reset(packet)) => {
                self.counts.stopped += 1;
                self.enter(back, packet);
            }
            Verdict::Refuse(_) => self.counts.stopped += 1,
        }
    }

    fn enter(&mut self, realm: Realm, packet: Packet) {
        match realm {
            Realm::Core => self.cross(packet),
            Realm::Behind(_) => self.local(self.now + LAN_DELAY, realm, packet),
        }
    }

    /// The mappings that other users have made since a packet last passed this NAT.
    fn let_others(&mut self, id: NatId) {
        while self.nats[id.0].next_other <= self.now {
            let at = self.nats[id.0].next_other;
            let other = Ipv4Addr::new(10, 255, self.rng.word() as u8, self.rng.word() as u8);
            let src = SocketAddr::new(other.into(), self.rng.port(1024, u16::MAX));
            let dst = SocketAddr::new(Ipv4Addr::new(192, 0, 2, self.rng.word() as u8).into(), 443);
            let router = &mut self.nats[id.0];
            let _ = router.nat.outbound(at, Packet::udp(src, dst, ""));
            let _ = router.nat.outbound(at, Packet::tcp(src, dst, crate::nat::TcpFlags::SYN, ""));
            let wait = self.wait(self.nats[id.0].others);
            self.nats[id.0].next_other = at + wait;
        }
    }

    /// The time to the next of events that come at random, this many per second.
    fn wait(&mut self, per_second: f64) -> Duration {
        if per_second <= 0.0 {
            return Duration::from_secs(u64::from(u32::MAX));
        }
        Duration::from_secs_f64(-(1.0 - self.rng.unit()).ln() / per_second)
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.serial) == (other.at, other.serial)
    }
}

impl Eq for Event {}
