//! Touches: a router: its namespace, the network behind it, and the rules that make it the kind it is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::backbone::{Port, Prefix};

use super::gate::Gate;
use super::host::default_routes;
use super::internet::{Inner, Internet, Uplink, nodad};
use super::kind::{Kind, Setup};
use super::nat64::{self, Nat64};
use super::plan::{Lan, Pair};
use super::pump::Pump;
use super::rules::{self, LAN, WAN};
use super::space::Space;
use super::translator::Translator;
use super::{Host, LabError};
use crate::lab::sim::Link;
use crate::nat::model::{Access, Nat, Rules, kinds};

/// A router of the lab with the network behind it. Clones are the same router.
#[derive(Clone)]
pub struct Router(Arc<Inside>);

struct Inside {
    space: Space,
    internet: Arc<Inner>,
    above: Above,
    outside: Vec<IpAddr>,
    lan: Mutex<Lan>,
    families: Families,
    plugs: AtomicUsize,
    /// Set once, where there is NAT64.
    nat64: OnceLock<Translator>,
}

/// A cable into a router's network.
pub(crate) struct Plug {
    /// The router's end.
    pub(crate) name: String,
    /// What the other end has.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Where its outside is.
enum Above {
    Core(Port),
    Router(Router),
}

/// The device of a translator.
const NAT64: &str = "nat64";

/// The bridge's own, the same in every namespace.
const LAN_MAC: &str = "02:00:00:00:00:01";

/// Which families hosts behind a router have.
#[derive(Clone, Copy)]
struct Families {
    v4: bool,
    v6: bool,
}

impl Internet {
    /// A router on the internet.
    ///
    /// # Errors
    ///
    /// When the system makes no namespace or device, `nft` refuses the rules, or no address is left.
    pub fn router(&self, name: &str, setup: impl Into<Setup>) -> Result<Router, LabError> {
        let setup = setup.into();
        if let Some((outer, inner)) = setup.kind.layers() {
            let outer = self.router(&format!("{name}-carrier"), outer.answering(setup.input))?;
            return outer.router(name, inner.answering(setup.input));
        }
        if let Kind::Model(kind, delta) = setup.kind {
            let seed = self.0.model_seed();
            return self.nat(name, kinds::rules(kind, delta), seed);
        }
        self.kernel(name, setup)
    }

    /// A router on the internet whose NAT or firewall is the model, driven by real packets, with any
    /// [`Rules`]. Behind a NAT there is IPv4 alone; behind a firewall both families, known to the whole
    /// internet. Echo requests and fragments do not pass.
    ///
    /// # Errors
    ///
    /// As for [`router`](Self::router).
    pub fn nat(&self, name: &str, rules: Rules, seed: u64) -> Result<Router, LabError> {
        let translates = rules.access == Access::Nat;
        let (pair, lan) = self.plan_for(name, if translates { Kind::Home } else { Kind::Open })?;
        let outside = vec![pair.v4.into(), pair.v6.into()];
        let gate = Gate::new(Nat::new(rules, outside.clone(), seed), outside.clone());
        let routed = if translates { Vec::new() } else { vec![lan.v4(), lan.v6()] };
        let uplink = Uplink { public: outside.clone(), owns: false, routed, gate: Some(gate) };
        let space = Space::new(name)?;
        let port = self.0.attach(&space, WAN, uplink, 100)?;
        let families = Families { v4: true, v6: !translates };
        Router::build(space, &self.0, Above::Core(port), outside, lan, families)
    }

    /// A host behind a router of this kind that nobody else is behind: [`Host::router`] gives the router.
    ///
    /// # Errors
    ///
    /// As for [`router`](Self::router).
    pub fn behind(&self, setup: impl Into<Setup>) -> Result<Host, LabError> {
        let setup = setup.into();
        self.router(&setup.to_string(), setup)?.host(&format!("behind {setup}"))
    }

    fn kernel(&self, name: &str, setup: Setup) -> Result<Router, LabError> {
        let (pair, lan) = self.plan_for(name, setup.kind)?;
        let space = Space::new(name)?;
        let mut uplink = Uplink::public(pair);
        if setup.kind.has_v6() {
            uplink.routed.push(lan.v6());
        }
        if setup.kind.is_routed() {
            uplink.routed.push(lan.v4());
        }
        let port = self.0.attach(&space, WAN, uplink, 100)?;
        let families = Families { v4: setup.kind.has_v4(), v6: setup.kind.has_v6() };
        let outside = vec![pair.v4.into(), pair.v6.into()];
        let router = Router::build(space, &self.0, Above::Core(port), outside, lan, families)?;
        router.apply(setup, pair.v4)?;
        if setup.kind == Kind::Nat64 {
            router.translate()?;
        }
        Ok(router)
    }

