//! Waits: this network: the node is announced there, and whom it calls is looked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::inner::Inner;
use super::strategies::{Strategy, direct};
use crate::key::Ticket;
use crate::nat::Proto;
use crate::net::{Family, Local};
use crate::peer::PathKind;
use crate::peer::greeting::Greeting;
use crate::peer::lan::{Lan, LanError};

/// How long a peer is looked for: an answer takes a fraction of a second, and a lost question is asked again after one.
const LOOK: Duration = Duration::from_secs(4);
/// Addresses that are tried: forged announcements can make us knock at no more doors.
const ADDRESSES: usize = 16;

/// What a node knows of its network, once it has looked.
#[derive(Debug, Default)]
pub(super) struct Near {
    lan: Mutex<Option<Lan>>,
    announces: AtomicBool,
}

impl Near {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Lan>> {
        self.lan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the node is announced.
    pub(super) fn announces(&self) -> bool {
        self.announces.load(Ordering::Relaxed)
    }

    /// Takes the announcement back.
    pub(super) fn leave(&self) {
        drop(self.lock().take());
    }
}

impl Inner {
    fn lan(&self) -> Result<Lan, LanError> {
        let mut lan = self.lan.lock();
        if let Some(lan) = &*lan {
            return Ok(lan.clone());
        }
        let opened = Lan::open(&self.interfaces)?;
        *lan = Some(opened.clone());
        Ok(opened)
    }

    /// Tells this network that the node is here.
    pub(super) fn announce(&self) -> Result<(), LanError> {
        let lan = self.lan()?;
        self.lan.announces.store(true, Ordering::Relaxed);
        match &self.doors {
            Some(doors) => lan.announce(self.me.peer_id(), doors.port),
            None => Ok(()),
        }
    }
}

/// Looks for the peer of a ticket, where that is wanted or the ticket says that it is announced, and tries the addresses.
/// Whoever has forged them can not prove the ticket's key.
pub(super) async fn seek(
    node: &Arc<Inner>,
    ticket: &Ticket,
    greeting: Greeting,
    more: mpsc::Sender<(PathKind, Strategy)>,
) -> Vec<(PathKind, String)> {
    if !node.ways.direct || !(ticket.is_on_lan() || node.lan.announces()) {
        return Vec::new();
    }
    let failed = |why: String| vec![(PathKind::Direct, why)];
    let lan = match node.lan() {
        Ok(lan) => lan,
        Err(error) => return failed(error.to_string()),
    };
    let (mut peers, mut tried) = (lan.peers(), Vec::new());
    let known: Vec<_> = ticket.addresses().iter().map(|address| address.addr).collect();
    let looking = async {
        loop {
            let found = peers.borrow_and_update().clone();
            let of_peer = found.iter().filter(|found| found.peer == ticket.peer());
            for to in of_peer.flat_map(|found| found.addresses.iter().copied()) {
                if known.contains(&to) || tried.contains(&to) || tried.len() >= ADDRESSES {
                    continue;
                }
                tried.push(to);
                for proto in [Proto::Tcp, Proto::Udp] {
                    // The race is over when nobody takes it.
                    let from = Local::any(Family::of(to.ip()));
                    let _ =
                        more.send((PathKind::Direct, direct(node, ticket.peer(), from, to, proto, &greeting))).await;
                }
            }
            if peers.changed().await.is_err() {
                return;
            }
        }
    };
    // It has to end some time, or the other failures would never be told.
    let _ = timeout(LOOK, looking).await;
    match tried.is_empty() {
        true => failed(format!("the peer does not announce itself on this network (looked for it for {LOOK:?})")),
        false => Vec::new(),
    }
}
