//! Waits: announcements of peers on this network, our own and others'.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mdns_sd::{IfKind, IfPredicate, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::interval;

use super::table::{LanPeer, Table};
use crate::base::task;
use crate::key::PeerId;

/// What peers announce themselves as (RFC 6763 section 4.1.2).
const SERVICE: &str = "_natpipe._udp.local.";
/// Where the announcement says who it is.
const ID: &str = "id";
/// How often it is looked after how much the library remembers, which has no limit of its own but the answers' lifetimes.
const CHECK: Duration = Duration::from_secs(5);
/// Records that it may remember; a flood of forged ones makes it begin anew.
const RECORDS: i64 = 4096;

/// Why peers on this network can not be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LanError {
    /// It was called outside a tokio runtime.
    #[error("finding peers on this network needs a tokio runtime")]
    NoRuntime,
    /// Multicast DNS does not work here: no socket, or another program has the port for itself.
    #[error("multicast DNS can not be used: {0}")]
    Mdns(#[from] mdns_sd::Error),
}

/// Who is on this network. Clones are the same; when the last is dropped, what was announced is taken back.
#[derive(Clone)]
pub struct Lan {
    peers: watch::Receiver<Arc<[LanPeer]>>,
    keep: Arc<Keep>,
}

/// What is shared with the task that listens.
struct Shared {
    /// Interfaces by name; all when there is none.
    interfaces: Arc<[String]>,
    daemon: Mutex<ServiceDaemon>,
    announced: Mutex<Option<Announced>>,
}

/// What this end announces. The name is at random: who announces the same peer under another one takes nothing away from it.
#[derive(Clone, Debug)]
struct Announced {
    name: String,
    peer: PeerId,
    port: u16,
}

/// Ends everything with the last handle.
struct Keep {
    shared: Arc<Shared>,
    over: watch::Sender<bool>,
}

impl Lan {
    /// Begins to listen on these interfaces, or on all when none is named.
    ///
    /// # Errors
    /// [`LanError`].
    pub fn open(interfaces: &[String]) -> Result<Self, LanError> {
        let runtime = Handle::try_current().map_err(|_| LanError::NoRuntime)?;
        let interfaces: Arc<[String]> = interfaces.into();
        let (daemon, events) = begin(&interfaces)?;
        let shared = Arc::new(Shared { interfaces, daemon: Mutex::new(daemon), announced: Mutex::default() });
        let (tell, peers) = watch::channel(Arc::from([]));
        let (over, is_over) = watch::channel(false);
        task::drive(&runtime, listen(shared.clone(), events, tell, is_over));
        Ok(Self { peers, keep: Arc::new(Keep { shared, over }) })
    }

    /// Announces this peer with all addresses of the interfaces, now and whenever they change.
    ///
    /// # Errors
    /// [`LanError::Mdns`].
    pub fn announce(&self, peer: PeerId, port: u16) -> Result<(), LanError> {
        let new = Announced { name: format!("{:016x}", rand::random::<u64>()), peer, port };
        let old = lock(&self.keep.shared.announced).replace(new.clone());
        let daemon = lock(&self.keep.shared.daemon);
        if let Some(old) = old {
            daemon.unregister(&old.full_name())?;
        }
        announce(&daemon, &new)
    }

    /// Who is there now, and each change of that.
    pub fn peers(&self) -> watch::Receiver<Arc<[LanPeer]>> {
        self.peers.clone()
    }
}

impl fmt::Debug for Lan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lan({} peers)", self.peers.borrow().len())
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        let daemon = lock(&self.shared.daemon);
        if let Some(announced) = &*lock(&self.shared.announced) {
            // The goodbye goes out before the end.
            let _ = daemon.unregister(&announced.full_name());
        }
        stop(&daemon);
        // The listener may have ended before.
        let _ = self.over.send(true);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stop(daemon: &ServiceDaemon) {
    if let Err(error) = daemon.shutdown() {
        tracing::debug!(%error, "multicast DNS had ended by itself");
    }
}

