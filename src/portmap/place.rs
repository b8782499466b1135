//! Holds: what is asked for, by which protocol, and where: a route and the gateway that it leads to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::net::{Family, Interface, Route, Scope};

/// Where PCP servers are found when the gateway is not known (RFC 7723).
const PCP_ANYCAST: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 9);

/// What is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proto {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Proto {
    /// Its number in IP.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// How a gateway is asked. The first is preferred where several are answered at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Protocol {
    /// The Port Control Protocol (RFC 6887); for IPv6 it opens a pinhole.
    Pcp,
    /// The NAT Port Mapping Protocol (RFC 6886), IPv4 alone.
    NatPmp,
    /// UPnP's Internet Gateway Device; for IPv6 its WANIPv6FirewallControl.
    Upnp,
}

impl Protocol {
    /// Those that there are for a family.
    pub fn of(family: Family) -> &'static [Self] {
        match family {
            Family::V4 => &[Self::Pcp, Self::NatPmp, Self::Upnp],
            Family::V6 => &[Self::Pcp, Self::Upnp],
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// Whether a route has a gateway that could open something: its addresses are private, or global IPv6 ones, before which there may
/// be a firewall, and it leads to a router. Where the system does not tell of routers, every such route is taken to.
pub fn can_help(route: &Route) -> bool {
    let behind = match (Scope::of(route.nic()[0]), route.family()) {
        (scope, Family::V4) => scope.is_inside(),
        (scope, Family::V6) => scope.is_global(),
    };
    behind && (!cfg!(target_os = "linux") || route.interface().gateway(route.family()).is_some())
}

/// Where we stand: on a route, before a gateway. Another place means that every mapping has to be asked for anew.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) route: Route,
    pub(super) gateway: Option<IpAddr>,
}

impl PartialEq for Place {
    /// What the interface has beside our address does not matter.
    fn eq(&self, other: &Self) -> bool {
        let of = |place: &Self| (place.route.interface().index(), place.inside(), place.gateway);
        of(self) == of(other)
    }
}

impl Place {
    pub(super) fn of(route: &Route) -> Self {
        Self { route: route.clone(), gateway: route.interface().gateway(route.family()) }
    }

    /// The place as it is now: the interface may have another address or another gateway, or be gone.
    pub(super) fn now(route: &Route) -> Option<Self> {
        let interface = Interface::by_name(route.interface().name()).ok()?;
        let routes = interface.routes(route.family());
        let same = routes.iter().find(|now| now.nic().contains(&route.local().addr.ip()));
        let wide = |now: &&Route| Scope::of(now.nic()[0]) != Scope::LinkLocal;
        Some(Self::of(same.or_else(|| routes.iter().find(wide))?))
    }

    pub(super) fn family(&self) -> Family {
        self.route.family()
    }

    /// Our address, which the gateway forwards to.
    pub(super) fn inside(&self) -> IpAddr {
        self.route.local().addr.ip()
    }

    /// Where a protocol is spoken at the gateway, with the zone that a link-local address needs.
    pub(super) fn at(&self, protocol: Protocol, port: u16) -> Option<SocketAddr> {
        let anycast = (protocol == Protocol::Pcp && self.family() == Family::V4).then_some(PCP_ANYCAST.into());
        self.gateway.or(anycast).map(|ip| self.route.scoped(SocketAddr::new(ip, port)))
    }
}
