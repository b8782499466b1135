//! Touches: a router: its namespace, the network behind it, and the rules that make it the kind it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::backbone::Port;
use super::class::{Class, Setup};
use super::gate::Gate;
use super::host::default_routes;
use super::internet::{Inner, Internet, Uplink};
use super::plan::{Lan, Pair};
use super::rules::{self, LAN, WAN};
use super::space::Space;
use super::{Host, LabError};
use crate::lab::sim::Link;
use crate::nat::model::{Access, Nat, Rules};

/// A router of the lab with the network behind it. Clones are the same router.
#[derive(Clone)]
pub struct Router(Arc<Inside>);

struct Inside {
    space: Space,
    internet: Arc<Inner>,
    /// Its port of the core; `None` behind another router.
    port: Option<Port>,
    outside: Vec<IpAddr>,
    lan: Mutex<Lan>,
    families: Families,
    plugs: AtomicUsize,
    /// The router that it is behind.
    _parent: Option<Router>,
}

/// Which families hosts behind a router have.
#[derive(Clone, Copy)]
struct Families {
    v4: bool,
    v6: bool,
}

impl Internet {
    /// A router on the internet whose NAT and filter are the kernel's.
    ///
    /// # Errors
    ///
    /// When the system makes no namespace or device, `nft` refuses the rules, or no address is left.
    pub fn router(&self, name: &str, setup: impl Into<Setup>) -> Result<Router, LabError> {
        let setup = setup.into();
        let (pair, lan) = self.plan_for(name, setup.class)?;
        let space = Space::new(name)?;
        let mut uplink = Uplink::public(pair);
        if setup.class.has_v6() {
            uplink.routed.push(lan.v6());
        }
        if setup.class == Class::Routed {
            uplink.routed.push(lan.v4());
        }
        let port = self.0.attach(&space, WAN, uplink, 100)?;
        let families = Families { v4: setup.class.has_v4(), v6: setup.class.has_v6() };
        let outside = vec![pair.v4.into(), pair.v6.into()];
        let router = Router::build(space, &self.0, Some(port), outside, lan, families, None)?;
        router.apply(setup, pair.v4)?;
        Ok(router)
    }

    /// A router on the internet whose NAT or firewall is the model, driven by real packets: every type and
    /// delta of seed 002's system ([`kinds`](crate::nat::model::kinds)). Behind a NAT there is IPv4 alone;
    /// behind a firewall both families, known to the whole internet. Echo requests and fragments do not pass.
    ///
    /// # Errors
    ///
    /// When the system makes no namespace or device, or no address is left.
    pub fn nat(&self, name: &str, rules: Rules, seed: u64) -> Result<Router, LabError> {
        let translates = rules.access == Access::Nat;
        let class = if translates { Class::Home } else { Class::Routed };
        let (pair, lan) = self.plan_for(name, class)?;
        let outside = vec![pair.v4.into(), pair.v6.into()];
        let gate = Gate::new(Nat::new(rules, outside.clone(), seed), outside.clone());
        let routed = if translates { Vec::new() } else { vec![lan.v4(), lan.v6()] };
        let uplink = Uplink { public: outside.clone(), owns: false, routed, gate: Some(gate) };
        let space = Space::new(name)?;
        let port = self.0.attach(&space, WAN, uplink, 100)?;
        let families = Families { v4: true, v6: !translates };
        Router::build(space, &self.0, Some(port), outside, lan, families, None)
    }

    fn plan_for(&self, name: &str, class: Class) -> Result<(Pair, Lan), LabError> {
        let mut plan = self.0.plan();
        let wan = plan.wan();
        let lan = match class {
            Class::Routed => plan.routed(),
            class if class.is_carrier() => plan.carrier(),
            _ => plan.home(),
        };
        wan.zip(lan).ok_or_else(|| LabError::Full(name.to_owned()))
    }
}

impl Router {
    /// The name that it was given.
    pub fn name(&self) -> &str {
        self.0.space.name()
    }

    /// Its addresses on the outside.
    pub fn outside(&self) -> &[IpAddr] {
        &self.0.outside
    }

    /// A host behind it, with one interface.
    ///
    /// # Errors
    ///
    /// When the system makes no namespace or device, or no address is left.
    pub fn host(&self, name: &str) -> Result<Host, LabError> {
        let host = Host::new(name)?;
        host.attach(self)?;
        Ok(host)
    }

    /// A router behind this one: double NAT. Behind it there is IPv4 alone.
    ///
    /// # Errors
    ///
    /// As for [`Internet::router`].
    pub fn router(&self, name: &str, setup: impl Into<Setup>) -> Result<Router, LabError> {
        let setup = setup.into();
        let space = Space::new(name)?;
        let outside = self.plug(&space, WAN, 100)?;
        let lan = Internet(self.0.internet.clone()).plan_for(name, setup.class)?.1;
        let families = Families { v4: true, v6: false };
        let address = outside.iter().find_map(|address| match address {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        });
        let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let parent = Some(self.clone());
        let router = Router::build(space, &self.0.internet, None, outside, lan, families, parent)?;
        router.apply(setup, address)?;
        Ok(router)
    }

