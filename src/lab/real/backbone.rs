//! Decides: what the internet's core does with each packet, and when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use super::gate::{Gate, Way};
use super::icmp;
use super::wire;
use crate::lab::sim::Link;
use crate::nat::Rng;

/// Packets under way at most; what comes beyond is lost, as in a full router.
const MAX_UNDER_WAY: usize = 1 << 16;

/// What waits in front of a limited port for longer than this is lost, as in a router with a queue of that length.
const QUEUE: Duration = Duration::from_millis(100);

/// A place where something is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Port(pub(crate) u32);

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) address: IpAddr,
    pub(crate) bits: u8,
}

impl Prefix {
    /// This address alone.
    pub(crate) fn only(address: IpAddr) -> Self {
        Self { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    pub(crate) fn has(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                u64::from(a.to_bits() ^ b.to_bits()) >> (32 - u32::from(self.bits.min(32))) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(128 - u32::from(self.bits.min(128))).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// What happened to the packets that crossed the core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Handed to where they went, copies included.
    pub delivered: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Doubled on purpose.
    pub doubled: u64,
    /// Held back on purpose, so that later ones overtake them.
    pub held_back: u64,
    /// Ended by their TTL.
    pub expired: u64,
    /// For addresses that nobody has.
    pub unroutable: u64,
    /// Lost because too many were under way, or waited at a port whose rate is limited.
    pub overflowed: u64,
    /// Not taken by the system that they were delivered to: its interface was down, or it had no memory.
    pub untaken: u64,
}

/// The core: what is attached to it, and the packets under way.
pub(crate) struct Backbone {
    own: [IpAddr; 2],
    link: Link,
    rng: Rng,
    attached: BTreeMap<Port, Attached>,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    next: u32,
    serial: u64,
    traffic: Traffic,
}

struct Attached {
    prefixes: Vec<Prefix>,
    gate: Option<Gate>,
    /// On top of the core's own.
    link: Option<Link>,
    pace: Option<Pace>,
}

/// A port through which only so much passes, each way.
#[derive(Clone, Copy)]
struct Pace {
    bytes_per_second: f64,
    /// When what was sent, and what was received, has passed.
    free: [Duration; 2],
}

/// Which way a packet passes a port.
#[derive(Clone, Copy)]
enum Passing {
    Sent,
    Received,
}

impl Pace {
    /// When a packet that comes to the port at `at` has passed; `None` when the queue is full.
    fn pass(&mut self, way: Passing, at: Duration, bytes: usize) -> Option<Duration> {
        let free = &mut self.free[way as usize];
        let begins = at.max(*free);
        if begins - at > QUEUE {
            return None;
        }
        *free = begins + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        Some(*free)
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    at: Duration,
    serial: u64,
    to: Port,
    /// The gate of `to` has let it through already.
    passed: bool,
    bytes: Vec<u8>,
}

impl Backbone {
    /// A core that answers from the addresses `own`, one of each family, and behaves like `link`.
    pub(crate) fn new(own: [IpAddr; 2], link: Link, seed: u64) -> Self {
        Self {
            own,
            link,
            rng: Rng::new(seed),
            attached: BTreeMap::new(),
            under_way: BinaryHeap::new(),
            next: 0,
            serial: 0,
            traffic: Traffic::default(),
        }
    }

    /// Attaches what has these addresses, behind a NAT if there is a gate.
    pub(crate) fn attach(&mut self, prefixes: Vec<Prefix>, gate: Option<Gate>) -> Port {
        let port = Port(self.next);
        self.next += 1;
        self.attached.insert(port, Attached { prefixes, gate, link: None, pace: None });
        port
    }

    pub(crate) fn add_prefix(&mut self, port: Port, prefix: Prefix) {
        if let Some(attached) = self.attached.get_mut(&port) {
            attached.prefixes.push(prefix);
        }
    }

    pub(crate) fn detach(&mut self, port: Port) {
        self.attached.remove(&port);
    }

    pub(crate) fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// What packets to and from this port meet on top of the core's link.
    pub(crate) fn set_link_of(&mut self, port: Port, link: Link) {
        if let Some(attached) = self.attached.get_mut(&port) {
            attached.link = Some(link);
        }
    }

    /// How many bytes per second pass a port, each way.
    pub(crate) fn set_rate_of(&mut self, port: Port, bytes_per_second: Option<NonZeroU64>) {
        if let Some(attached) = self.attached.get_mut(&port) {
            attached.pace =
                bytes_per_second.map(|rate| Pace { bytes_per_second: rate.get() as f64, free: [Duration::ZERO; 2] });
        }
    }

    pub(crate) fn gate(&mut self, port: Port) -> Option<&mut Gate> {
        self.attached.get_mut(&port)?.gate.as_mut()
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The system behind a port did not take what it was given.
    pub(crate) fn not_taken(&mut self) {
        self.traffic.untaken += 1;
    }

    /// A packet that the system behind `from` sent.
    pub(crate) fn handle(&mut self, now: Duration, from: Port, bytes: Vec<u8>) {
        let Some(attached) = self.attached.get_mut(&from) else { return };
        match attached.gate.as_mut() {
            None => self.cross(now, from, bytes),
            Some(gate) => {
                let way = gate.outbound(now, bytes);
                self.follow(now, from, way);
            }
        }
    }

    /// When the next packet arrives somewhere.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.under_way.peek().map(|Reverse(packet)| packet.at)
    }

    /// The next packet that has arrived by `now`, for the system behind that port. It stands below
    /// [`handle`](Self::handle) in the driver's turn, and is called until there is none.
    pub(crate) fn poll(&mut self, now: Duration) -> Option<(Port, Vec<u8>)> {
        loop {
            if self.next_due()? > now {
                return None;
            }
            let Reverse(packet) = self.under_way.pop()?;
            let Some(attached) = self.attached.get_mut(&packet.to) else { continue };
            let way = match attached.gate.as_mut() {
                Some(gate) if !packet.passed => gate.inbound(now, packet.bytes),
                _ => Way::Inside(packet.bytes),
            };
            if let Way::Inside(bytes) = way {
                self.traffic.delivered += 1;
                return Some((packet.to, bytes));
            }
            self.follow(now, packet.to, way);
        }
    }

    fn follow(&mut self, now: Duration, port: Port, way: Way) {
        match way {
            Way::Outside(bytes) => self.cross(now, port, bytes),
            Way::Inside(bytes) => self.put_under_way(now, port, true, bytes),
            Way::Nowhere => {}
        }
    }

    fn cross(&mut self, now: Duration, from: Port, mut bytes: Vec<u8>) {
        let Some(header) = wire::header(&bytes) else { return };
        if header.dst.is_multicast() || is_link_local(header.dst) || is_link_local(header.src) {
            return;
        }
        if header.ttl <= 1 {
            self.traffic.expired += 1;
            return self.refuse(now, from, icmp::Error::TimeExceeded, &bytes);
        }
        let Some(to) = self.owner(header.dst) else {
            self.traffic.unroutable += 1;
            return self.refuse(now, from, icmp::Error::NoRoute, &bytes);
        };
        wire::set_ttl(&mut bytes, header.ttl - 1);
        self.carry(now, from, to, bytes);
    }

    /// Whoever has the longest prefix of this address.
    fn owner(&self, address: IpAddr) -> Option<Port> {
        let all = self.attached.iter().flat_map(|(port, attached)| attached.prefixes.iter().map(move |p| (p, port)));
        all.filter(|(prefix, _)| prefix.has(address)).max_by_key(|(prefix, _)| prefix.bits).map(|(_, port)| *port)
    }

    /// Tells the sender behind `to` that its packet ended here.
    fn refuse(&mut self, now: Duration, to: Port, why: icmp::Error, bytes: &[u8]) {
        let own =
            self.own.into_iter().find(|own| wire::header(bytes).is_some_and(|h| h.src.is_ipv4() == own.is_ipv4()));
        if let Some(answer) = own.and_then(|own| why.about(bytes, own)) {
            self.carry(now, to, to, answer);
        }
    }

    fn carry(&mut self, now: Duration, from: Port, to: Port, bytes: Vec<u8>) {
        let fate = self.fate(from, to);
        if fate.lost {
            self.traffic.lost += 1;
            return;
        }
        self.traffic.held_back += u64::from(fate.held_back);
        let Some(at) = self.pass(now, fate.delay, [from, to], bytes.len()) else {
            self.traffic.overflowed += 1;
            return;
        };
        if fate.doubled {
            self.traffic.doubled += 1;
            self.put_under_way(at, to, false, bytes.clone());
        }
        self.put_under_way(at, to, false, bytes);
    }

    /// When a packet arrives that passes both ports, and has this far between them.
    fn pass(&mut self, now: Duration, delay: Duration, [from, to]: [Port; 2], bytes: usize) -> Option<Duration> {
        let mut pace = |port, way, at| match self.attached.get_mut(&port).and_then(|attached| attached.pace.as_mut()) {
            Some(pace) => pace.pass(way, at, bytes),
            None => Some(at),
        };
        let left = pace(from, Passing::Sent, now)?;
        pace(to, Passing::Received, left + delay)
    }

    fn fate(&mut self, from: Port, to: Port) -> Fate {
        let own = |port| self.attached.get(&port).and_then(|attached| attached.link);
        let mut fate = Fate::default();
        for link in [Some(self.link), own(from), own(to)].into_iter().flatten() {
            fate.lost |= self.rng.chance(link.loss);
            fate.doubled |= self.rng.chance(link.duplicated);
            fate.delay += link.delay + link.jitter.mul_f64(self.rng.unit());
            if self.rng.chance(link.reordered) {
                fate.held_back = true;
                fate.delay += link.delay.max(HELD_BACK);
            }
        }
        fate
    }

    fn put_under_way(&mut self, at: Duration, to: Port, passed: bool, bytes: Vec<u8>) {
        if self.under_way.len() >= MAX_UNDER_WAY {
            self.traffic.overflowed += 1;
            return;
        }
        self.serial += 1;
        self.under_way.push(Reverse(UnderWay { at, serial: self.serial, to, passed, bytes }));
    }
}

/// How long a packet is held back on a link without delay, so that others can overtake it.
const HELD_BACK: Duration = Duration::from_millis(5);

/// What becomes of one packet.
#[derive(Default)]
struct Fate {
    lost: bool,
    doubled: bool,
    held_back: bool,
    delay: Duration,
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
