//! Decides: what observations say about a NAT, and what they can not say.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use super::plan::{is_private, is_shared};
use super::{Asked, Change, Observations, Purpose, Sample, Setup, allocation, trust};
use crate::nat::{Delta, Entry, Filtering, Finding, Hairpin, Layers, Mapping, Ports, Proto, Why};

/// The report's entry for these observations.
pub fn classify(setup: &Setup, seen: &Observations) -> Entry {
    let mut entry = Entry::untested(&setup.interface, setup.family(), setup.proto);
    let answered: BTreeSet<usize> = plain(seen).filter(|a| a.heard.is_some()).filter_map(|a| a.server).collect();
    entry.asked = plain(seen).filter_map(|a| a.server).collect::<BTreeSet<_>>().len() as u8;
    entry.answered = answered.len() as u8;
    let seen = &trust::without(seen, &trust::liars(seen));
    (entry.external, entry.pooled) = external(seen);
    entry.translated = translated(seen);
    entry.mapping = mapping(seen);
    entry.filtering = match setup.proto {
        Proto::Udp => filtering(seen, entry.mapping),
        Proto::Tcp => Finding::Untested(Why::NotOverTcp),
    };
    let samples = samples(seen);
    entry.delta = match entry.translated {
        Finding::Known(false) => Finding::Untested(Why::NotTranslated),
        _ => allocation::delta(&samples),
    };
    if let Finding::Known(Delta::Independent(by)) = entry.delta {
        entry.foreign = allocation::foreign(&samples, by);
    }
    let ports = samples.iter().map(|s| s.mapped);
    entry.ports = ports.clone().min().zip(ports.max()).map(|(low, high)| Ports::new(low, high));
    entry.samples = samples.len() as u8;
    entry.hairpin = hairpin(setup, seen, &entry);
    entry.layers = layers(setup.local, entry.external, entry.translated, setup.router);
    entry
}

/// How many NATs stand in a row, from the host's address, the one that the world sees, and the one that
/// the router claims to have.
pub fn layers(
    local: IpAddr,
    external: Option<IpAddr>,
    translated: Finding<bool>,
    router: Option<IpAddr>,
) -> Finding<Layers> {
    let Some(external) = external else { return Finding::Untested(Why::NoAnswer) };
    if translated == Finding::Known(false) {
        return Finding::Known(Layers::None);
    }
    match router {
        _ if is_shared(local) || is_shared(external) => Finding::Known(Layers::Carrier),
        Some(router) if is_shared(router) => Finding::Known(Layers::Carrier),
        Some(router) if router == external => Finding::Known(Layers::One),
        Some(router) if is_private(router) || router != external => Finding::Known(Layers::Double),
        _ => Finding::Untested(Why::NoRouterAddress),
    }
}

/// Requests to servers that want their answer from where they went.
fn plain(seen: &Observations) -> impl Iterator<Item = &Asked> {
    seen.asked.iter().filter(|a| a.server.is_some() && a.change == Change::None)
}

fn heard(seen: &Observations) -> impl Iterator<Item = (&Asked, SocketAddr)> {
    plain(seen).filter_map(|a| a.heard.map(|h| (a, h.mapped)))
}

/// The address that most answers tell, and whether there are several.
fn external(seen: &Observations) -> (Option<IpAddr>, bool) {
    let mut told: HashMap<IpAddr, usize> = HashMap::new();
    heard(seen).for_each(|(_, mapped)| *told.entry(mapped.ip()).or_default() += 1);
    let most = told.iter().max_by_key(|(ip, count)| (**count, **ip)).map(|(ip, _)| *ip);
    (most, told.len() > 1)
}