    /// Loads more nftables rules into it. Its interfaces are `wan` and `lan`, its tables `nat` and `filter`.
    ///
    /// # Errors
    ///
    /// When `nft` refuses them.
    pub fn nft(&self, ruleset: &str) -> Result<(), LabError> {
        self.0.space.nft(ruleset)
    }

    /// Calls `work` on this thread, inside the router, as [`Host::run`] does.
    ///
    /// # Panics
    ///
    /// When the kernel does not let the thread in, which it did when the router was made.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.space.inside(work).unwrap_or_else(|error| panic!("{}: {error}", self.name()))
    }

    /// What packets to and from it meet on top of the core's link. A router behind another has no link to
    /// the core, so nothing happens there.
    pub fn set_link(&self, link: Link) {
        if let Some(port) = self.0.port {
            self.0.internet.pump.with(|core| core.set_link_of(port, link));
        }
    }

    /// Looks at the model of a router that [`Internet::nat`] made; `None` for others.
    pub fn with_model<T>(&self, look: impl FnOnce(&mut Nat) -> T) -> Option<T> {
        let port = self.0.port?;
        self.0.internet.pump.with(|core| core.gate(port).map(|gate| look(gate.nat())))
    }

    /// The model's clock: what its functions take as `now`.
    pub fn now(&self) -> Duration {
        self.0.internet.pump.now()
    }

    fn build(
        space: Space,
        internet: &Arc<Inner>,
        port: Option<Port>,
        outside: Vec<IpAddr>,
        lan: Lan,
        families: Families,
        parent: Option<Router>,
    ) -> Result<Self, LabError> {
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            space.set(key, "1")?;
        }
        let Pair { v4, v6 } = lan.gateway();
        let mut lines = format!("link add {LAN} type bridge\nlink set {LAN} up\n");
        if families.v4 {
            lines += &format!("addr add {v4}/24 dev {LAN}\n");
        }
        if families.v6 {
            lines += &format!("addr add {v6}/64 dev {LAN} nodad\n");
        }
        space.ip(&lines)?;
        Ok(Self(Arc::new(Inside {
            space,
            internet: internet.clone(),
            port,
            outside,
            lan: Mutex::new(lan),
            families,
            plugs: AtomicUsize::new(0),
            _parent: parent,
        })))
    }

    fn apply(&self, setup: Setup, address: Ipv4Addr) -> Result<(), LabError> {
        let space = &self.0.space;
        let router = rules::Router { setup, address, lan: *self.lan() };
        space.nft(&router.ruleset())?;
        rules::settings(setup.class).iter().try_for_each(|(key, value)| space.set(key, value))
    }

    /// Puts a cable between the network behind it and another namespace; the interface's addresses there.
    pub(crate) fn plug(&self, space: &Space, interface: &str, metric: usize) -> Result<Vec<IpAddr>, LabError> {
        let pair = self.lan().host().ok_or_else(|| LabError::Full(space.name().to_owned()))?;
        let plug = format!("port{}", self.0.plugs.fetch_add(1, Ordering::Relaxed));
        let there = space.path();
        let there = there.display();
        self.0.space.ip(&format!(
            "link add {plug} type veth peer name {interface} netns {there}\nlink set {plug} master {LAN} up\n"
        ))?;
        let mut lines = format!("link set {interface} up\n");
        let mut addresses: Vec<IpAddr> = Vec::new();
        if self.0.families.v4 {
            lines += &format!("addr add {}/24 dev {interface}\n", pair.v4);
            addresses.push(pair.v4.into());
        }
        if self.0.families.v6 {
            lines += &format!("addr add {}/64 dev {interface} nodad\n", pair.v6);
            addresses.push(pair.v6.into());
        }
        space.ip(&(lines + &self.routes(interface, metric)))?;
        Ok(addresses)
    }

    /// The commands for default routes through this router by an interface of a host behind it.
    pub(crate) fn routes(&self, interface: &str, metric: usize) -> String {
        let Pair { v4, v6 } = self.lan().gateway();
        let Families { v4: has_v4, v6: has_v6 } = self.0.families;
        let way = |has: bool, gateway: IpAddr| has.then(|| format!("via {gateway} dev {interface}"));
        default_routes(way(has_v4, v4.into()), way(has_v6, v6.into()), metric)
    }

    fn lan(&self) -> MutexGuard<'_, Lan> {
        self.0.lan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("name", &self.name()).field("outside", &self.outside()).finish()
    }
}
