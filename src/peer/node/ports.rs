//! Waits: the doors' ports opened by gateways, and which of their external addresses are worth telling.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::doors::interfaces;
use super::inner::Inner;
use crate::base::task::Nursery;
use crate::key::{ServerUrl, TicketAddress};
use crate::net::{Family, Interface, Route};
use crate::portmap::{Mapper, Mapping, Proto, State, can_help, is_useful};
use crate::stun;

/// How long servers are asked which address they see, to check what a gateway says of its own.
const SEEN: Duration = Duration::from_secs(3);

/// How often new interfaces are looked for, and how many are asked on at most.
const LOOK: Duration = Duration::from_secs(5);
const INTERFACES: usize = 16;

/// The ports of a node's doors at the gateways of its routes. Dropping it takes them back.
#[derive(Debug)]
pub(super) struct Ports {
    /// None any more once they are closed.
    mappings: Mutex<Option<Vec<Mapping>>>,
    /// None before the first look at the routes.
    found: watch::Sender<Option<Vec<Port>>>,
}

/// What gateways have opened, and each change of it.
#[derive(Clone, Debug)]
pub(super) struct Found(watch::Receiver<Option<Vec<Port>>>);

impl Found {
    /// Waits for addresses that are not among these, for ever where there will be none. Cancel safe.
    pub(super) async fn more_than(&mut self, known: &[TicketAddress]) -> Vec<TicketAddress> {
        loop {
            let mut fresh = reached(self.0.borrow_and_update().iter().flatten());
            fresh.retain(|address| !known.contains(address));
            if !fresh.is_empty() {
                return fresh;
            }
            if self.0.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits for a change; false when there will be none. Cancel safe.
    pub(super) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Where others reach these ports, each address once.
fn reached<'a>(ports: impl Iterator<Item = &'a Port>) -> Vec<TicketAddress> {
    let mut addresses: Vec<TicketAddress> = Vec::new();
    for port in ports {
        let Some(addr) = port.external else { continue };
        let (udp, tcp) = (port.proto == Proto::Udp, port.proto == Proto::Tcp);
        match addresses.iter_mut().find(|known| known.addr == addr) {
            Some(known) => (known.udp, known.tcp) = (known.udp || udp, known.tcp || tcp),
            None => addresses.push(TicketAddress { addr, udp, tcp }),
        }
    }
    addresses
}

/// What has become of one mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Port {
    proto: Proto,
    settled: bool,
    /// Where others reach it, if they do.
    external: Option<SocketAddr>,
}

impl Ports {
    pub(super) fn new() -> Self {
        Self { mappings: Mutex::new(Some(Vec::new())), found: watch::Sender::new(None) }
    }

    /// Has the gateway of a route open a port: its state, and where it is noted. `None` when they are closed.
    fn open(&self, mapper: &Mapper, proto: Proto, port: u16) -> Option<(usize, watch::Receiver<State>)> {
        let mut mappings = self.mappings.lock().unwrap_or_else(PoisonError::into_inner);
        let mapping = mapper.map(proto, port).ok()?;
        let state = mapping.state();
        mappings.as_mut()?.push(mapping);
        let mut at = 0;
        self.found.send_modify(|found| {
            let found = found.get_or_insert_default();
            at = found.len();
            found.push(Port { proto, settled: false, external: None });
        });
        Some((at, state))
    }

    /// The routes have been looked at.
    fn looked(&self) {
        self.found.send_if_modified(|found| found.is_none() && found.get_or_insert_default().is_empty());
    }

    /// Where others reach the doors through gateways.
    pub(super) fn addresses(&self) -> Vec<TicketAddress> {
        reached(self.found.borrow().iter().flatten())
    }

    /// Tells of every change, and keeps nothing alive.
    pub(super) fn found(&self) -> Found {
        Found(self.found.subscribe())
    }

    /// True once each gateway has answered, or can not.
    pub(super) fn are_settled(&self) -> bool {
        self.found.borrow().as_ref().is_some_and(|found| found.iter().all(|port| port.settled))
    }

