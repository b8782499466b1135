//! Holds: what a program holds of its mappings.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::held::Asked;
use super::keep::Keeper;
use super::{MapError, Proto, Protocol, lease};
use crate::base::task;
use crate::net::Route;

/// A mapping was asked for outside a tokio runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mapping a port needs a tokio runtime")]
pub struct NoRuntime;

/// How a mapping stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// The gateway is being asked.
    Asking,
    /// The port is open.
    Mapped(Mapped),
    /// It is not, and will be asked for again in some minutes, and at once when the gateway is another.
    Failed(MapError),
}

/// A port that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mapped {
    /// Where others reach it, as the gateway says; see [`is_useful`](super::is_useful). A pinhole's is our own address.
    pub external: SocketAddr,
    /// Our address that it leads to.
    pub inside: IpAddr,
    /// How it was asked for.
    pub protocol: Protocol,
    /// Who opened it, where that is known.
    pub gateway: Option<IpAddr>,
    /// For how long it was granted; it is renewed at half of it.
    pub lifetime: Duration,
}

/// Asks the gateway of a route to open ports. Clones are the same.
///
/// Its mappings follow the interface of the route: when that gets another gateway or another address, each is asked for anew.
#[derive(Clone, Debug)]
pub struct Mapper {
    route: Route,
    protocols: Vec<Protocol>,
    lease: Duration,
    again: Arc<watch::Sender<()>>,
}

/// What a mapping's task knows of its mapper.
pub(super) struct Asking {
    pub(super) route: Route,
    pub(super) protocols: Vec<Protocol>,
    /// Told when all mappings have to look whether they still stand.
    pub(super) again: watch::Receiver<()>,
    tell: Arc<watch::Sender<()>>,
}

impl Asking {
    pub(super) fn tell_again(&self) {
        self.tell.send_replace(());
    }
}

impl Mapper {
    /// For the gateway of this route; nothing is sent yet.
    pub fn new(route: &Route) -> Self {
        let protocols = Protocol::of(route.family()).to_vec();
        Self { route: route.clone(), protocols, lease: lease::WANTED, again: Arc::new(watch::Sender::new(())) }
    }

    /// Asks by these protocols only. Default: by all that there are for the route's family.
    pub fn only(mut self, protocols: &[Protocol]) -> Self {
        self.protocols = protocols.to_vec();
        self
    }

    /// For how long a mapping is asked for, in whole seconds from 1. The gateway may grant less or more. Default two hours.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_secs(1));
        self
    }

    /// Has a port of ours opened, until the mapping is dropped. It returns at once; the mapping's state tells what comes of it.
    ///
    /// # Errors
    /// [`NoRuntime`] outside a tokio runtime.
    pub fn map(&self, proto: Proto, port: u16) -> Result<Mapping, NoRuntime> {
        let runtime = Handle::try_current().map_err(|_| NoRuntime)?;
        let (state, shown) = watch::channel(State::Asking);
        let (end, over) = oneshot::channel();
        let asking = Asking {
            route: self.route.clone(),
            protocols: self.protocols.clone(),
            again: self.again.subscribe(),
            tell: self.again.clone(),
        };
        let asked = Asked { proto, port, nonce: rand::random(), lease: self.lease, liked: None };
        task::drive(&runtime, Keeper { asking, asked, state, over }.keep());
        Ok(Mapping { proto, port, state: shown, _end: end })
    }

    /// Has every mapping look now whether it still stands, as is wise when the network has changed.
    pub fn look_again(&self) {
        self.again.send_replace(());
    }
}

/// A port that the gateway is asked to keep open. Dropping it takes the mapping back behind our back, as long as the runtime
/// lives; [`close`](Self::close) waits for it.
#[derive(Debug)]
pub struct Mapping {
    proto: Proto,
    port: u16,
    state: watch::Receiver<State>,
    _end: oneshot::Sender<()>,
}

impl Mapping {
    /// What is mapped.
    pub fn proto(&self) -> Proto {
        self.proto
    }

    /// Which port of ours.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How it stands, and each change of it.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The port that is open now.
    pub fn mapped(&self) -> Option<Mapped> {
        match &*self.state.borrow() {
            State::Mapped(mapped) => Some(mapped.clone()),
            _ => None,
        }
    }

    /// Where others reach it now.
    pub fn external(&self) -> Option<SocketAddr> {
        self.mapped().map(|mapped| mapped.external)
    }

    /// Waits until the gateway has answered or can not, for so long at most. The port that is open then.
    ///
    /// Cancel safe.
    pub async fn settled(&self, limit: Duration) -> Option<Mapped> {
        let mut state = self.state.clone();
        // Too late is as good as no answer.
        let _ = timeout(limit, state.wait_for(|state| *state != State::Asking)).await.map(drop);
        self.mapped()
    }

    /// Takes the mapping back and waits until that is done, for three seconds at most.
    pub async fn close(self) {
        let Self { mut state, _end: end, .. } = self;
        drop(end);
        // The task ends with its sender.
        while state.changed().await.is_ok() {}
    }
}
