//! Decides: who is on this network, as far as its neighbours say. Anybody can say anything: who really is at an address proves it
//! when it is connected to.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::key::PeerId;
use crate::net::is_elsewhere;

/// Peers that are remembered, and addresses of each: forged answers can fill no more.
const PEERS: usize = 512;
const ADDRESSES: usize = 8;

/// A peer that is said to be on this network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LanPeer {
    /// Who it is said to be: not proved before it is connected to.
    pub peer: PeerId,
    /// Where it is said to be: the same port over TCP and UDP.
    pub addresses: Vec<SocketAddr>,
}

/// Everybody who was announced and has not left.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By the name of the announcement: a forged one can not take the place of another.
    found: BTreeMap<String, LanPeer>,
}

impl Table {
    /// An announcement, by its name, what it says who it is, and its addresses. True when something is new.
    pub(super) fn handle_found(&mut self, name: &str, id: Option<&str>, addresses: &[SocketAddr]) -> bool {
        let Some(peer) = id.and_then(|id| id.parse::<PeerId>().ok()) else { return false };
        let mut addresses: Vec<SocketAddr> = addresses.iter().copied().filter(|addr| is_elsewhere(*addr)).collect();
        addresses.sort_by_key(|addr| (addr.is_ipv6(), *addr));
        addresses.dedup();
        addresses.truncate(ADDRESSES);
        if addresses.is_empty() || (self.found.len() >= PEERS && !self.found.contains_key(name)) {
            return false;
        }
        let new = LanPeer { peer, addresses };
        self.found.insert(name.to_owned(), new.clone()).is_none_or(|old| old != new)
    }

    /// An announcement was taken back, or has become too old. True when it was known.
    pub(super) fn handle_gone(&mut self, name: &str) -> bool {
        self.found.remove(name).is_some()
    }

    /// Each peer once, with the addresses of all its announcements.
    pub(super) fn peers(&self) -> Vec<LanPeer> {
        let mut peers: BTreeMap<[u8; 32], LanPeer> = BTreeMap::new();
        // The first address of each announcement, then the second: one that names many does not hide the others.
        for round in 0..ADDRESSES {
            for found in self.found.values() {
                let entry = peers.entry(*found.peer.as_bytes());
                let known = entry.or_insert_with(|| LanPeer { peer: found.peer, addresses: Vec::new() });
                let addr = found.addresses.get(round).filter(|addr| !known.addresses.contains(addr));
                if let Some(addr) = addr.filter(|_| known.addresses.len() < 2 * ADDRESSES) {
                    known.addresses.push(*addr);
                }
            }
        }
        peers.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Identity;

    fn id(seed: u8) -> PeerId {
        Identity::from_seed([seed; 32]).peer_id()
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_comes_moves_and_goes() {
        let mut table = Table::default();
        let (ann, name) = (id(1).to_string(), "a._natpipe._udp.local.");
        assert!(table.handle_found(name, Some(&ann), &[at("192.168.1.5:7000")]));
        assert!(!table.handle_found(name, Some(&ann), &[at("192.168.1.5:7000")]), "nothing is new");
        assert!(table.handle_found(name, Some(&ann), &[at("192.168.1.6:7000"), at("[fe80::1]:7000")]));
        assert_eq!(table.peers()[0].addresses, [at("192.168.1.6:7000"), at("[fe80::1]:7000")]);
        assert!(table.handle_gone(name) && !table.handle_gone(name));
        assert!(table.peers().is_empty());
    }

    #[test]
    fn a_forged_announcement_adds_an_address_and_takes_none_away() {
        let mut table = Table::default();
        let ann = id(1).to_string();
        table.handle_found("ann", Some(&ann), &[at("192.168.1.5:7000")]);
        table.handle_found("eve", Some(&ann), &[at("192.168.1.66:7000")]);
        assert_eq!(table.peers().len(), 1);
        assert_eq!(table.peers()[0].addresses, [at("192.168.1.5:7000"), at("192.168.1.66:7000")]);
        table.handle_gone("eve");
        assert_eq!(table.peers()[0].addresses, [at("192.168.1.5:7000")]);
    }

    #[test]
    fn what_can_not_be_a_peer_is_left_out() {
        let mut table = Table::default();
        let ann = id(1).to_string();
        for (id, addr) in [
            (None, "192.168.1.5:7000"),
            (Some("not a key"), "192.168.1.5:7000"),
            (Some(&*ann), "127.0.0.1:22"),
            (Some(&*ann), "[::ffff:127.0.0.1]:22"),
            (Some(&*ann), "0.0.0.0:7000"),
            (Some(&*ann), "224.0.0.251:5353"),
            (Some(&*ann), "192.168.1.5:0"),
        ] {
            assert!(!table.handle_found("x", id, &[at(addr)]), "{id:?} {addr}");
        }
        assert!(table.peers().is_empty());
    }

    #[test]
    fn a_flood_fills_a_bounded_table() {
        let mut table = Table::default();
        for n in 0..5000_u32 {
            let id = id((n % 250) as u8 + 1).to_string();
            let [a, b, c, d] = n.to_be_bytes();
            let many: Vec<SocketAddr> = (1..=100).map(|port| ([10, b.max(a), c, d], port).into()).collect();
            table.handle_found(&format!("{n}"), Some(&id), &many);
        }
        assert_eq!(table.found.len(), PEERS);
        assert!(table.peers().iter().all(|peer| peer.addresses.len() <= 2 * ADDRESSES));
    }
}
