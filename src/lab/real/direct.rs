//! Touches: a core that is the kernel's own router, at the kernel's own speed.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use super::LabError;
use super::backbone::{Port, Prefix};
use super::internet::Uplink;
use super::plan::CORE;
use super::space::Space;

/// What a cable at the core has on its side, of IPv6: another one for each, so that it can be waited for.
fn gateway(port: Port) -> Ipv6Addr {
    Ipv6Addr::from_bits((0xfe80 << 112) + 1 + u128::from(port.0))
}

/// A namespace that forwards between cables.
pub(crate) struct Direct {
    space: Space,
    next: AtomicU32,
}

impl Direct {
    pub(crate) fn new() -> Result<Self, LabError> {
        let space = Space::new("core")?;
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            space.set(key, "1")?;
        }
        for own in CORE {
            space.ip(&format!("addr add {own} dev lo"))?;
        }
        Ok(Self { space, next: AtomicU32::new(0) })
    }

    /// Puts a cable between the core and a namespace.
    pub(crate) fn attach(
        &self,
        space: &Space,
        interface: &str,
        uplink: &Uplink,
        metric: usize,
    ) -> Result<Port, LabError> {
        let port = Port(self.next.fetch_add(1, Ordering::Relaxed));
        let plug = plug(port);
        let there = space.path();
        let mut lines = format!("link add {plug} type veth peer name {interface} netns {}\n", there.display());
        lines += &format!("addr add {}/64 dev {plug} nodad\nlink set {plug} up\n", gateway(port));
        self.space.ip(&lines)?;
        space.ip(&uplink.commands(interface, ways(port, interface), metric))?;
        space.wait_for_local(&uplink.public)?;
        self.space.wait_for_local(&[gateway(port).into()])?;
        space.wait_for_carrier(interface)?;
        self.space.wait_for_carrier(&plug)?;
        for address in &uplink.public {
            self.add_address(port, *address)?;
        }
        for network in &uplink.routed {
            let via = uplink.public.iter().find(|own| own.is_ipv4() == network.address.is_ipv4());
            let via = via.map_or(String::new(), |own| format!("via {own} "));
            self.space.ip(&format!("route add {}/{} {via}dev {plug} onlink", network.address, network.bits))?;
        }
        Ok(port)
    }

    /// Delivers what is for this address here.
    pub(crate) fn add_address(&self, port: Port, address: IpAddr) -> Result<(), LabError> {
        self.space.ip(&format!("route add {address}/{} dev {}", Prefix::only(address).bits, plug(port)))
    }

    /// Waits until the cable at this port and that interface works.
    pub(crate) fn wait_for_carrier(&self, port: Port, space: &Space, interface: &str) -> Result<(), LabError> {
        space.wait_for_carrier(interface)?;
        self.space.wait_for_carrier(&plug(port))
    }
}

fn plug(port: Port) -> String {
    format!("port{}", port.0)
}

/// How an interface reaches everything: through the core, by IPv4 and by IPv6.
pub(crate) fn ways(port: Port, interface: &str) -> [String; 2] {
    [format!("via {} dev {interface} onlink", CORE[0]), format!("via {} dev {interface}", gateway(port))]
}
