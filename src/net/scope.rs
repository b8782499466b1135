//! Decides: which family an address belongs to and how far it reaches.

use std::fmt;
#[cfg(feature = "punch")]
use std::net::SocketAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The address that means "any of mine" when bound.
    pub fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// The loopback address, `127.0.0.1` or `::1`.
    pub fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::LOCALHOST.into(),
            Self::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Scope {
    /// This machine only: `127/8`, `::1`.
    Loopback,
    /// One link: `169.254/16` (RFC 3927), `fe80::/10` (RFC 4291).
    LinkLocal,
    /// A private network: `10/8`, `172.16/12`, `192.168/16` (RFC 1918).
    Private,
    /// A private IPv6 network: `fc00::/7` (RFC 4193).
    UniqueLocal,
    /// Between a carrier and its customers: `100.64/10` (RFC 6598), the mark of a CGNAT.
    Shared,
    /// Many listeners: `224/4`, `ff00::/8`.
    Multicast,
    /// Every host of a link: `255.255.255.255`.
    Broadcast,
    /// No address: `0.0.0.0`, `::`.
    Unspecified,
    /// Set apart for documents, benchmarks, translation and other special use (RFC 6890).
    Reserved,
    /// The whole Internet.
    Global,
}

impl Scope {
    /// The scope of an address. An IPv4-mapped IPv6 address has the scope of the IPv4 address.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => of_v4(ip),
            IpAddr::V6(ip) => of_v6(ip),
        }
    }

    /// True for an address that a host on another network can be given.
    pub fn is_global(self) -> bool {
        self == Self::Global
    }

    /// True where a packet to the address stays inside a network that is not the Internet.
    pub fn is_inside(self) -> bool {
        matches!(self, Self::Private | Self::UniqueLocal | Self::Shared)
    }

    /// True where somebody at an address of this scope may send us on to one of `other`: nobody far away leads us to this
    /// machine itself or into a network of ours, and nobody to what is no host.
    pub(crate) fn may_lead_to(self, other: Self) -> bool {
        let is_near = |scope: Self| scope.is_inside() || scope == Self::LinkLocal;
        match other {
            Self::Unspecified | Self::Multicast | Self::Broadcast => false,
            Self::Loopback => self == Self::Loopback,
            _ => self != Self::Loopback && (!is_near(other) || is_near(self)),
        }
    }
}

/// Whether something may be sent there on a stranger's word: not to this machine itself, nobody, or everybody.
#[cfg(feature = "punch")]
pub(crate) fn is_elsewhere(addr: SocketAddr) -> bool {
    let nowhere =
        matches!(Scope::of(addr.ip()), Scope::Loopback | Scope::Unspecified | Scope::Multicast | Scope::Broadcast);
    !nowhere && addr.port() != 0
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Private => "private",
            Self::UniqueLocal => "unique-local",
            Self::Shared => "shared",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Unspecified => "unspecified",
            Self::Reserved => "reserved",
            Self::Global => "global",
        })
    }
}

fn of_v4(ip: Ipv4Addr) -> Scope {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        _ if ip.is_unspecified() => Scope::Unspecified,
        _ if ip.is_broadcast() => Scope::Broadcast,
        (127, ..) => Scope::Loopback,
        (169, 254, _) => Scope::LinkLocal,
        (100, 64..=127, _) => Scope::Shared,
        _ if ip.is_private() => Scope::Private,
        _ if ip.is_multicast() => Scope::Multicast,
        (0 | 240.., ..) | (192, 0, 0) | (198, 18..=19, _) => Scope::Reserved,
        _ if ip.is_documentation() => Scope::Reserved,
        _ => Scope::Global,
    }
}