/// Most servers decide whether the local address is the one that the world sees.
fn translated(seen: &Observations) -> Finding<bool> {
    let mut votes: HashMap<usize, (usize, usize)> = HashMap::new();
    for (asked, mapped) in heard(seen) {
        let vote = votes.entry(asked.server.unwrap_or_default()).or_default();
        if mapped == asked.local { vote.0 += 1 } else { vote.1 += 1 }
    }
    let same = votes.values().filter(|(same, other)| same > other).count();
    match votes.len() {
        0 => Finding::Untested(Why::NoAnswer),
        servers => Finding::Known(same * 2 <= servers),
    }
}

/// Compares the main socket's mappings towards different places (RFC 5780 section 4.3).
fn mapping(seen: &Observations) -> Finding<Mapping> {
    let points: Vec<(SocketAddr, SocketAddr)> =
        heard(seen).filter(|(a, _)| a.purpose == Purpose::Main).map(|(a, mapped)| (a.to, mapped)).collect();
    let hosts: BTreeSet<IpAddr> = points.iter().map(|(to, _)| to.ip()).collect();
    let agreeing = most_agreeing(&points);
    if agreeing.hosts >= 2 && agreeing.points * 3 >= points.len() * 2 {
        return Finding::Known(Mapping::EndpointIndependent);
    }
    let (same, differ) = by_port(&points);
    match (hosts.len(), same, differ) {
        (0, ..) => Finding::Untested(Why::NoAnswer),
        // Two random ports out of a small block may be equal by chance; what depends on the address alone never differs.
        (_, same, differ) if differ > 0 && differ >= same => Finding::Known(Mapping::AddressAndPortDependent),
        (1, ..) => Finding::Untested(Why::OneAddress),
        (_, same, differ) if same > differ => Finding::Known(Mapping::AddressDependent),
        _ => Finding::AtLeast(Mapping::AddressDependent),
    }
}

struct Agreeing {
    points: usize,
    hosts: usize,
}

/// The largest set of answers that tell the same mapping.
fn most_agreeing(points: &[(SocketAddr, SocketAddr)]) -> Agreeing {
    let sets = points.iter().map(|(_, mapped)| {
        let set = points.iter().filter(|(_, m)| m == mapped);
        Agreeing { points: set.clone().count(), hosts: set.map(|(to, _)| to.ip()).collect::<BTreeSet<_>>().len() }
    });
    sets.max_by_key(|set| (set.points, set.hosts)).unwrap_or(Agreeing { points: 0, hosts: 0 })
}

/// Pairs of ports at the same address to which the mapping is the same, and to which it differs.
fn by_port(points: &[(SocketAddr, SocketAddr)]) -> (usize, usize) {
    let pairs = points.iter().enumerate().flat_map(|(n, a)| points[n + 1..].iter().map(move |b| (a, b)));
    let (mut same, mut differ) = (0, 0);
    for (a, b) in pairs.filter(|(a, b)| a.0.ip() == b.0.ip() && a.0.port() != b.0.port()) {
        if a.1 == b.1 { same += 1 } else { differ += 1 }
    }
    (same, differ)
}

/// The easiest that any server's tests prove: an answer that came through is proof, silence only evidence.
fn filtering(seen: &Observations, mapping: Finding<Mapping>) -> Finding<Filtering> {
    let servers: Vec<usize> = (0..seen.alternates.len()).filter(|s| seen.alternates[*s].is_some()).collect();
    let verdicts: Vec<_> = servers.iter().map(|s| filtering_by(seen, *s, mapping)).collect();
    let known = verdicts.iter().filter_map(|v| v.known()).min().map(Finding::Known);
    let least = || verdicts.iter().filter_map(|v| v.least()).min().map(Finding::AtLeast);
    let silent = plain(seen).all(|a| a.heard.is_none());
    let why = if silent { Why::NoAnswer } else { Why::OneAddress };
    known.or_else(least).or_else(|| verdicts.first().copied()).unwrap_or(Finding::Untested(why))
}

