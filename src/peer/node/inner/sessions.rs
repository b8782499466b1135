//! Waits: a node's sessions: those that others have begun, and those that it has called.

use std::sync::{Arc, PoisonError, Weak};

use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::key::{PeerId, TicketAddress};
use crate::peer::PathInfo;
use crate::peer::greeting::{Greeting, Topic};
use crate::peer::node::call::Called;
use crate::peer::node::meeting::Meet;
use crate::peer::node::news::Elsewhere;
use crate::peer::session::{Carrier, Keep, Role, SessionId, Shared};

use super::{Call, Inner, Opened, State};

/// Sessions of others at one time.
const SESSIONS: usize = 1024;

/// Of these, one peer's.
const OF_A_PEER: usize = 64;

impl Inner {
    /// An authenticated path of a caller: to the session that it names, or to a new one.
    pub(in crate::peer::node) fn admit(
        self: &Arc<Self>,
        peer: PeerId,
        greeting: &Greeting,
        carrier: Carrier,
        info: PathInfo,
    ) {
        if !self.allowed.lets_in(peer) {
            tracing::info!(%peer, "a peer that is not allowed was turned away");
            return;
        }
        let Some(keep) = self.session(peer, greeting) else { return };
        keep.0.attach(carrier, info);
    }

    fn session(self: &Arc<Self>, peer: PeerId, greeting: &Greeting) -> Option<Arc<Keep>> {
        let mut state = self.lock();
        let key = (peer, greeting.session);
        if let Some(keep) = state.answered.get(&key) {
            return Some(keep.clone());
        }
        let Ok(left) = state.in_the_way_of(peer) else {
            tracing::warn!(%peer, "too many sessions: a peer was turned away");
            return None;
        };
        if !self.uses_up(greeting) {
            tracing::info!(%peer, "a peer without a good one-time ticket was turned away");
            return None;
        }
        if let Some(left) = left.and_then(|left| state.answered.remove(&left)) {
            left.0.give_up();
        }
        let keep = Shared::begin(&self.runtime, peer, greeting.session, Role::Answerer, self.multipath, self.patience);
        state.answered.insert(key, keep.clone());
        drop(state);
        crate::base::task::drive(&self.runtime, attend(Arc::downgrade(self), keep.clone(), self.opened.clone()));
        Some(keep)
    }

    fn uses_up(&self, greeting: &Greeting) -> bool {
        let Some(secrets) = &self.secrets else { return true };
        let mut secrets = secrets.lock().unwrap_or_else(PoisonError::into_inner);
        greeting.secret.as_ref().is_some_and(|secret| secrets.use_up(secret))
    }

    /// A session with a peer that was begun here and goes on.
    pub(in crate::peer::node) fn called(&self, peer: PeerId) -> Option<Called> {
        let state = self.lock();
        let theirs = state.called.iter().filter(|((of, _), _)| *of == peer).map(|(_, call)| call);
        let mut held =
            theirs.filter_map(|call| Some(Called { keep: call.keep.upgrade()?, events: call.events.upgrade()? }));
        held.find(|called| !called.keep.0.is_ending())
    }

    pub(in crate::peer::node) fn remember(&self, called: &Called, elsewhere: Arc<Elsewhere>, places: Vec<Meet>) {
        let (keep, events) = (Arc::downgrade(&called.keep), called.events.downgrade());
        let mut state = self.lock();
        state.called.retain(|_, call| call.goes_on());
        let session = Arc::downgrade(&called.keep.0);
        state.called.insert((called.keep.0.peer, called.keep.0.id), Call { keep, session, elsewhere, events, places });
    }

    /// A peer that we have called says that it is elsewhere now.
    pub(in crate::peer::node) fn handle_moved(
        &self,
        peer: PeerId,
        session: SessionId,
        number: u64,
        left: bool,
        addresses: Vec<TicketAddress>,
    ) {
        let known = {
            let state = self.lock();
            let call = state.called.get(&(peer, session));
            call.and_then(|call| Some((call.keep.upgrade()?, call.elsewhere.clone())))
        };
        match known {
            Some((keep, elsewhere)) => {
                if keep.0.handle_moved(number, left) && self.ways.direct {
                    elsewhere.replace(addresses);
                }
            }
            None => tracing::debug!(%peer, "the word of a peer that was not called"),
        }
    }

