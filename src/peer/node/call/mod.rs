//! Waits: reaching a peer: all strategies race, the first path is used, better ones follow.

mod race;
mod talks;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{broadcast, oneshot};

use super::inner::Inner;
use super::meeting::Meet;
use super::news::Elsewhere;
use crate::base::task::{self, Nursery};
use crate::key::{Ticket, TicketAddress};
use crate::peer::session::{Keep, Role, SessionId, Shared};
use crate::peer::{Event, PathKind};

/// Why a peer can not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The ticket is this node's own.
    #[error("the ticket is our own")]
    Ourselves,
    /// There is nothing to try: the ticket names no server and no address, or all were ruled out.
    #[error("there is no way to try: the ticket names no place to meet that may be used here")]
    NoWay,
    /// Every strategy came to nothing.
    #[error("no way to the peer was found: {0}")]
    Failed(Failures),
    /// It was reached and is gone again.
    #[error(transparent)]
    Ended(#[from] crate::peer::Ended),
    /// It has called us, and takes no pipes: they are its to open. Who wants both ways calls it too.
    #[error("the peer has called us, and it is its end that opens pipes")]
    TheirsToOpen,
    /// The node was closed.
    #[error("the node was closed")]
    Closed,
    /// Too many pipes to this peer are open.
    #[error("too many pipes to this peer are open")]
    TooMany,
    /// No pipe can be made.
    #[error(transparent)]
    Pipe(#[from] crate::pipe::OpenError),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

/// Each strategy that was tried, and why it came to nothing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Failures(pub Vec<(PathKind, String)>);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (kind, why)) in self.0.iter().enumerate() {
            write!(f, "{}{kind}: {why}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// A session that is called, and what is told of it.
#[derive(Clone)]
pub(super) struct Called {
    pub(super) keep: Arc<Keep>,
    pub(super) events: broadcast::Sender<Event>,
}

impl Called {
    /// Waits for its first path, which is looked for already.
    pub(super) async fn reached(self) -> Result<Self, ConnectError> {
        let shared = &self.keep.0;
        let mut paths = shared.paths();
        if shared.had_a_path() {
            return Ok(self);
        }
        tokio::select! {
            biased;
            Ok(_) = paths.wait_for(Option::is_some) => {}
            ended = shared.over() => return Err(ended.into()),
        }
        Ok(self)
    }
}

/// Begins a session and waits for its first path.
pub(super) async fn call(
    node: &Arc<Inner>,
    ticket: &Ticket,
    events: broadcast::Sender<Event>,
) -> Result<Called, ConnectError> {
    let peer = ticket.peer();
    if peer == node.me.peer_id() {
        return Err(ConnectError::Ourselves);
    }
    let session = SessionId(crate::peer::random().ok_or(ConnectError::NoRandomness)?);
    let keep = Shared::begin(&node.runtime, peer, session, Role::Caller, node.multipath, node.patience);
    let elsewhere = Arc::new(Elsewhere::than(ticket));
    let called = Called { keep, events };
    node.remember(&called, elsewhere.clone(), Meet::places(ticket));
    let (tell, told) = oneshot::channel();
    let race = Race {
        node: Arc::downgrade(node),
        session: Arc::downgrade(&called.keep.0),
        ticket: ticket.clone(),
        events: called.events.clone(),
        elsewhere,
        told: Mutex::default(),
        hearing: Mutex::new(Nursery::new(&node.runtime)),
    };
    task::drive(&node.runtime, race.keep_up(tell));
    tokio::select! {
        biased;
        // The race says why before it gives the session up.
        Ok(failures) = told => Err(if failures.0.is_empty() { ConnectError::NoWay } else { ConnectError::Failed(failures) }),
        reached = called.reached() => reached,
    }
}

/// What looks after a session that was called: it finds the first path, better ones, and others when they are lost.
struct Race {
    node: Weak<Inner>,
    session: Weak<Shared>,
    ticket: Ticket,
    events: broadcast::Sender<Event>,
    /// Where the peer is reached beside what its ticket says.
    elsewhere: Arc<Elsewhere>,
    /// Where the peer knows that we are reached.
    told: Mutex<Vec<TicketAddress>>,
    /// The conversations of the last race.
    hearing: Mutex<Nursery<()>>,
}