fn of_v6(ip: Ipv6Addr) -> Scope {
    let [a, b, c, d, e, f, ..] = ip.segments();
    match (a, b) {
        _ if ip.is_unspecified() => Scope::Unspecified,
        _ if ip.is_loopback() => Scope::Loopback,
        _ if ip.is_multicast() => Scope::Multicast,
        (0xfe80..=0xfebf, _) => Scope::LinkLocal,
        (0xfc00..=0xfdff, _) => Scope::UniqueLocal,
        (0x2001, 0x0db8) | (0x3fff, 0..=0x0fff) | (0x0100, 0) | (0x2001, 2) => Scope::Reserved,
        // RFC 6052's prefix has 96 bits; its neighbour 64:ff9b:1::/48 is for local use (RFC 8215).
        (0x0064, 0xff9b) if [c, d, e, f] == [0; 4] => Scope::Global,
        (0x2000..=0x3fff, _) => Scope::Global,
        _ => Scope::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "punch")]
    #[test]
    fn nothing_is_sent_to_ourselves_to_nobody_or_to_everybody_on_a_strangers_word() {
        let nowhere = ["127.0.0.1:9", "[::1]:9", "[::ffff:127.0.0.1]:9", "0.0.0.0:9", "[::]:9", "224.0.0.1:9"];
        for addr in nowhere.into_iter().chain(["[ff02::1]:9", "255.255.255.255:9", "198.51.100.1:0"]) {
            assert!(!is_elsewhere(addr.parse().unwrap()), "{addr}");
        }
        for addr in ["198.51.100.1:9", "10.0.0.1:9", "169.254.3.4:9", "[fe80::1]:9", "[2001:db8::1]:9"] {
            assert!(is_elsewhere(addr.parse().unwrap()), "{addr}");
        }
    }

    #[test]
    fn nobody_leads_into_a_network_that_he_is_not_in() {
        let leads = |from: &str, to: &str| Scope::of(from.parse().unwrap()).may_lead_to(Scope::of(to.parse().unwrap()));
        for (from, to) in
            [("8.8.8.8", "9.9.9.9"), ("10.0.0.1", "192.168.1.1"), ("10.0.0.1", "8.8.8.8"), ("::1", "127.0.0.1")]
        {
            assert!(leads(from, to), "{from} to {to}");
        }
        for to in
            ["127.0.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "::1", "fd00::1"]
        {
            assert!(!leads("8.8.8.8", to), "{to}");
        }
        assert!(!leads("127.0.0.1", "8.8.8.8"));
    }

    #[test]
    fn each_kind_of_address_is_told_apart() {
        let table = [
            ("127.0.0.1", Scope::Loopback),
            ("127.255.0.9", Scope::Loopback),
            ("10.0.0.1", Scope::Private),
            ("172.16.0.1", Scope::Private),
            ("172.31.255.255", Scope::Private),
            ("172.32.0.1", Scope::Global),
            ("192.168.1.1", Scope::Private),
            ("169.254.3.4", Scope::LinkLocal),
            ("100.63.255.255", Scope::Global),
            ("100.64.0.0", Scope::Shared),
            ("100.127.255.255", Scope::Shared),
            ("100.128.0.0", Scope::Global),
            ("0.0.0.0", Scope::Unspecified),
            ("255.255.255.255", Scope::Broadcast),
            ("224.0.0.251", Scope::Multicast),
            ("240.0.0.1", Scope::Reserved),
            ("192.0.2.1", Scope::Reserved),
            ("198.18.0.1", Scope::Reserved),
            ("8.8.8.8", Scope::Global),
            ("::", Scope::Unspecified),
            ("::1", Scope::Loopback),
            ("::ffff:10.0.0.1", Scope::Private),
            ("fe80::1", Scope::LinkLocal),
            ("febf::1", Scope::LinkLocal),
            ("fc00::1", Scope::UniqueLocal),
            ("fd12:3456::1", Scope::UniqueLocal),
            ("ff02::fb", Scope::Multicast),
            ("2001:db8::1", Scope::Reserved),
            ("64:ff9b::808:808", Scope::Global),
            ("64:ff9b:1::808:808", Scope::Reserved),
            ("2606:4700::1111", Scope::Global),
        ];
        for (ip, scope) in table {
            assert_eq!(Scope::of(ip.parse().unwrap()), scope, "{ip}");
        }
    }
}
