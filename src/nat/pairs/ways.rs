//! Decides: which methods can connect two peers, from their reports.

use std::fmt;

use super::sides::{Luck, Side, meets_by_chance, packets_for_both, predicts, punches};
use crate::nat::{Entry, Family, Finding, Hairpin, Kind, Proto, Report};

/// A two-sided birthday is within reach up to this many packets per side: a few seconds at 2,000 a second.
const AFFORDABLE: u32 = 8192;

/// How two peers may come together, from the cheapest to the dearest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Method {
    /// One connects to the other, whose address is open or on the same network.
    Direct,
    /// Both send UDP to what a server saw of the other. A plain Linux router moves a mapping whose peer's packet came
    /// first, and no report can tell it from others: each side first sends a packet of so few hops that it ends before
    /// the peer's NAT.
    UdpPunch,
    /// Both open a TCP connection to what a server saw of the other, at the same time.
    TcpPunch,
    /// UDP to the ports that the next mappings are predicted to have.
    UdpPrediction,
    /// TCP to those.
    TcpPrediction,
    /// UDP from many ports on one side to many on the other.
    UdpBirthday,
    /// TCP likewise.
    TcpBirthday,
    /// UDP from many ports to many ports on both sides, where the ports come from a small block.
    UdpBirthdayBlock,
    /// Through a server that both can reach.
    Relay,
}

/// Whether it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Works {
    /// Yes, by what the reports say.
    Yes,
    /// It depends on what was not tested, or costs more than is polite unasked.
    Maybe,
    /// No.
    No,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// At least one end lets anyone in without translation.
    OpenEnd,
    /// Neither end does.
    NoOpenEnd,
    /// Both share an external address, so they may be on one network.
    SameNat,
    /// Both share an external address and their NAT does not hairpin.
    NoHairpin,
    /// The mappings that servers see are those that the peer needs, and filters open for them.
    MappingsHold,
    /// A mapping depends on the destination and the other end's filter wants to know it beforehand.
    MappingUnknown,
    /// Every mapping that is not known can be predicted.
    Predictable,
    /// An end assigns ports at random.
    RandomPorts,
    /// One end stays at its port, or lets the other's whole address in, while ports are tried.
    OneEndHolds,
    /// Both ends have to guess right at once, which takes this many packets from each.
    BothGuess {
        /// Packets per side for a 95% chance.
        packets: u32,
    },
    /// The protocol does not get out at one end.
    Blocked,
    /// Not both ends have this family and protocol.
    Missing,
    /// Both ends reach the world.
    BothOnline,
    /// One end reached no server at all.
    Offline,
    /// It is the test that is missing: the reports do not say enough.
    Untested,
}

/// One method and what is known about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// How.
    pub method: Method,
    /// Over IPv4 or IPv6; `None` for a relay.
    pub family: Option<Family>,
    /// Whether it works.
    pub works: Works,
    /// Why.
    pub reason: Reason,
}

/// Every method over each family that both have, what works first and the cheapest first among those.
/// A classification may be wrong: use this for the order and the size of attempts, not to leave any out.
pub fn ways(a: &Report, b: &Report) -> Vec<Way> {
    let mut ways = Vec::new();
    for family in [Family::V6, Family::V4] {
        ways.extend(udp_ways(family, a.find(family, Proto::Udp), b.find(family, Proto::Udp)));
        ways.extend(tcp_ways(family, a.find(family, Proto::Tcp), b.find(family, Proto::Tcp)));
    }
    let offline = a.is_offline() || b.is_offline();
    let (works, reason) = if offline { (Works::No, Reason::Offline) } else { (Works::Yes, Reason::BothOnline) };
    ways.push(Way { method: Method::Relay, family: None, works, reason });
    ways.sort_by_key(|way| (way.works, way.method, way.family != Some(Family::V6)));
    ways
}

fn udp_ways(family: Family, a: Option<&Entry>, b: Option<&Entry>) -> Vec<Way> {
    let methods =
        [Method::Direct, Method::UdpPunch, Method::UdpPrediction, Method::UdpBirthday, Method::UdpBirthdayBlock];
    let (Some(a), Some(b)) = (a, b) else { return missing(family, &methods) };
    methods.map(|method| way(method, family, a, b)).to_vec()
}

fn tcp_ways(family: Family, a: Option<&Entry>, b: Option<&Entry>) -> Vec<Way> {
    let methods = [Method::TcpPunch, Method::TcpPrediction, Method::TcpBirthday];
    let (Some(a), Some(b)) = (a, b) else { return missing(family, &methods) };
    methods.map(|method| way(method, family, a, b)).to_vec()
}

fn missing(family: Family, methods: &[Method]) -> Vec<Way> {
    let way =
        |method: &Method| Way { method: *method, family: Some(family), works: Works::No, reason: Reason::Missing };
    methods.iter().map(way).collect()
}

