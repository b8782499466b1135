//! Decides: which addresses of an interface form a route, and what a route binds to.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::ops::Index;
use std::sync::{Arc, RwLock};

use super::{Family, Interface, RouteError, Scope};

/// What is known of the addresses that the world sees a route come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum External {
    /// Nobody has asked yet: a STUN query fills it in.
    #[default]
    Unknown,
    /// Seen by servers outside.
    Known(Vec<IpAddr>),
}

impl fmt::Display for External {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Known(addrs) => f.write_str(&addrs.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// Addresses of one family on one interface, beside the addresses that the world sees.
///
/// [`bind`](Self::bind) fixes the port, [`bind_to`](Self::bind_to) the address as well; a pipe
/// that is opened with a route leaves by the route's interface, with its source address. Clones
/// share what is learnt of the external addresses.
#[derive(Clone)]
pub struct Route {
    interface: Interface,
    family: Family,
    nic: Arc<[IpAddr]>,
    external: Arc<RwLock<External>>,
    bound: Option<SocketAddr>,
}

impl Route {
    fn new(interface: &Interface, family: Family, nic: Vec<IpAddr>) -> Self {
        Self { interface: interface.clone(), family, nic: nic.into(), external: Arc::default(), bound: None }
    }

    /// The interface that it leaves by.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Its address family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Its addresses on the card: never none.
    pub fn nic(&self) -> &[IpAddr] {
        &self.nic
    }

    /// The addresses that the world sees, as far as they are known.
    pub fn external(&self) -> External {
        self.external.read().map_or(External::Unknown, |known| known.clone())
    }

    /// Notes the addresses that servers outside saw. All clones of the route learn them.
    pub fn set_external(&self, seen: Vec<IpAddr>) {
        if let Ok(mut external) = self.external.write() {
            *external = External::Known(seen);
        }
    }

    /// The route fixed to its first address and `port`; 0 lets the kernel choose when a socket is made.
    pub fn bind(&self, port: u16) -> Self {
        self.fixed(self.nic[0], port)
    }

    /// The route fixed to one of its addresses and a port.
    ///
    /// # Errors
    /// [`RouteError::NotOnInterface`] when the interface does not have the address.
    pub fn bind_to(&self, ip: IpAddr, port: u16) -> Result<Self, RouteError> {
        if !self.nic.contains(&ip) {
            return Err(RouteError::NotOnInterface { interface: self.interface.name().to_owned(), ip });
        }
        Ok(self.fixed(ip, port))
    }

    fn fixed(&self, ip: IpAddr, port: u16) -> Self {
        Self { bound: Some(self.scoped(SocketAddr::new(ip, port))), ..self.clone() }
    }

    /// The address that it was fixed to.
    pub fn bound(&self) -> Option<SocketAddr> {
        self.bound
    }

    /// What a socket is bound to: the fixed address, or the first with a port of the kernel's choice.
    pub fn local(&self) -> Local {
        let addr = self.bound.unwrap_or_else(|| self.scoped(SocketAddr::new(self.nic[0], 0)));
        Local { addr, interface: Some(self.interface.clone()) }
    }

    /// The same address with this interface as its zone where the address is link-local.
    pub(crate) fn scoped(&self, addr: SocketAddr) -> SocketAddr {
        match addr {
            SocketAddr::V6(v6) if v6.scope_id() == 0 && v6.ip().is_unicast_link_local() => {
                SocketAddrV6::new(*v6.ip(), v6.port(), v6.flowinfo(), self.interface.index()).into()
            }
            _ => addr,
        }
    }
}

impl PartialEq for Route {
    /// Same interface, same addresses, fixed to the same one; what is known of the outside is no part of it.
    fn eq(&self, other: &Self) -> bool {
        (&self.interface, &self.nic, self.bound) == (&other.interface, &other.nic, other.bound)
    }
}

impl Eq for Route {}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({} {:?} external {}", self.interface.name(), self.nic, self.external())?;
        self.bound.map_or(Ok(()), |bound| write!(f, " bound {bound}"))?;
        f.write_str(")")
    }
}

/// Where a socket is bound: an address, and the interface that it must leave by.
#[derive(Clone, Debug)]
pub struct Local {
    /// Address and port; port 0 lets the kernel choose.
    pub addr: SocketAddr,
    /// The interface, or none for whichever the kernel's routes choose.
    pub interface: Option<Interface>,
}

impl Local {
    /// Any address of a family and a port of the kernel's choice.
    pub fn any(family: Family) -> Self {
        SocketAddr::new(family.unspecified(), 0).into()
    }
}

impl From<SocketAddr> for Local {
    fn from(addr: SocketAddr) -> Self {
        Self { addr, interface: None }
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{} on `{}`", self.addr, interface.name()),
            None => write!(f, "{}", self.addr),
        }
    }
}