    /// Waits until each gateway has answered or can not, for so long at most.
    pub(super) async fn settled(&self, limit: Duration) {
        let mut found = self.found.subscribe();
        let all = |found: &Option<Vec<Port>>| found.as_ref().is_some_and(|found| found.iter().all(|port| port.settled));
        // Whoever asks sees what there is.
        let _ = timeout(limit, found.wait_for(all)).await.map(drop);
    }

    /// Takes everything back.
    pub(super) async fn close(&self) {
        let mappings = self.mappings.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.found.send_modify(|found| *found = Some(Vec::new()));
        let mut closing = Nursery::new(&Handle::current());
        mappings.into_iter().flatten().for_each(|mapping| closing.begin(mapping.close()));
        while !closing.is_empty() {
            closing.next().await;
        }
    }

    fn tell(&self, at: usize, settled: bool, external: Option<SocketAddr>) {
        self.found.send_if_modified(|found| {
            let Some(port) = found.as_mut().and_then(|found| found.get_mut(at)) else { return false };
            let now = Port { settled, external, ..*port };
            let changed = *port != now;
            *port = now;
            changed
        });
    }
}

/// Those where a gateway has something to open: one per interface and family.
fn routes(node: &Inner) -> Vec<Route> {
    let interfaces = interfaces(|interface| node.wants(interface));
    let of = |interface: &Interface, family| interface.routes(family).into_iter().find(can_help);
    interfaces
        .iter()
        .flat_map(|interface| Family::BOTH.into_iter().filter_map(|family| of(interface, family)))
        .collect()
}

/// Asks the gateways of all routes, each for the TCP port and the UDP port, and those of interfaces that come later.
pub(super) async fn follow(node: Arc<Inner>, ports: Arc<Ports>, port: u16, via: Vec<ServerUrl>) {
    let mut watching: Nursery<()> = Nursery::new(&Handle::current());
    let mut known: Vec<(String, Family)> = Vec::new();
    let (mut mappers, mut changes) = (Vec::new(), node.changes.subscribe());
    loop {
        for route in routes(&node) {
            let name = (route.interface().name().to_owned(), route.family());
            if known.contains(&name) || known.len() >= INTERFACES {
                continue;
            }
            known.push(name);
            let mapper = Mapper::new(&route);
            for proto in [Proto::Udp, Proto::Tcp] {
                let Some((at, state)) = ports.open(&mapper, proto, port) else { return };
                watching.begin(watched(node.clone(), route.clone(), via.clone(), ports.clone(), at, state));
            }
            mappers.push(mapper);
        }
        ports.looked();
        tokio::select! {
            () = sleep(LOOK) => {}
            // After a sleep too, in which a gateway may have forgotten us.
            Ok(()) = changes.changed() => mappers.iter().for_each(Mapper::look_again),
        }
    }
}

/// Follows a mapping until it is over.
async fn watched(
    node: Arc<Inner>,
    route: Route,
    via: Vec<ServerUrl>,
    ports: Arc<Ports>,
    at: usize,
    mut state: watch::Receiver<State>,
) {
    loop {
        let now = state.borrow_and_update().clone();
        match now {
            State::Asking => ports.tell(at, false, None),
            State::Mapped(mapped) => {
                let mut useful = is_useful(mapped.external, mapped.inside, &[]);
                if !useful {
                    let seen = seen(&node, &route, &via).await;
                    useful = is_useful(mapped.external, mapped.inside, &seen);
                    if !useful {
                        tracing::debug!(protocol = %mapped.protocol, "the gateway is behind another NAT, or names a wrong address");
                    }
                }
                ports.tell(at, true, useful.then_some(mapped.external));
            }
            _ => ports.tell(at, true, None),
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// The addresses that servers outside see this route come from.
async fn seen(node: &Inner, route: &Route, via: &[ServerUrl]) -> Vec<IpAddr> {
    let servers = node.stun_servers(via).await;
    let client = servers.into_iter().fold(stun::Client::new(), stun::Client::server).route(&route.bind(0));
    match timeout(SEEN, client.ask()).await {
        Ok(Ok(answer)) => vec![answer.mapped.ip()],
        Ok(Err(error)) => {
            tracing::debug!(%error, "no server tells which address it sees");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}
