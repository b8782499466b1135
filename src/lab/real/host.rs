//! Touches: a host: its interfaces, and code that runs in its namespace.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::runtime::{Builder, Runtime};

use super::backbone::{Port, Prefix};
use super::internet::{Inner, Internet, Uplink, nodad};
use super::space::{Carried, Space};
use super::{LabError, Router};
use crate::lab::sim::Link;

/// The metric of the first interface's default route; each further one counts one more, so that the first
/// that is there is used by sockets that are bound to none.
const FIRST_METRIC: usize = 100;

/// A machine in a lab. Dropping it lets go of its namespace, which ends with the last socket or process in it.
pub struct Host {
    space: Arc<Space>,
    interfaces: Mutex<Vec<Attached>>,
    /// Interfaces ever made, so that no name comes back.
    made: AtomicUsize,
}

/// A host's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// `eth0`, `eth1`, …
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

struct Attached {
    is: Attachment,
    metric: usize,
    place: Held,
}

/// What keeps alive the other end of an interface.
enum Held {
    Internet(Arc<Inner>, Port),
    /// By this port of it.
    Router(Router, String),
}

/// Where an interface can be attached.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// On the internet itself.
    Internet(&'a Internet),
    /// In the network behind a router.
    Router(&'a Router),
}

impl<'a> From<&'a Internet> for Place<'a> {
    fn from(internet: &'a Internet) -> Self {
        Self::Internet(internet)
    }
}

impl<'a> From<&'a Router> for Place<'a> {
    fn from(router: &'a Router) -> Self {
        Self::Router(router)
    }
}

impl Host {
    pub(crate) fn new(name: &str) -> Result<Self, LabError> {
        Ok(Self { space: Arc::new(Space::new(name)?), interfaces: Mutex::default(), made: AtomicUsize::new(0) })
    }

    /// The name that it was given.
    pub fn name(&self) -> &str {
        self.space.name()
    }