/// What one server's answers say about filtering (RFC 5780 section 4.4).
fn filtering_by(seen: &Observations, server: usize, mapping: Finding<Mapping>) -> Finding<Filtering> {
    let both = Trial::of(seen, server, Purpose::Filter(Change::Both), Change::Both);
    let port = Trial::of(seen, server, Purpose::Filter(Change::Port), Change::Port);
    let control = Trial::of(seen, server, Purpose::Main, Change::Both);
    match (both, port) {
        (Trial::CameThrough, _) => return Finding::Known(Filtering::EndpointIndependent),
        (Trial::Ignored, _) | (_, Trial::Ignored) => return Finding::Untested(Why::NotHonoured),
        (Trial::Untried, _) => return Finding::Untested(Why::NoAnswer),
        _ => {}
    }
    // Towards a NAT whose mapping depends on the destination there is no control: the answer from the second
    // address goes to another mapping than the one that was opened for it.
    let controllable = mapping == Finding::Known(Mapping::EndpointIndependent);
    let honoured = control == Trial::CameThrough || port == Trial::CameThrough || !controllable;
    match port {
        _ if !honoured || !alternate_lives(seen, server) => Finding::Untested(Why::NotHonoured),
        Trial::CameThrough => Finding::Known(Filtering::AddressDependent),
        Trial::Silent => Finding::Known(Filtering::AddressAndPortDependent),
        _ => Finding::AtLeast(Filtering::AddressDependent),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    /// The answer came from where it was wanted.
    CameThrough,
    /// It came from where the request went: the server does not change.
    Ignored,
    /// Plain requests were answered on that socket, this one was not.
    Silent,
    /// It was not asked, or nothing came back at all.
    Untried,
}

impl Trial {
    fn of(seen: &Observations, server: usize, purpose: Purpose, change: Change) -> Self {
        let here = |a: &&Asked| a.purpose == purpose && a.server == Some(server);
        let Some(asked) = seen.asked.iter().filter(here).find(|a| a.change == change) else { return Self::Untried };
        let plainly = seen.asked.iter().filter(here).any(|a| a.change == Change::None && a.heard.is_some());
        match asked.heard {
            Some(heard) if heard.from == asked.to => Self::Ignored,
            Some(_) => Self::CameThrough,
            None if plainly => Self::Silent,
            None => Self::Untried,
        }
    }
}

/// True when the server answered from its second address at all, once that was asked directly.
fn alternate_lives(seen: &Observations, server: usize) -> bool {
    let Some(other) = seen.alternates[server] else { return false };
    plain(seen).any(|a| a.server == Some(server) && a.to == other && a.heard.is_some())
}

/// The samples over all fresh sockets, those of one server only: another one may lie.
fn samples(seen: &Observations) -> Vec<Sample> {
    heard(seen)
        .filter(|(a, _)| a.purpose == Purpose::Sample)
        .map(|(a, m)| Sample { order: a.order, at: a.sent, local: a.local.port(), mapped: m.port() })
        .collect()
}

fn hairpin(setup: &Setup, seen: &Observations, entry: &Entry) -> Finding<Hairpin> {
    let tests: Vec<&Asked> = seen.asked.iter().filter(|a| a.server.is_none()).collect();
    if let Some((asked, heard)) = tests.iter().find_map(|a| a.heard.map(|h| (a, h))) {
        // Either the sender's own address, or the router's inner one: not what the world sees.
        let internal = heard.from == asked.local || Some(heard.from.ip()) != entry.external;
        return Finding::Known(if internal { Hairpin::Internal } else { Hairpin::External });
    }
    let why = match (entry.translated, entry.mapping) {
        _ if setup.proto == Proto::Tcp => Why::NotOverTcp,
        (Finding::Untested(why), _) => why,
        (Finding::Known(false), _) => Why::NotTranslated,
        (_, Finding::Known(Mapping::EndpointIndependent)) if !tests.is_empty() => return Finding::Known(Hairpin::None),
        (_, mapping) if mapping.least() > Some(Mapping::EndpointIndependent) => Why::MappingDepends,
        _ => Why::NoAnswer,
    };
    Finding::Untested(why)
}
