//! Decides: which addresses the parts of a lab get.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::backbone::Prefix;
use super::kind::Kind;

/// Numbers given out of each kind, so that every address fits its last byte.
const MAX: u8 = 250;

/// What has been given out in one lab. Labs do not see each other, so each begins anew.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    public: u8,
    wan: u8,
    lan: u8,
}

/// The addresses of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

/// A network behind a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lan {
    v4: [u8; 3],
    number: u8,
    given: u8,
}

impl Plan {
    /// A host on the internet: TEST-NET-2 (RFC 5737) and documentation addresses (RFC 3849).
    pub(crate) fn host(&mut self) -> Option<Pair> {
        let n = step(&mut self.public)?;
        Some(Pair { v4: Ipv4Addr::new(198, 51, 100, n), v6: documentation(0, n) })
    }

    /// A router's address on the internet: TEST-NET-3.
    pub(crate) fn wan(&mut self) -> Option<Pair> {
        let n = step(&mut self.wan)?;
        Some(Pair { v4: Ipv4Addr::new(203, 0, 113, n), v6: documentation(1, n) })
    }

    /// The network behind a router of this kind.
    pub(crate) fn lan_of(&mut self, kind: Kind) -> Option<Lan> {
        match kind {
            kind if kind.is_routed() => self.routed(),
            kind if kind.is_carrier() => self.carrier(),
            _ => self.home(),
        }
    }

    /// A network in a home.
    fn home(&mut self) -> Option<Lan> {
        self.lan([192, 168])
    }

    /// A network of a carrier, between its NAT and the homes (RFC 6598).
    fn carrier(&mut self) -> Option<Lan> {
        self.lan([100, 64])
    }

    /// A network whose addresses the whole internet knows (from 198.18.0.0/15, RFC 2544).
    fn routed(&mut self) -> Option<Lan> {
        self.lan([198, 18])
    }

    fn lan(&mut self, [a, b]: [u8; 2]) -> Option<Lan> {
        let number = step(&mut self.lan)?;
        Some(Lan { v4: [a, b, number], number, given: 1 })
    }
}

impl Lan {
    /// The router's addresses in it.
    pub(crate) fn gateway(&self) -> Pair {
        self.pair(1)
    }

    /// The next host's addresses.
    pub(crate) fn host(&mut self) -> Option<Pair> {
        step(&mut self.given).map(|n| self.pair(n))
    }

    pub(crate) fn v4(&self) -> Prefix {
        let [a, b, c] = self.v4;
        Prefix { address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), bits: 24 }
    }

    pub(crate) fn v6(&self) -> Prefix {
        Prefix { address: IpAddr::V6(in_lan(self.number, 0)), bits: 64 }
    }

    /// The IPv4 address of the host that has this IPv6 address.
    pub(crate) fn v4_of(&self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let [.., n] = address.octets();
        (self.pair(n).v6 == address).then(|| self.pair(n).v4)
    }

    /// The IPv6 address of the host that has this IPv4 address.
    pub(crate) fn v6_of(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let [.., n] = address.octets();
        (self.pair(n).v4 == address).then(|| self.pair(n).v6)
    }

    fn pair(&self, n: u8) -> Pair {
        let [a, b, c] = self.v4;
        Pair { v4: Ipv4Addr::new(a, b, c, n), v6: in_lan(self.number, n) }
    }
}

/// What the core answers from.
pub(crate) const CORE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0xffff, 0, 0, 0, 1))];

fn documentation(net: u16, n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, net, 0, 0, 0, n.into())
}

fn in_lan(lan: u8, n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, lan.into(), 0, 0, 0, n.into())
}

fn step(counter: &mut u8) -> Option<u8> {
    (*counter < MAX).then(|| {
        *counter += 1;
        *counter
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_given_out_twice() {
        let mut plan = Plan::default();
        let mut seen = std::collections::HashSet::new();
        let (mut home, mut carrier) = (plan.home().unwrap(), plan.carrier().unwrap());
        for _ in 0..200 {
            for pair in [plan.host(), plan.wan(), home.host(), carrier.host()].map(Option::unwrap) {
                assert!(seen.insert(IpAddr::V4(pair.v4)) && seen.insert(IpAddr::V6(pair.v6)));
            }
        }
        assert!(!seen.contains(&IpAddr::V4(home.gateway().v4)));
    }

    #[test]
    fn a_full_kind_gives_nothing_more() {
        let mut plan = Plan::default();
        assert_eq!((0..300).filter_map(|_| plan.host()).count(), usize::from(MAX));
    }

    #[test]
    fn a_network_has_the_addresses_of_its_hosts() {
        let mut lan = Plan::default().home().unwrap();
        let host = lan.host().unwrap();
        assert!(lan.v4().has(host.v4.into()) && lan.v6().has(host.v6.into()));
        assert!(!lan.v4().has(CORE[0]) && !lan.v6().has(CORE[1]));
    }
}
