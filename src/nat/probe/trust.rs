//! Decides: which servers tell mappings that can not be true.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use super::{Asked, Change, Observations, Purpose, SocketId};

/// The servers that are not believed: they give two sockets the same mapping, which no NAT does, or they
/// contradict a mapping or an address on which most of three or more servers agree.
pub(super) fn liars(seen: &Observations) -> BTreeSet<usize> {
    let mut liars = same_for_all(seen);
    let told: BTreeMap<usize, SocketAddr> = from_main(seen).filter(|(server, _)| !liars.contains(server)).collect();
    if let Some(mapping) = agreed(told.values().copied()) {
        liars.extend(told.iter().filter(|(_, m)| **m != mapping).map(|(server, _)| *server));
    } else if let Some(ip) = agreed(told.values().map(|m| m.ip())) {
        liars.extend(told.iter().filter(|(_, m)| m.ip() != ip).map(|(server, _)| *server));
    }
    liars
}

/// The observations without what these servers said.
pub(super) fn without(seen: &Observations, liars: &BTreeSet<usize>) -> Observations {
    let mut rest = seen.clone();
    rest.asked.retain(|a| a.server.is_none_or(|server| !liars.contains(&server)));
    liars.iter().for_each(|server| rest.alternates[*server] = None);
    rest
}

fn plain(seen: &Observations) -> impl Iterator<Item = (&Asked, usize, SocketAddr)> {
    let plain = seen.asked.iter().filter(|a| a.change == Change::None);
    plain.filter_map(|a| Some((a, a.server?, a.heard?.mapped)))
}

/// What each server told the main socket about the request to its first address.
fn from_main(seen: &Observations) -> impl Iterator<Item = (usize, SocketAddr)> {
    let mut first = BTreeMap::new();
    for (_, server, mapped) in plain(seen).filter(|(a, ..)| a.purpose == Purpose::Main) {
        first.entry(server).or_insert(mapped);
    }
    first.into_iter()
}

fn same_for_all(seen: &Observations) -> BTreeSet<usize> {
    let mut owners: HashMap<(usize, SocketAddr, SocketAddr), SocketId> = HashMap::new();
    let mut liars = BTreeSet::new();
    for (asked, server, mapped) in plain(seen) {
        if *owners.entry((server, asked.to, mapped)).or_insert(asked.socket) != asked.socket {
            liars.insert(server);
        }
    }
    liars
}

/// What more than half of at least three say.
fn agreed<T: PartialEq + Copy>(told: impl Iterator<Item = T> + Clone) -> Option<T> {
    let all = told.clone().count();
    let agreed = told.clone().find(|value| told.clone().filter(|v| v == value).count() * 2 > all);
    agreed.filter(|_| all >= 3)
}