fn way(method: Method, family: Family, a: &Entry, b: &Entry) -> Way {
    let (works, reason) = judge(method, a, b);
    Way { method, family: Some(family), works, reason }
}

fn judge(method: Method, a: &Entry, b: &Entry) -> (Works, Reason) {
    if [a, b].iter().any(|e| e.kind() == Some(Kind::Blocked)) {
        return (Works::No, Reason::Blocked);
    }
    if same_nat(a, b) {
        return behind_one_nat(method, a, b);
    }
    // Where no server could be asked, not even that the family leads anywhere is known.
    let heard = a.answered > 0 && b.answered > 0;
    let worst = (Side::of(a, Luck::Worst), Side::of(b, Luck::Worst));
    let best = (Side::of(a, Luck::Best), Side::of(b, Luck::Best));
    if method == Method::UdpBirthdayBlock {
        let packets = packets_for_both(&worst.0, &worst.1);
        let works = if heard && packets <= AFFORDABLE { Works::Yes } else { Works::Maybe };
        return (works, Reason::BothGuess { packets });
    }
    let (works, fails) = reasons(method);
    match (heard && allows(method, &worst.0, &worst.1), allows(method, &best.0, &best.1)) {
        (true, _) => (Works::Yes, works),
        (false, true) => (Works::Maybe, Reason::Untested),
        (false, false) => (Works::No, fails),
    }
}

fn allows(method: Method, a: &Side, b: &Side) -> bool {
    match method {
        Method::Direct => a.open || b.open,
        Method::UdpPunch | Method::TcpPunch => punches(a, b),
        Method::UdpPrediction | Method::TcpPrediction => punches(a, b) || predicts(a, b),
        Method::UdpBirthday | Method::TcpBirthday => punches(a, b) || meets_by_chance(a, b),
        Method::UdpBirthdayBlock | Method::Relay => !a.blocked && !b.blocked,
    }
}

/// Why a method works and why it does not.
fn reasons(method: Method) -> (Reason, Reason) {
    match method {
        Method::Direct => (Reason::OpenEnd, Reason::NoOpenEnd),
        Method::UdpPunch | Method::TcpPunch => (Reason::MappingsHold, Reason::MappingUnknown),
        Method::UdpPrediction | Method::TcpPrediction => (Reason::Predictable, Reason::RandomPorts),
        Method::UdpBirthday | Method::TcpBirthday => (Reason::OneEndHolds, Reason::RandomPorts),
        Method::UdpBirthdayBlock | Method::Relay => (Reason::BothOnline, Reason::Offline),
    }
}

fn same_nat(a: &Entry, b: &Entry) -> bool {
    let translated = |e: &Entry| e.translated == Finding::Known(true);
    a.external.is_some() && a.external == b.external && translated(a) && translated(b)
}

/// Between two hosts behind one NAT: the network that they share, or the NAT's own external ports.
fn behind_one_nat(method: Method, a: &Entry, b: &Entry) -> (Works, Reason) {
    let hairpins = |e: &Entry| e.hairpin.known().map(|h| h != Hairpin::None);
    match (method, hairpins(a), hairpins(b)) {
        (Method::Direct, ..) => (Works::Maybe, Reason::SameNat),
        (_, Some(false), _) | (_, _, Some(false)) => (Works::No, Reason::NoHairpin),
        (Method::UdpPunch, Some(true), Some(true)) => (Works::Yes, Reason::MappingsHold),
        _ => (Works::Maybe, Reason::Untested),
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenEnd => "one end is open to anyone",
            Self::NoOpenEnd => "neither end is open to strangers",
            Self::SameNat => "both have the same external address, so they may share a network",
            Self::NoHairpin => "both are behind the same NAT, which does not send packets back inside",
            Self::MappingsHold => "the addresses that servers see are those that the peers need",
            Self::MappingUnknown => "an address changes with the destination, and the other end's filter must know it",
            Self::Predictable => "the addresses that change can be predicted",
            Self::RandomPorts => "an end assigns ports at random",
            Self::OneEndHolds => "one end can be held still while ports are tried",
            Self::BothGuess { packets } => {
                return write!(f, "both ends have to guess at once: about {packets} packets from each");
            }
            Self::Blocked => "the protocol does not get out at one end",
            Self::Missing => "not both ends have this family and protocol",
            Self::BothOnline => "both ends reach the world",
            Self::Offline => "one end reached no server",
            Self::Untested => "it was not tested",
        })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::UdpPunch => "UDP punch",
            Self::TcpPunch => "TCP punch",
            Self::UdpPrediction => "UDP punch to predicted ports",
            Self::TcpPrediction => "TCP punch to predicted ports",
            Self::UdpBirthday => "UDP punch by birthday",
            Self::TcpBirthday => "TCP punch by birthday",
            Self::UdpBirthdayBlock => "UDP punch by birthday on both sides",
            Self::Relay => "relay",
        })
    }
}