    /// What to tell each of those who have called us, when our network is another one.
    pub(in crate::peer::node) fn moved(&self, number: u64) -> Vec<(PeerId, Vec<u8>)> {
        let doors = self.doors.as_ref().filter(|_| self.ways.direct);
        let addresses = doors.map(|doors| doors.addresses(|i| self.wants(i))).unwrap_or_default();
        let of = |keep: &Arc<Keep>| {
            let left = keep.0.good_path().is_none();
            let word = Topic::Moved { session: keep.0.id, number, left, addresses: addresses.clone() };
            (keep.0.peer, word.to_bytes())
        };
        self.lock().answered.values().map(of).collect()
    }

    /// All sessions, of both kinds.
    pub(in crate::peer::node) fn sessions(&self) -> Vec<Arc<Keep>> {
        let state = self.lock();
        let called = state.called.values().filter_map(|call| call.keep.upgrade());
        state.answered.values().cloned().chain(called).collect()
    }

    fn forget(&self, peer: PeerId, session: SessionId) {
        self.lock().answered.remove(&(peer, session));
    }

    // ---- being connected back to

    pub(in crate::peer::node) fn await_back(&self, session: SessionId) -> mpsc::Receiver<TcpStream> {
        let (tell, told) = mpsc::channel(4);
        self.lock().awaited.insert(session, tell);
        told
    }

    pub(in crate::peer::node) fn await_no_more(&self, session: SessionId) {
        self.lock().awaited.remove(&session);
    }

    pub(in crate::peer::node) fn came_back(&self, session: SessionId, stream: TcpStream) {
        let waits = self.lock().awaited.get(&session).cloned();
        // Whoever nobody waits for is dropped, and one over the few that are taken.
        let taken = waits.is_some_and(|waits| waits.try_send(stream).is_ok());
        tracing::debug!(taken, "connected back to");
    }
}

/// No session can be taken out for another.
struct Full;

impl State {
    /// The session that makes room for one of this peer, where that is needed: the one that nobody has come back to for longest,
    /// of the same peer, where that has its share.
    fn in_the_way_of(&self, peer: PeerId) -> Result<Option<(PeerId, SessionId)>, Full> {
        let of_peer = self.answered.keys().filter(|(of, _)| *of == peer).count();
        if self.answered.len() < SESSIONS && of_peer < OF_A_PEER {
            return Ok(None);
        }
        let fits = |of: &PeerId| of_peer < OF_A_PEER || *of == peer;
        let left = self.answered.iter().filter(|((of, _), _)| fits(of));
        let left = left.filter_map(|(key, keep)| Some((keep.0.orphaned()?, *key))).min_by_key(|(since, _)| *since);
        left.map(|(_, key)| Some(key)).ok_or(Full)
    }
}

/// Passes on the channels that a peer opens, and has the servers looked at when its path falls silent, until the session is
/// over.
async fn attend(node: Weak<Inner>, keep: Arc<Keep>, opened: mpsc::Sender<Opened>) {
    loop {
        let next = tokio::select! {
            next = std::future::poll_fn(|cx| keep.0.poll_accept(cx)) => next,
            () = keep.0.ailing.notified() => {
                if let Some(node) = node.upgrade() {
                    node.check_meetings();
                }
                continue;
            }
            // The node is gone: the session lives as long as its pipes, not as long as it has patience.
            () = opened.closed() => break,
        };
        let Ok((id, kind)) = next else { break };
        if opened.send(Opened { keep: keep.clone(), id, kind }).await.is_err() {
            break;
        }
    }
    if let Some(node) = node.upgrade() {
        node.forget(keep.0.peer, keep.0.id);
    }
}
