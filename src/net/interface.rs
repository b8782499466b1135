//! Touches: the interfaces of this machine, as the kernel lists them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{Family, InterfaceError, Route, RouteError, RoutePool, Scope, sys, table};

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What an interface can do and is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Flags {
    /// It is switched on.
    pub up: bool,
    /// It has a link and can carry packets.
    pub running: bool,
    /// It is this machine's own loop.
    pub loopback: bool,
    /// It reaches one other end only.
    pub point_to_point: bool,
    /// It can broadcast.
    pub broadcast: bool,
    /// It can multicast.
    pub multicast: bool,
}

/// One address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceAddr {
    /// The address.
    pub ip: IpAddr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// How far it reaches.
    pub scope: Scope,
}

/// What the kernel tells about the hardware, without addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: Option<u32>,
    pub(crate) flags: Flags,
}

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    name: String,
    link: Link,
    addrs: Vec<InterfaceAddr>,
}

/// A network interface as it was when it was listed. Cheap to clone.
///
/// It is a snapshot: an interface that changes later has to be listed again.
#[derive(Clone, PartialEq, Eq)]
pub struct Interface(Arc<Inner>);

impl Interface {
    /// All interfaces of this machine (of the network namespace of the calling thread), by index.
    ///
    /// # Errors
    /// [`InterfaceError::List`] when the kernel refuses.
    pub fn list() -> Result<Vec<Self>, InterfaceError> {
        let failed = |source| InterfaceError::List { source };
        let links = sys::links().map_err(failed)?;
        let mut addrs: BTreeMap<String, Vec<InterfaceAddr>> = BTreeMap::new();
        for entry in if_addrs::get_if_addrs().map_err(failed)? {
            addrs.entry(without_label(&entry.name).to_owned()).or_default().push(address(&entry.addr));
        }
        let join = |(name, link): (String, Link)| {
            let addrs = addrs.remove(&name).unwrap_or_default();
            Self(Arc::new(Inner { name, link, addrs }))
        };
        let mut all: Vec<_> = links.into_iter().map(join).collect();
        all.sort_by_key(Self::index);
        Ok(all)
    }

    /// The interface of this name.
    ///
    /// # Errors
    /// [`InterfaceError::NoSuchName`], which lists the names that exist.
    pub fn by_name(name: &str) -> Result<Self, InterfaceError> {
        let all = Self::list()?;
        let found = all.iter().find(|i| i.name() == name).cloned();
        found.ok_or_else(|| InterfaceError::NoSuchName {
            name: name.to_owned(),
            present: all.iter().map(Self::name).collect::<Vec<_>>().join(", "),
        })
    }

    /// The interface that has this address.
    ///
    /// # Errors
    /// [`InterfaceError::NoSuchAddress`] when none has it.
    pub fn by_addr(ip: IpAddr) -> Result<Self, InterfaceError> {
        let ip = ip.to_canonical();
        let found = Self::list()?.into_iter().find(|i| i.addrs().iter().any(|a| a.ip == ip));
        found.ok_or(InterfaceError::NoSuchAddress { ip })
    }

    /// The interface of the default route of a family. No packet is sent to find it.
    ///
    /// # Errors
    /// [`InterfaceError::NoDefaultRoute`] when the machine has none.
    pub fn default_for(family: Family) -> Result<Self, InterfaceError> {
        let name = match sys::route_table(family) {
            Some(text) => table::default_interface(family, &text).map(str::to_owned),
            None => return Self::default_by_source(family),
        };
        match name {
            Some(name) => Self::by_name(&name),
            None => Err(InterfaceError::NoDefaultRoute { family }),
        }
    }

    /// The router that its default route of a family leads to, as the kernel has it now; `None` when it has no such route,
    /// the route names no router, or the system's table can not be read (it can on Linux).
    pub fn gateway(&self, family: Family) -> Option<IpAddr> {
        table::gateway(family, self.name(), &sys::route_table(family)?)
    }