    /// Adds an interface (`eth0` first, then `eth1`, …) with addresses and a default route. Sockets that are
    /// bound to no interface use the oldest one that is there.
    ///
    /// # Errors
    ///
    /// When the system makes no device, or no address is left.
    pub fn attach<'a>(&self, to: impl Into<Place<'a>>) -> Result<Attachment, LabError> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let (name, metric) = (format!("eth{number}"), FIRST_METRIC + number);
        let (addresses, place) = match to.into() {
            Place::Internet(internet) => {
                let pair = internet.0.plan().host().ok_or_else(|| LabError::Full(self.name().to_owned()))?;
                let port = internet.0.attach(&self.space, &name, Uplink::public(pair), metric)?;
                (vec![pair.v4.into(), pair.v6.into()], Held::Internet(internet.0.clone(), port))
            }
            Place::Router(router) => {
                let plug = router.plug(&self.space, &name, metric)?;
                (plug.addresses, Held::Router(router.clone(), plug.name))
            }
        };
        let is = Attachment { name, addresses };
        self.attached().push(Attached { is: is.clone(), metric, place });
        Ok(is)
    }

    /// Gives an interface on the internet one more public IPv4 and IPv6 address, which comes last.
    ///
    /// # Errors
    ///
    /// When there is no such interface on the internet itself, or no address is left.
    pub fn add_addresses(&self, interface: &str) -> Result<Vec<IpAddr>, LabError> {
        let mut interfaces = self.attached();
        let attached = interfaces.iter_mut().find(|attached| attached.is.name == interface);
        let Some(Attached { is, place: Held::Internet(inner, port), .. }) = attached else {
            return Err(self.no_interface(interface));
        };
        let pair = inner.plan().host().ok_or_else(|| LabError::Full(self.name().to_owned()))?;
        let added: Vec<IpAddr> = vec![pair.v4.into(), pair.v6.into()];
        for address in &added {
            let prefix = Prefix::only(*address);
            self.space.ip(&format!("addr add {address}/{} dev {interface}{}", prefix.bits, nodad(*address)))?;
            inner.add_address(*port, *address)?;
        }
        self.space.wait_for_local(&added)?;
        is.addresses.extend(&added);
        Ok(added)
    }

    /// Takes an interface away, whoever uses it: sockets bound to it see what they see when a card is pulled.
    ///
    /// # Errors
    ///
    /// When there is none of this name.
    pub fn detach(&self, interface: &str) -> Result<(), LabError> {
        let mut interfaces = self.attached();
        let Some(index) = interfaces.iter().position(|attached| attached.is.name == interface) else {
            return Err(self.no_interface(interface));
        };
        self.space.ip(&format!("link del {interface}"))?;
        interfaces.remove(index);
        Ok(())
    }

    /// Sets an interface down, or up again with its routes.
    ///
    /// # Errors
    ///
    /// When there is none of this name.
    pub fn set_up(&self, interface: &str, up: bool) -> Result<(), LabError> {
        let interfaces = self.attached();
        let attached = interfaces.iter().find(|attached| attached.is.name == interface);
        let attached = attached.ok_or_else(|| self.no_interface(interface))?;
        if up {
            self.space.ip(&format!("link set {interface} up\n{}", attached.routes()))?;
            self.space.wait_for_local(&attached.is.addresses)?;
            return match &attached.place {
                Held::Internet(inner, port) => inner.wait_for_carrier(*port, &self.space, interface),
                Held::Router(router, plug) => router.wait_for_carrier(plug, &self.space, interface),
            };
        }
        self.space.ip(&format!("link set {interface} down"))
    }

    /// What packets to and from an interface on the internet meet on top of the core's link.
    ///
    /// # Errors
    ///
    /// When there is no such interface on the internet itself, or that is [direct](Internet::direct).
    pub fn set_link(&self, interface: &str, link: Link) -> Result<(), LabError> {
        let interfaces = self.attached();
        let attached = interfaces.iter().find(|attached| attached.is.name == interface);
        let Some(Attached { place: Held::Internet(inner, port), .. }) = attached else {
            return Err(self.no_interface(interface));
        };
        inner.own_core()?.with(|core| core.set_link_of(*port, link));
        Ok(())
    }

    /// How many bytes per second, IP headers among them, pass an interface on the internet, each way. What comes faster waits for up
    /// to a tenth of a second, and is lost beyond that. `None`: no limit.
    ///
    /// # Errors
    ///
    /// As for [`set_link`](Self::set_link).
    pub fn set_rate(&self, interface: &str, bytes_per_second: Option<NonZeroU64>) -> Result<(), LabError> {
        let interfaces = self.attached();
        let attached = interfaces.iter().find(|attached| attached.is.name == interface);
        let Some(Attached { place: Held::Internet(inner, port), .. }) = attached else {
            return Err(self.no_interface(interface));
        };
        inner.own_core()?.with(|core| core.set_rate_of(*port, bytes_per_second));
        Ok(())
    }

    /// Its interfaces with their addresses, the oldest first.
    pub fn interfaces(&self) -> Vec<Attachment> {
        self.attached().iter().map(|attached| attached.is.clone()).collect()
    }

    /// Every address, the oldest interface's first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.interfaces().into_iter().flat_map(|interface| interface.addresses).collect()
    }

    /// Its first IPv4 address; `None` where there is only IPv6.
    pub fn v4(&self) -> Option<IpAddr> {
        self.addresses().into_iter().find(IpAddr::is_ipv4)
    }

    /// Its first IPv6 address; `None` where there is only IPv4.
    pub fn v6(&self) -> Option<IpAddr> {
        self.addresses().into_iter().find(IpAddr::is_ipv6)
    }

    /// Loads nftables rules into it: a firewall of its own.
    ///
    /// # Errors
    ///
    /// When `nft` refuses them.
    pub fn nft(&self, ruleset: &str) -> Result<(), LabError> {
        self.space.nft(ruleset)
    }

    /// The router that its oldest interface is behind; `None` when that is on the internet itself.
    pub fn router(&self) -> Option<Router> {
        match self.attached().first().map(|attached| &attached.place) {
            Some(Held::Router(router, _)) => Some(router.clone()),
            _ => None,
        }
    }

    /// What its interfaces have carried since they were made.
    ///
    /// # Errors
    ///
    /// When the kernel does not say.
    pub fn carried(&self) -> Result<Carried, LabError> {
        self.space.carried()
    }

    /// Starts a program inside the host. Files and everything but the network are those of this machine.
    ///
    /// # Errors
    ///
    /// As [`Command::spawn`].
    pub fn start(&self, command: &mut Command) -> io::Result<Child> {
        // A process, not a task.
        let begin = Command::spawn;
        self.run(|| begin(command))
    }

    /// Runs a program inside the host to its end.
    ///
    /// # Errors
    ///
    /// As [`Command::output`].
    pub fn output(&self, command: &mut Command) -> io::Result<Output> {
        self.run(|| command.output())
    }

    /// Calls `work` on this thread, inside the host: sockets and processes made there are the host's for as
    /// long as they live, wherever they are used afterwards.
    ///
    /// # Panics
    ///
    /// When the kernel does not let the thread in, which it did when the host was made.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        self.space.inside(work).unwrap_or_else(|error| panic!("{}: {error}", self.name()))
    }

    /// Runs `future` to its end on this thread, with a runtime of its own, inside the host: everything that
    /// it starts is inside too. Not to be called from async code.
    ///
    /// # Errors
    ///
    /// When no runtime can be made.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run).
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> Result<T, LabError> {
        self.run(|| {
            let runtime = Builder::new_current_thread().enable_all().build().map_err(LabError::Runtime)?;
            Ok(runtime.block_on(future))
        })
    }

    /// A runtime whose threads are all inside the host: what is started on its handle, and what that starts,
    /// is too. (What is given to its `block_on` is not: that runs on the caller's thread.) It must be dropped
    /// outside of async code, or ended with `shutdown_background`.
    ///
    /// # Errors
    ///
    /// When its threads do not start.
    pub fn runtime(&self) -> Result<Runtime, LabError> {
        let space = self.space.clone();
        let enter = move || {
            if let Err(error) = space.enter() {
                // A thread that works in the wrong network would make every later result a lie.
                panic!("cannot enter {}: {error}", space.name());
            }
        };
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name(self.name()).on_thread_start(enter).enable_all();
        builder.build().map_err(LabError::Runtime)
    }

    /// `future`, each step of it inside the host. Tasks that it starts on the caller's runtime are not: for
    /// those there are [`block_on`](Self::block_on) and [`runtime`](Self::runtime).
    pub async fn within<T>(&self, future: impl Future<Output = T>) -> T {
        Within { space: &self.space, future: Box::pin(future) }.await
    }
}