type Events = mdns_sd::Receiver<ServiceEvent>;

fn begin(interfaces: &Arc<[String]>) -> Result<(ServiceDaemon, Events), LanError> {
    let daemon = ServiceDaemon::new()?;
    let named = interfaces.clone();
    let unwanted = move |name: &str, loopback: bool| loopback || !(named.is_empty() || named.iter().any(|n| n == name));
    daemon.disable_interface(IfKind::Predicate(IfPredicate::new(move |interface| {
        unwanted(&interface.name, interface.is_loopback())
    })))?;
    let events = daemon.browse(SERVICE)?;
    Ok((daemon, events))
}

impl Announced {
    fn full_name(&self) -> String {
        format!("{}.{SERVICE}", self.name)
    }
}

fn announce(daemon: &ServiceDaemon, announced: &Announced) -> Result<(), LanError> {
    let Announced { name, peer, port } = announced;
    let (host, id) = (format!("natpipe-{name}.local."), peer.to_string());
    let service = ServiceInfo::new(SERVICE, name, &host, "", *port, &[(ID, &*id)][..])?;
    let mut service = service.enable_addr_auto();
    // The name is at random: nobody else has it, so nobody is asked.
    service.set_requires_probe(false);
    Ok(daemon.register(service)?)
}

async fn listen(
    shared: Arc<Shared>,
    mut events: Events,
    tell: watch::Sender<Arc<[LanPeer]>>,
    mut over: watch::Receiver<bool>,
) {
    let (mut table, mut check) = (Table::default(), interval(CHECK));
    loop {
        tokio::select! {
            _ = over.changed() => return,
            event = events.recv_async() => {
                let Ok(event) = event else { return };
                if handle(&mut table, event) {
                    tell.send_replace(table.peers().into());
                }
            }
            _ = check.tick() => {
                if is_flooded(&shared).await {
                    tracing::warn!("forged announcements flood this network: what was heard is forgotten");
                    let Some(fresh) = begin_anew(&shared) else { return };
                    (events, table) = (fresh, Table::default());
                    tell.send_replace(Arc::from([]));
                }
            }
        }
    }
}

/// True when something is new.
fn handle(table: &mut Table, event: ServiceEvent) -> bool {
    match event {
        ServiceEvent::ServiceResolved(found) => {
            table.handle_found(&found.fullname, found.get_property_val_str(ID), &addresses(&found))
        }
        ServiceEvent::ServiceRemoved(_, name) => table.handle_gone(&name),
        _ => false,
    }
}

fn addresses(found: &ResolvedService) -> Vec<SocketAddr> {
    let of = |ip: &ScopedIp| match ip {
        ScopedIp::V6(v6) => {
            let scope = if v6.addr().is_unicast_link_local() { v6.scope_id().index } else { 0 };
            std::net::SocketAddrV6::new(*v6.addr(), found.port, 0, scope).into()
        }
        ip => SocketAddr::new(ip.to_ip_addr(), found.port),
    };
    found.addresses.iter().map(of).collect()
}

async fn is_flooded(shared: &Shared) -> bool {
    let Ok(answer) = lock(&shared.daemon).get_metrics() else { return false };
    let Ok(metrics) = answer.recv_async().await else { return false };
    metrics.iter().filter(|(name, _)| name.starts_with("cached-")).map(|(_, count)| count).sum::<i64>() > RECORDS
}

/// Another daemon, with nothing in its memory.
fn begin_anew(shared: &Shared) -> Option<Events> {
    let mut daemon = lock(&shared.daemon);
    stop(&daemon);
    let (fresh, events) = begin(&shared.interfaces).ok()?;
    if let Some(announced) = &*lock(&shared.announced)
        && let Err(error) = announce(&fresh, announced)
    {
        tracing::warn!(%error, "this peer is not announced any more");
    }
    *daemon = fresh;
    Some(events)
}