    fn plan_for(&self, name: &str, kind: Kind) -> Result<(Pair, Lan), LabError> {
        let mut plan = self.0.plan();
        let wan = plan.wan();
        let lan = plan.lan_of(kind);
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
    /// As for [`Internet::router`], and [`LabError::Nested`] for a kind that cannot be behind another.
    pub fn router(&self, name: &str, setup: impl Into<Setup>) -> Result<Router, LabError> {
        let setup = setup.into();
        if let Some((outer, inner)) = setup.kind.layers() {
            let outer = self.router(&format!("{name}-carrier"), outer.answering(setup.input))?;
            return outer.router(name, inner.answering(setup.input));
        }
        if matches!(setup.kind, Kind::Model(..)) || setup.kind.has_v6() || !self.0.families.v4 {
            return Err(LabError::Nested { kind: setup.kind });
        }
        let space = Space::new(name)?;
        let outside = self.plug(&space, WAN, 100)?.addresses;
        let lan = self.0.internet.plan().lan_of(setup.kind).ok_or_else(|| LabError::Full(name.to_owned()))?;
        let families = Families { v4: true, v6: false };
        let address = outside.iter().find_map(|address| match address {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        });
        let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let router = Router::build(space, &self.0.internet, Above::Router(self.clone()), outside, lan, families)?;
        router.apply(setup, address)?;
        Ok(router)
    }

    /// The router that this one is behind; `None` on the internet itself.
    pub fn above(&self) -> Option<&Router> {
        match &self.0.above {
            Above::Core(_) => None,
            Above::Router(router) => Some(router),
        }
    }

    /// Where the internet sees what it translates: the outside of the outermost router.
    pub fn public(&self) -> &[IpAddr] {
        self.above().map_or(self.outside(), Router::public)
    }

    /// Flows that its kernel tracks now: the entries of conntrack. A model counts its own
    /// ([`with_model`](Self::with_model)).
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn tracked(&self) -> Result<usize, LabError> {
        self.0.space.conntrack_count()
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

    /// Gives it one more address on the internet, of any kind, which comes last: what it translates keeps its first one. (Its
    /// own addresses are set apart for documents, and some programs take such addresses for no use.)
    ///
    /// # Errors
    ///
    /// For a router behind another one, and when the system refuses the address.
    pub fn add_address(&self, address: IpAddr) -> Result<(), LabError> {
        let Above::Core(port) = self.0.above else {
            let name = "on the internet itself".to_owned();
            return Err(LabError::NoInterface { space: self.name().to_owned(), name });
        };
        let prefix = Prefix::only(address);
        self.0.space.ip(&format!("addr add {address}/{} dev {WAN}{}", prefix.bits, nodad(address)))?;
        self.0.internet.add_address(port, address)
    }

    /// What packets to and from it meet on top of the core's link. A router behind another has no link to
    /// the core, so nothing happens there.
    ///
    /// # Panics
    ///
    /// On an internet that is [direct](Internet::direct).
    pub fn set_link(&self, link: Link) {
        if let Above::Core(port) = self.0.above {
            let core = self.0.internet.own_core().unwrap_or_else(|error| panic!("{error}"));
            core.with(|core| core.set_link_of(port, link));
        }
    }

    /// Looks at the model of a router that [`Internet::nat`] made; `None` for others.
    pub fn with_model<T>(&self, look: impl FnOnce(&mut Nat) -> T) -> Option<T> {
        let Above::Core(port) = self.0.above else { return None };
        self.0.internet.own_core().ok()?.with(|core| core.gate(port).map(|gate| look(gate.nat())))
    }

    /// The model's clock: what its functions take as `now`. Zero where there can be no model.
    pub fn now(&self) -> Duration {
        self.0.internet.own_core().map_or(Duration::ZERO, Pump::now)
    }

    fn build(
        space: Space,
        internet: &Arc<Inner>,
        above: Above,
        outside: Vec<IpAddr>,
        lan: Lan,
        families: Families,
    ) -> Result<Self, LabError> {
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            space.set(key, "1")?;
        }
        // Where a kernel shows bridged packets to the rules, one that goes back to the host it came from is lost.
        for key in ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"] {
            space.set_if_there(key, "0")?;
        }
        let Pair { v4, v6 } = lan.gateway();
        // With an address of its own: else it has that of some port, and another one when a port is added.
        let mut lines = format!("link add {LAN} address {LAN_MAC} type bridge\nlink set {LAN} up\n");
        if families.v4 {
            lines += &format!("addr add {v4}/24 dev {LAN}\n");
        }
        if families.v6 {
            lines += &format!("addr add {v6}/64 dev {LAN} nodad\n");
        }
        space.ip(&lines)?;
        if families.v6 {
            space.wait_for_local(&[v6.into()])?;
        }
        Ok(Self(Arc::new(Inside {
            space,
            internet: internet.clone(),
            above,
            outside,
            lan: Mutex::new(lan),
            families,
            plugs: AtomicUsize::new(0),
            nat64: OnceLock::new(),
        })))
    }

    fn apply(&self, setup: Setup, address: Ipv4Addr) -> Result<(), LabError> {
        let space = &self.0.space;
        let router = rules::Router { setup, address, lan: *self.lan() };
        space.nft(&router.ruleset())?;
        rules::settings(setup.kind).iter().try_for_each(|(key, value)| space.set(key, value))
    }

    /// Sends what is for IPv4 through a device that translates it, and the answers.
    fn translate(&self) -> Result<(), LabError> {
        let (space, lan) = (&self.0.space, *self.lan());
        let tun = space.tun(NAT64)?;
        let Prefix { address, bits } = lan.v4();
        let network = nat64::NETWORK;
        space.ip(&format!(
            "link set {NAT64} up\nroute add {address}/{bits} dev {NAT64}\nroute add {network} dev {NAT64}\n"
        ))?;
        let translator = Translator::start(tun, Nat64::new(lan)).map_err(LabError::Runtime)?;
        self.0.nat64.get_or_init(|| translator);
        Ok(())
    }

    /// Puts a cable between the network behind it and another namespace; the interface's addresses there.
    pub(crate) fn plug(&self, space: &Space, interface: &str, metric: usize) -> Result<Plug, LabError> {
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
        self.wait_for_carrier(&plug, space, interface)?;
        space.wait_for_local(&addresses)?;
        Ok(Plug { name: plug, addresses })
    }

    /// Waits until the cable between this port and that interface works.
    pub(crate) fn wait_for_carrier(&self, plug: &str, space: &Space, interface: &str) -> Result<(), LabError> {
        space.wait_for_carrier(interface)?;
        [plug, LAN].into_iter().try_for_each(|own| self.0.space.wait_for_carrier(own))
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