/// The routes of an interface for one family, those that reach furthest first: each global address
/// is a route of its own; addresses of another scope are one route together, since the world sees
/// them through the same NAT.
#[derive(Clone, Debug, Default)]
pub struct RoutePool(Vec<Route>);

impl RoutePool {
    pub(crate) fn of(interface: &Interface, family: Family) -> Self {
        let mut groups: Vec<(Scope, Vec<IpAddr>)> = Vec::new();
        for addr in interface.addrs().iter().filter(|a| Family::of(a.ip) == family) {
            match groups.iter_mut().find(|(scope, _)| *scope == addr.scope && !scope.is_global()) {
                Some((_, ips)) => ips.push(addr.ip),
                None => groups.push((addr.scope, vec![addr.ip])),
            }
        }
        groups.sort_by_key(|(scope, _)| std::cmp::Reverse(*scope));
        Self(groups.into_iter().map(|(_, ips)| Route::new(interface, family, ips)).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when the interface has no address of the family.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The route at a place, or none past the end.
    pub fn get(&self, at: usize) -> Option<&Route> {
        self.0.get(at)
    }

    /// All of them in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Route> {
        self.0.iter()
    }
}

impl Index<usize> for RoutePool {
    type Output = Route;

    fn index(&self, at: usize) -> &Route {
        &self.0[at]
    }
}

impl IntoIterator for RoutePool {
    type Item = Route;
    type IntoIter = std::vec::IntoIter<Route>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a RoutePool {
    type Item = &'a Route;
    type IntoIter = std::slice::Iter<'a, Route>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::interface::{InterfaceAddr, Link};

    fn interface(ips: &[&str]) -> Interface {
        let addrs = ips.iter().map(|ip| {
            let ip = ip.parse().unwrap();
            InterfaceAddr { ip, prefix: 24, scope: Scope::of(ip) }
        });
        Interface::for_test("test0", Link { index: 7, ..Link::default() }, addrs.collect())
    }

    #[test]
    fn global_addresses_are_routes_of_their_own_and_private_ones_share_one() {
        let card = interface(&["10.0.0.2", "9.9.9.9", "10.0.0.3", "9.9.9.10", "fd00::1", "fe80::1"]);
        let pool = card.routes(Family::V4);
        assert_eq!(pool.len(), 3);
        assert_eq!(pool[0].nic(), ["9.9.9.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(pool[2].nic().len(), 2);
        assert_eq!(pool.iter().count(), pool.len());
        assert!(pool.get(3).is_none());
        let v6: Vec<_> = card.routes(Family::V6).into_iter().map(|r| r.nic()[0].to_string()).collect();
        assert_eq!(v6, ["fd00::1", "fe80::1"]);
    }

    #[test]
    fn an_interface_without_the_family_has_an_empty_pool_and_says_so() {
        let card = interface(&["10.0.0.2"]);
        assert!(card.routes(Family::V6).is_empty());
        let error = card.route(Family::V6).unwrap_err();
        assert_eq!(error.to_string(), "interface `test0` has no IPv6 address");
    }

    #[test]
    fn binding_fixes_port_and_address_and_refuses_a_foreign_one() {
        let route = interface(&["10.0.0.2", "10.0.0.3"]).route(Family::V4).unwrap();
        assert_eq!(route.bound(), None);
        assert_eq!(route.bind(80).bound(), Some("10.0.0.2:80".parse().unwrap()));
        let second = route.bind_to("10.0.0.3".parse().unwrap(), 81).unwrap();
        assert_eq!(second.local().addr, "10.0.0.3:81".parse().unwrap());
        let foreign = route.bind_to("10.0.0.4".parse().unwrap(), 81).unwrap_err();
        assert_eq!(foreign.to_string(), "10.0.0.4 is not an address of interface `test0`");
    }

    #[test]
    fn a_link_local_route_binds_within_its_zone() {
        let route = interface(&["fe80::1"]).route(Family::V6).unwrap();
        assert_eq!(route.bind(5).local().addr.to_string(), "[fe80::1%7]:5");
    }

    #[test]
    fn external_addresses_are_unknown_until_somebody_tells_and_then_known_to_all_clones() {
        let route = interface(&["10.0.0.2"]).route(Family::V4).unwrap();
        let bound = route.bind(9);
        assert_eq!(bound.external().to_string(), "unknown");
        route.set_external(vec!["9.9.9.9".parse().unwrap()]);
        assert_eq!(bound.external().to_string(), "9.9.9.9");
    }
}