    #[cfg(test)]
    pub(crate) fn for_test(name: &str, link: Link, addrs: Vec<InterfaceAddr>) -> Self {
        Self(Arc::new(Inner { name: name.to_owned(), link, addrs }))
    }

    /// Where the route table can not be read: the source that the kernel would choose tells.
    fn default_by_source(family: Family) -> Result<Self, InterfaceError> {
        let source = super::socket::source_towards_internet(family);
        source.map_or(Err(InterfaceError::NoDefaultRoute { family }), Self::by_addr)
    }

    /// Its name, such as `eth0`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The kernel's number for it.
    pub fn index(&self) -> u32 {
        self.0.link.index
    }

    /// Its hardware address, if it has one.
    pub fn mac(&self) -> Option<Mac> {
        self.0.link.mac
    }

    /// The largest packet that it carries whole, in bytes, where the system tells.
    pub fn mtu(&self) -> Option<u32> {
        self.0.link.mtu
    }

    /// What it can do and is doing.
    pub fn flags(&self) -> Flags {
        self.0.link.flags
    }

    /// Its addresses of both families, in the kernel's order.
    pub fn addrs(&self) -> &[InterfaceAddr] {
        &self.0.addrs
    }

    /// Its routes of a family: first those that reach furthest. See [`RoutePool`].
    pub fn routes(&self, family: Family) -> RoutePool {
        RoutePool::of(self, family)
    }

    /// Its first route of a family.
    ///
    /// # Errors
    /// [`RouteError::NoAddress`] when it has no address of the family.
    pub fn route(&self, family: Family) -> Result<Route, RouteError> {
        let missing = || RouteError::NoAddress { interface: self.name().to_owned(), family };
        self.routes(family).iter().next().cloned().ok_or_else(missing)
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interface({} #{})", self.name(), self.index())
    }
}

/// The interface of an address that Linux lists under a label of its own (`eth0:1`). No name there has a colon.
pub(crate) fn without_label(name: &str) -> &str {
    if cfg!(target_os = "linux") { name.split(':').next().unwrap_or(name) } else { name }
}

fn address(addr: &if_addrs::IfAddr) -> InterfaceAddr {
    let prefix = match addr {
        if_addrs::IfAddr::V4(v4) => v4.prefixlen,
        if_addrs::IfAddr::V6(v6) => v6.prefixlen,
    };
    let ip = addr.ip();
    InterfaceAddr { ip, prefix, scope: Scope::of(ip) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_loopback_interface_is_listed_with_all_that_belongs_to_it() {
        let lo = Interface::by_addr(Ipv4Addr::LOCALHOST.into()).unwrap();
        assert!(lo.flags().loopback && lo.flags().up);
        assert!(lo.index() > 0);
        assert!(lo.mtu().is_some_and(|mtu| mtu >= 1500));
        let addr = lo.addrs().iter().find(|a| a.ip == IpAddr::from(Ipv4Addr::LOCALHOST)).unwrap();
        assert_eq!((addr.prefix, addr.scope), (8, Scope::Loopback));
        assert_eq!(Interface::by_name(lo.name()).unwrap(), lo);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_address_with_a_label_belongs_to_its_interface() {
        assert_eq!(["eth0:1", "eth0", "br-lan.7:dhcp"].map(without_label), ["eth0", "eth0", "br-lan.7"]);
    }

    #[test]
    fn a_name_that_does_not_exist_is_answered_with_those_that_do() {
        let error = Interface::by_name("nowhere9").unwrap_err().to_string();
        assert!(error.contains("nowhere9") && error.contains("lo"), "{error}");
    }

    #[test]
    fn an_address_of_nobody_is_an_error() {
        let ip = "192.0.2.77".parse().unwrap();
        assert!(matches!(Interface::by_addr(ip), Err(InterfaceError::NoSuchAddress { ip: at }) if at == ip));
    }

    #[test]
    fn a_mac_is_written_as_people_write_it() {
        assert_eq!(Mac([0, 0x1b, 0xff, 1, 2, 3]).to_string(), "00:1b:ff:01:02:03");
    }
}
