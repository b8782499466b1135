//! Decides: whether an external address that a gateway names is worth telling anybody.

use std::net::{IpAddr, SocketAddr};

use crate::net::Scope;

/// True when others can reach `external`: it is an address of the Internet, or one that servers outside have `seen` us come from.
/// A gateway behind another NAT opens its port to a network that nobody outside can reach, and names an address of that network; a
/// broken one names none. `inside` is our own address, which would say nothing new.
pub fn is_useful(external: SocketAddr, inside: IpAddr, seen: &[IpAddr]) -> bool {
    let ip = external.ip().to_canonical();
    let own = ip == inside.to_canonical() && ip.is_ipv4();
    let known = || seen.iter().any(|seen| seen.to_canonical() == ip);
    external.port() != 0 && !own && !is_nobody(ip) && (Scope::of(ip).is_global() || known())
}

/// No one host, or not one elsewhere, whatever anybody has seen.
fn is_nobody(ip: IpAddr) -> bool {
    matches!(
        Scope::of(ip),
        Scope::Unspecified | Scope::Loopback | Scope::LinkLocal | Scope::Multicast | Scope::Broadcast
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn useful(external: &str, seen: &[&str]) -> bool {
        let seen: Vec<IpAddr> = seen.iter().map(|ip| ip.parse().unwrap()).collect();
        is_useful(external.parse().unwrap(), "192.168.1.7".parse().unwrap(), &seen)
    }

    #[test]
    fn an_address_of_the_internet_is_useful_and_one_of_a_network_between_two_nats_is_not() {
        assert!(useful("9.9.9.9:40000", &[]));
        assert!(useful("[2001:4860::1]:40000", &[]));
        for inner in ["10.0.0.2:40000", "192.168.0.2:1", "100.64.0.9:7", "172.16.3.4:8", "203.0.113.4:9", "[fd00::1]:5"]
        {
            assert!(!useful(inner, &[]), "{inner}");
            assert!(!useful(inner, &["9.9.9.9"]), "{inner}");
        }
    }

    #[test]
    fn what_servers_outside_have_seen_is_useful_whatever_its_kind() {
        assert!(useful("203.0.113.4:9", &["203.0.113.4"]));
        assert!(useful("10.0.0.2:9", &["198.51.100.1", "10.0.0.2"]), "servers on the same wide private network");
    }

    #[test]
    fn no_address_no_port_and_our_own_are_never_useful() {
        for nobody in ["0.0.0.0:5", "127.0.0.1:5", "169.254.1.1:5", "224.0.0.1:5", "255.255.255.255:5", "9.9.9.9:0"] {
            let seen = nobody.split(':').next().unwrap();
            assert!(!useful(nobody, &[seen]), "{nobody}");
        }
        assert!(!useful("192.168.1.7:5", &["192.168.1.7"]));
    }
}
