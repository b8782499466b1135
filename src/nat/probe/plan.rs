//! Decides: how many sockets a probe opens, on which local ports, and how patient it is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Server;
use crate::nat::{Family, Proto, Rng};
use crate::net::Scope;

/// Servers asked at most: enough that one lie or silence is outvoted, few enough to be polite.
pub(super) const MAX_SERVERS: usize = 4;
/// Servers with two addresses on which filtering is tested, each by two sockets of its own.
pub(super) const MAX_LEADS: usize = 2;
/// Neighbouring local ports in each burst of samples: they show a step that depends on the local port.
const RUN: u16 = 5;
/// Local ports far from each other in each burst: they show a step that does not.
const APART: usize = 3;
/// Local ports are chosen from here, above what services use and below what most systems hand out.
const LOCAL_LOW: u16 = 10_000;
const LOCAL_HIGH: u16 = 32_000;

/// Between the bursts of samples: long enough to see the mappings of others.
pub(super) const BETWEEN_BURSTS: Duration = Duration::from_millis(300);

/// How often and how long a request is repeated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Sendings in all. UDP: five, so that at 2% loss each way one test in ten million fails by chance.
    pub(super) tries: u32,
    /// Before the second sending, while the round trip is unknown; grows by half each time.
    first: Duration,
    shortest: Duration,
    longest: Duration,
}

impl Patience {
    pub(super) fn for_proto(proto: Proto) -> Self {
        let ms = Duration::from_millis;
        match proto {
            Proto::Udp => Self { tries: 5, first: ms(200), shortest: ms(60), longest: ms(400) },
            // The kernel repeats a lost SYN after a second; a request of ours is repeated over a new connection.
            Proto::Tcp => Self { tries: 2, first: ms(1500), shortest: ms(1500), longest: ms(1500) },
        }
    }

    /// The time between the sending with this number (1 is the first) and the next, or giving up.
    pub(super) fn interval(&self, sent: u32, round_trip: Option<Duration>) -> Duration {
        match round_trip {
            None => self.first * 3u32.pow(sent.saturating_sub(1)) / 2u32.pow(sent.saturating_sub(1)),
            Some(rtt) if sent < self.tries => (rtt * 3 / 2).clamp(self.shortest, self.longest),
            // The last one gets more time: a late answer counts as well as an early one.
            Some(rtt) => (rtt * 3).clamp(self.shortest * 2, self.longest * 3),
        }
    }
}

/// The local ports of one burst of samples.
pub(super) fn burst(rng: &mut Rng) -> Vec<u16> {
    let base = rng.port(LOCAL_LOW, LOCAL_HIGH - RUN);
    let mut ports: Vec<u16> = (0..RUN).map(|n| base + n).collect();
    while ports.len() < usize::from(RUN) + APART {
        let port = rng.port(LOCAL_LOW, LOCAL_HIGH);
        if ports.iter().all(|p| p.abs_diff(port) > 1) {
            ports.push(port);
        }
    }
    ports
}

/// The servers that will be asked.
pub(super) fn servers(given: &[Server], family: Family) -> Vec<Server> {
    let fitting = given.iter().filter(|s| Family::of(s.primary.ip()) == family && s.primary.port() != 0);
    fitting.take(MAX_SERVERS).copied().collect()
}

/// A server's second address, if it is one: another address and port of the same family, and not a place
/// where requests should never go on a stranger's word.
pub(super) fn usable_alternate(primary: SocketAddr, other: SocketAddr) -> Option<SocketAddr> {
    let ip = other.ip();
    let leads = Scope::of(primary.ip()).may_lead_to(Scope::of(ip));
    let differs = ip != primary.ip() && other.port() != primary.port() && other.port() != 0;
    (ip.is_ipv4() == primary.is_ipv4() && differs && leads).then_some(other)
}

/// True for addresses that only mean something inside a network (RFC 1918, RFC 6598, RFC 4193, link-local).
pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_broadcast() || is_shared(ip),
        IpAddr::V6(v6) => v6.segments()[0] & 0xfe00 == 0xfc00 || v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// True for 100.64.0.0/10, which carriers use between their NAT and their customers (RFC 6598).
pub(super) fn is_shared(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_has_neighbours_first_and_then_strangers() {
        let ports = burst(&mut Rng::new(3));
        assert_eq!(ports.len(), 8);
        assert!(ports[..5].windows(2).all(|w| w[1] == w[0] + 1));
        assert!(ports[4..].windows(2).all(|w| w[1].abs_diff(w[0]) > 1));
    }

    #[test]
    fn an_alternate_address_that_is_none_is_not_believed() {
        let primary: SocketAddr = "198.51.100.1:3478".parse().unwrap();
        let usable = |other: &str| usable_alternate(primary, other.parse().unwrap()).is_some();
        assert!(usable("198.51.100.2:3479"));
        for lie in [
            "198.51.100.1:3479",
            "198.51.100.2:3478",
            "198.51.100.2:0",
            "[2001:db8::1]:3479",
            "127.0.0.1:3479",
            "192.168.1.1:3479",
            "224.0.0.1:3479",
            "0.0.0.0:3479",
        ] {
            assert!(!usable(lie), "{lie}");
        }
    }

    #[test]
    fn patience_grows_while_the_distance_is_unknown() {
        let patience = Patience::for_proto(Proto::Udp);
        assert!(patience.interval(2, None) > patience.interval(1, None));
        let near = Some(Duration::from_millis(50));
        assert_eq!(patience.interval(1, near), Duration::from_millis(75));
        assert!(patience.interval(patience.tries, near) > patience.interval(1, near));
    }
}
