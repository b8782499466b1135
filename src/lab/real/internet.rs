//! Touches: a whole lab: its core, and what is attached to it.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::backbone::{Port, Prefix, Traffic};
use super::device::{Device, Workshop};
use super::direct::{self, Direct};
use super::gate::Gate;
use super::host::default_routes;
use super::plan::{CORE, Pair, Plan};
use super::pump::Pump;
use super::space::Space;
use super::{Host, LabError};
use crate::lab::sim::Link;

/// An internet of its own on this machine. Its core carries packets between the hosts and routers that are
/// attached to it, and is one router on their way (it counts their TTL, and tells when it ends).
///
/// Clones are the same internet. When the last clone, host and router is dropped, nothing is left of it.
#[derive(Clone)]
pub struct Internet(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    core: Core,
    plan: Mutex<Plan>,
    seed: u64,
    /// Models made, so that each has a seed of its own.
    models: AtomicU64,
}

/// What carries packets between those who are attached.
enum Core {
    /// Our own, which delays and loses.
    Pump(Pump, Workshop),
    Direct(Direct),
}

impl Internet {
    /// One without delay or loss.
    ///
    /// # Errors
    ///
    /// Only when the thread of the core does not start; what the system lacks shows with the first host.
    pub fn new() -> Result<Self, LabError> {
        Self::with_link(Link::steady(Duration::ZERO), 1)
    }

    /// One whose core delays, loses, doubles and reorders packets: each one way, and once for each crossing.
    /// Delays are kept to about a millisecond. [`Link::lan_loss`] is not looked at. `seed` determines what
    /// is lost, as far as the order of real packets does.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn with_link(link: Link, seed: u64) -> Result<Self, LabError> {
        let pump = Pump::start(CORE, link, seed).map_err(LabError::Runtime)?;
        Ok(Self::over(Core::Pump(pump, Workshop::default()), seed))
    }

    /// As [`with_link`](Self::with_link), but without TUN devices even where there are: packet sockets on veth
    /// pairs are in their place, as they are wherever `/dev/net/tun` is missing or not allowed. NAT64 alone
    /// needs it always.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn without_tun(link: Link, seed: u64) -> Result<Self, LabError> {
        let pump = Pump::start(CORE, link, seed).map_err(LabError::Runtime)?;
        Ok(Self::over(Core::Pump(pump, Workshop::of_cables()), seed))
    }

    /// One whose core is the kernel's own router, for figures of throughput: nothing is delayed, lost or
    /// counted there, and there is no place for a NAT's model. It needs no `/dev/net/tun`.
    ///
    /// # Errors
    ///
    /// When the system makes no namespace.
    pub fn direct() -> Result<Self, LabError> {
        Ok(Self::over(Core::Direct(Direct::new()?), 1))
    }

    fn over(core: Core, seed: u64) -> Self {
        Self(Arc::new(Inner { core, plan: Mutex::default(), seed, models: AtomicU64::new(0) }))
    }

    /// Changes what the core does to the packets that it gets from now on.
    ///
    /// # Panics
    ///
    /// On one that is [`direct`](Self::direct): nothing there could do it.
    pub fn set_link(&self, link: Link) {
        self.0.own_core().unwrap_or_else(|error| panic!("{error}")).with(|core| core.set_link(link));
    }

    /// What the core has done so far; nothing is counted by one that is [`direct`](Self::direct).
    pub fn traffic(&self) -> Traffic {
        self.0.own_core().map_or_else(|_| Traffic::default(), |pump| pump.with(|core| core.traffic()))
    }

    /// A host on the internet itself, with a public address of each family on `eth0`.
    ///
    /// # Errors
    ///
    /// When the system makes no namespace or TUN device, or no address is left.
    pub fn host(&self, name: &str) -> Result<Host, LabError> {
        let host = Host::new(name)?;
        host.attach(self)?;
        Ok(host)
    }
}

impl Inner {
    pub(crate) fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next model's seed.
    pub(crate) fn model_seed(&self) -> u64 {
        self.seed.wrapping_add(self.models.fetch_add(1, Ordering::Relaxed))
    }