impl Host {
    fn attached(&self) -> MutexGuard<'_, Vec<Attached>> {
        self.interfaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_interface(&self, name: &str) -> LabError {
        LabError::NoInterface { space: self.name().to_owned(), name: name.to_owned() }
    }
}

impl Attached {
    /// The commands that bring back what an interface loses when it is set down.
    fn routes(&self) -> String {
        let Attachment { name, addresses } = &self.is;
        let mut lines = String::new();
        for v6 in addresses.iter().filter(|address| address.is_ipv6()) {
            let bits = if let Held::Router(..) = self.place { 64 } else { 128 };
            lines += &format!("addr replace {v6}/{bits} dev {name} nodad\n");
        }
        match &self.place {
            Held::Internet(inner, port) => lines + &inner.routes(*port, name, self.metric),
            Held::Router(router, _) => lines + &router.routes(name, self.metric),
        }
    }
}

/// The commands for default routes by these ways.
pub(crate) fn default_routes(v4: Option<String>, v6: Option<String>, metric: usize) -> String {
    let line = |all: &str, way: String| format!("route replace {all} {way} metric {metric}\n");
    let lines = [v4.map(|way| line("0.0.0.0/0", way)), v6.map(|way| line("::/0", way))];
    lines.into_iter().flatten().collect()
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("name", &self.name()).field("interfaces", &self.interfaces()).finish()
    }
}

/// A future whose steps run inside a namespace.
struct Within<'a, F> {
    space: &'a Space,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Within<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let space = self.space;
        let step = space.inside(|| self.future.as_mut().poll(context));
        step.unwrap_or_else(|error| panic!("{}: {error}", space.name()))
    }
}
