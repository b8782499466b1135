//! Waits: what a gateway speaks, asked without opening anything.

use std::net::IpAddr;

use tokio::runtime::Handle;

use super::held::{Spoken, probe};
use super::place::Place;
use super::{Failure, Protocol};
use crate::base::task::Nursery;
use crate::net::Route;

/// What the gateway of a route offers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offers {
    /// Who was asked; `None` where no router is known.
    pub gateway: Option<IpAddr>,
    /// Each protocol that there is for the family, and whether it is spoken.
    pub by: Vec<(Protocol, Result<Offer, Failure>)>,
}

/// What is known of a protocol that is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// The gateway's external address, where it tells without opening a port.
    pub external: Option<IpAddr>,
    /// Seconds since the gateway lost its mappings last, where it tells.
    pub epoch: Option<u32>,
    /// Whether pinholes may be opened, where it tells.
    pub pinholes: Option<bool>,
}

/// Asks the gateway of a route by all protocols at once what it speaks; it takes five to ten seconds where it does not answer.
///
/// Cancel safe: nothing is opened.
pub async fn offers(route: &Route) -> Offers {
    let place = Place::of(route);
    let mut probing: Nursery<(Protocol, Result<Spoken, Failure>)> = Nursery::new(&Handle::current());
    for protocol in Protocol::of(place.family()) {
        let place = place.clone();
        probing.begin(async move { (*protocol, probe(&place, *protocol).await) });
    }
    let mut by = Vec::new();
    while !probing.is_empty() {
        if let Some((protocol, spoken)) = probing.next().await {
            by.push((protocol, spoken.map(offer)));
        }
    }
    by.sort_by_key(|(protocol, _)| *protocol);
    Offers { gateway: place.gateway, by }
}

fn offer(spoken: Spoken) -> Offer {
    match spoken {
        Spoken::Pcp { epoch } => Offer { epoch, ..Offer::default() },
        Spoken::NatPmp { external } | Spoken::Igd { external, .. } => {
            Offer { external: Some(external), ..Offer::default() }
        }
        Spoken::Firewall { allowed, .. } => Offer { pinholes: Some(allowed), ..Offer::default() },
    }
}
