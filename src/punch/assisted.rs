//! Waits: the ports of a punch, opened by the gateways of their routes: NAT-assisted candidates (RFC 6544 section 3).

use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use super::message::{Candidate, CandidateKind};
use crate::nat::Proto;
use crate::net::Route;
use crate::portmap::{self, Mapper, Mapping, State, can_help, is_useful};

/// A program that ends at once leaves the gateway's port open no longer than this.
const LEASE: Duration = Duration::from_secs(600);

/// A port that a gateway keeps open as long as this is held.
#[derive(Debug)]
pub(super) struct Opening(#[expect(dead_code, reason = "it is held: dropping it takes the port back")] Mapping);

/// What gateways are asked for, and have opened. Dropping it takes all of it back.
#[derive(Debug, Default)]
pub(super) struct Assisted {
    mappings: Vec<Mapping>,
    asking: FuturesUnordered<BoxFuture<'static, Option<Candidate>>>,
}

impl Assisted {
    /// Asks the route's gateway, if it may have one that helps, to open a port. `seen` is where a server sees us come from.
    pub(super) fn ask(&mut self, route: &Route, proto: Proto, port: u16, seen: Option<IpAddr>) {
        if !can_help(route) {
            return;
        }
        let over = if proto == Proto::Udp { portmap::Proto::Udp } else { portmap::Proto::Tcp };
        let Ok(mapping) = Mapper::new(route).lease(LEASE).map(over, port) else { return };
        self.asking.push(Box::pin(answered(mapping.state(), proto, seen)));
        self.mappings.push(mapping);
    }

    pub(super) fn is_asking(&self) -> bool {
        !self.asking.is_empty()
    }

    /// The next port that is open; `None` when no gateway is being asked any more. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Candidate> {
        loop {
            if let Some(candidate) = self.asking.next().await? {
                return Some(candidate);
            }
        }
    }

    /// What keeps this port of ours open; the others are taken back.
    pub(super) fn of_port(self, port: u16) -> Option<Opening> {
        self.mappings.into_iter().find(|mapping| mapping.port() == port).map(Opening)
    }
}

/// Until the gateway has opened the port, or can not; an address at which nobody outside reaches us is none.
async fn answered(mut state: watch::Receiver<State>, proto: Proto, seen: Option<IpAddr>) -> Option<Candidate> {
    loop {
        let now = state.borrow_and_update().clone();
        match now {
            State::Asking => state.changed().await.ok()?,
            State::Mapped(mapped) if is_useful(mapped.external, mapped.inside, seen.as_slice()) => {
                return Some(Candidate::new(proto, CandidateKind::NatAssisted, mapped.external));
            }
            State::Mapped(mapped) => {
                tracing::debug!(external = %mapped.external, "the gateway is behind another NAT, or names a wrong address");
                return None;
            }
            State::Failed(error) => {
                tracing::debug!(%error, "no gateway opens the port");
                return None;
            }
        }
    }
}