    /// Gives a namespace an interface on the internet, with a default route of this metric.
    pub(crate) fn attach(
        &self,
        space: &Space,
        interface: &str,
        uplink: Uplink,
        metric: usize,
    ) -> Result<Port, LabError> {
        let (pump, workshop) = match &self.core {
            Core::Direct(_) if uplink.gate.is_some() => return Err(LabError::Direct),
            Core::Direct(direct) => return direct.attach(space, interface, &uplink, metric),
            Core::Pump(pump, workshop) => (pump, workshop),
        };
        let device = workshop.make(space, interface)?;
        space.ip(&uplink.commands(interface, leads_everywhere(interface), metric))?;
        if uplink.owns {
            space.wait_for_local(&uplink.public)?;
        }
        let mut prefixes = uplink.routed;
        prefixes.extend(uplink.public.iter().copied().map(Prefix::only));
        let cable = if let Device::Cable(_, name) = &device { Some(name.clone()) } else { None };
        let port = pump.attach(device, prefixes, uplink.gate).map_err(LabError::Runtime)?;
        workshop.attached(port, cable);
        workshop.wait(port, space, interface)?;
        Ok(port)
    }

    /// The core, where it is our own.
    pub(crate) fn own_core(&self) -> Result<&Pump, LabError> {
        match &self.core {
            Core::Pump(pump, _) => Ok(pump),
            Core::Direct(_) => Err(LabError::Direct),
        }
    }

    /// Delivers what is for this address to that port.
    pub(crate) fn add_address(&self, port: Port, address: IpAddr) -> Result<(), LabError> {
        match &self.core {
            Core::Pump(pump, _) => pump.with(|core| core.add_prefix(port, Prefix::only(address))),
            Core::Direct(direct) => direct.add_address(port, address)?,
        }
        Ok(())
    }

    /// The commands for default routes by an interface that is on the internet.
    pub(crate) fn routes(&self, port: Port, interface: &str, metric: usize) -> String {
        let ways = match &self.core {
            Core::Pump(..) => leads_everywhere(interface),
            Core::Direct(_) => direct::ways(port, interface),
        };
        let [v4, v6] = ways.map(Some);
        default_routes(v4, v6, metric)
    }

    /// Waits until an interface that was set up again works.
    pub(crate) fn wait_for_carrier(&self, port: Port, space: &Space, interface: &str) -> Result<(), LabError> {
        match &self.core {
            Core::Pump(_, workshop) => workshop.wait(port, space, interface),
            Core::Direct(direct) => direct.wait_for_carrier(port, space, interface),
        }
    }
}

/// Our core takes whatever comes by an interface, without being asked for by an address.
fn leads_everywhere(interface: &str) -> [String; 2] {
    [format!("dev {interface}"), format!("dev {interface}")]
}

/// What stands between a namespace and the core.
#[derive(Default)]
pub(crate) struct Uplink {
    /// Addresses that the core delivers here.
    pub(crate) public: Vec<IpAddr>,
    /// Whether the interface has them too; if not, a gate has them.
    pub(crate) owns: bool,
    /// Networks that the core delivers here.
    pub(crate) routed: Vec<Prefix>,
    pub(crate) gate: Option<Gate>,
}

impl Uplink {
    /// An interface with these public addresses.
    pub(crate) fn public(pair: Pair) -> Self {
        Self { public: vec![pair.v4.into(), pair.v6.into()], owns: true, ..Self::default() }
    }

    /// The commands that give an interface its addresses, and default routes by these ways.
    pub(crate) fn commands(&self, interface: &str, ways: [String; 2], metric: usize) -> String {
        let mut lines = format!("link set {interface} mtu 1500 txqueuelen 4000 up\n");
        for address in self.public.iter().filter(|_| self.owns) {
            lines += &format!("addr add {} dev {interface}{}\n", Length(*address), nodad(*address));
        }
        let [v4, v6] = ways.map(Some);
        lines + &default_routes(v4, v6, metric)
    }
}

/// An address with the length of a prefix that holds nothing else.
struct Length(IpAddr);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, Prefix::only(self.0).bits)
    }
}

/// IPv6 addresses are usable at once: nobody else can have them.
pub(crate) fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

impl fmt::Debug for Internet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Internet").field("traffic", &self.traffic()).finish_non_exhaustive()
    }
}
