//! Waits: what a program holds of a node and of a peer.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, broadcast, mpsc, watch};
use tokio::time::timeout;

use super::builder::{Builder, NodeError};
use super::call::{Called, ConnectError, call};
use super::inner::{Inner, Opened};
use crate::base::task::Nursery;
use crate::key::{NoRandomness, PeerId, Place, Ticket};
use crate::nat::Proto;
use crate::peer::session::{ChannelKind, ChannelPipe, Ended, Role};
use crate::peer::{Event, PathInfo};
use crate::pipe::{NetConf, Pipe};

/// Events that wait for who listens; older ones are lost to whoever is slower.
const EVENTS: usize = 256;

/// How long sessions are given to say goodbye when a node is closed.
const PARTING: Duration = Duration::from_secs(10);

/// A peer among peers: it gives out tickets, is reached by them, and reaches others by theirs. Clones are the same node;
/// dropping the last one closes its doors and takes its registrations back. Pipes that are open live on.
///
/// ```
/// use natpipe::nat::Proto;
/// use natpipe::peer::Node;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (ann, bob) = (Node::builder().start().await?, Node::builder().start().await?);
/// let to_bob = ann.connect(&bob.ticket()?, Proto::Tcp).await?;
/// to_bob.send("hello").await?;
/// let (from, pipe) = bob.accept().await?;
/// assert_eq!((from.id(), &pipe.recv().await?[..]), (ann.id(), &b"hello"[..]));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Node {
    pub(super) handle: Arc<NodeHandle>,
}

pub(super) struct NodeHandle {
    pub(super) inner: Arc<Inner>,
    pub(super) via: Vec<Place>,
    pub(super) opened: Mutex<mpsc::Receiver<Opened>>,
    /// Nobody is waited for any more.
    pub(super) closed: watch::Sender<bool>,
    /// Dropped with the node.
    pub(super) tasks: Mutex<Nursery<()>>,
}

impl Node {
    /// How a node is made.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A node with this identity, that is met nowhere but at its own addresses.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn start() -> Result<Self, NodeError> {
        Builder::default().start().await
    }

    /// Who it is.
    pub fn id(&self) -> PeerId {
        self.handle.inner.me.peer_id()
    }

    /// A ticket to this node: where it is met, and its own addresses. One-time tickets differ each time.
    ///
    /// # Errors
    /// When the system gives no random bytes for a one-time ticket.
    pub fn ticket(&self) -> Result<Ticket, NoRandomness> {
        let inner = &self.handle.inner;
        let mut ticket = self.handle.via.iter().cloned().fold(Ticket::new(self.id()), Ticket::with_place);
        if let Some(doors) = inner.doors.as_ref().filter(|_| inner.ways.direct) {
            ticket = doors.addresses(|interface| inner.wants(interface)).into_iter().fold(ticket, Ticket::with_address);
        }
        #[cfg(feature = "lan")]
        if inner.lan.announces() {
            ticket = ticket.with_lan();
        }
        if let Some(secrets) = &inner.secrets {
            let mut secrets = secrets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            ticket = ticket.with_secret(secrets.issue()?);
        }
        Ok(ticket)
    }

    /// Waits until each gateway that was asked to open our ports has answered or can not, for so long at most. Where others reach
    /// us through them then; tickets that are made from now on name these addresses.
    ///
    /// Cancel safe.
    pub async fn mapped(&self, limit: Duration) -> Vec<SocketAddr> {
        let Some(ports) = self.handle.inner.doors.as_ref().and_then(|doors| doors.ports.get()) else {
            return Vec::new();
        };
        ports.settled(limit).await;
        ports.addresses().iter().map(|address| address.addr).collect()
    }

    /// A pipe to the peer that a ticket names: a stream for TCP, datagrams for UDP. All pipes to one peer share its
    /// connection.
    ///
    /// # Errors
    /// [`ConnectError`]. Cancelling closes what was opened.
    pub async fn connect(&self, ticket: &Ticket, proto: Proto) -> Result<Pipe, ConnectError> {
        self.peer(ticket).await?.open(proto, NetConf::default())
    }

    /// The peer that a ticket names, once there is a path to it.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn peer(&self, ticket: &Ticket) -> Result<Peer, ConnectError> {
        self.peer_watched(ticket, |_| {}).await
    }

    /// The same; `watch` is given what happens from the beginning.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn peer_watched(
        &self,
        ticket: &Ticket,
        watch: impl FnOnce(broadcast::Receiver<Event>),
    ) -> Result<Peer, ConnectError> {
        let inner = &self.handle.inner;
        // A ticket that is good once is a connection of its own.
        let known = inner.called(ticket.peer()).filter(|_| ticket.secret().is_none());
        let events = known.as_ref().map_or_else(|| broadcast::channel(EVENTS).0, |called| called.events.clone());
        watch(events.subscribe());
        let called = match known {
            Some(called) => called.reached().await?,
            None => call(inner, ticket, events).await?,
        };
        Ok(Peer { called })
    }

    /// The next pipe that a peer opens which has called this node, and the peer.
    ///
    /// # Errors
    /// [`ConnectError::Closed`] when the node was closed and nothing is left that came before, and [`ConnectError::Pipe`]. Cancel
    /// safe.
    pub async fn accept(&self) -> Result<(Peer, Pipe), ConnectError> {
        let mut closed = self.handle.closed.subscribe();
        let opened = tokio::select! {
            biased;
            opened = async { self.handle.opened.lock().await.recv().await } => opened,
            _ = closed.wait_for(|closed| *closed) => None,
        };
        let Opened { keep, id, kind } = opened.ok_or(ConnectError::Closed)?;
        let pipe = Pipe::over(ChannelPipe::new(keep.clone(), id, kind), NetConf::default())?;
        let (events, _) = broadcast::channel(EVENTS);
        Ok((Peer { called: Called { keep, events } }, pipe))
    }

    /// Says goodbye to all peers, after everything that was written, takes the registrations and what gateways have opened back
    /// and closes the doors.
    pub async fn close(&self) {
        self.handle.closed.send_replace(true);
        let sessions = self.handle.inner.sessions();
        sessions.iter().for_each(|session| session.0.close());
        let parted = async {
            for session in &sessions {
                session.0.over().await;
            }
        };
        if timeout(PARTING, parted).await.is_err() {
            tracing::debug!("some peers did not hear the goodbye");
        }
        #[cfg(feature = "lan")]
        self.handle.inner.lan.leave();
        for meeting in self.handle.inner.take_meetings() {
            meeting.close().await;
        }
        let mut tasks = self.handle.tasks.lock().await;
        *tasks = Nursery::new(&self.handle.inner.runtime);
        if let Some(doors) = &self.handle.inner.doors {
            if let Some(ports) = doors.ports.get() {
                ports.close().await;
            }
            doors.quic.close(0_u32.into(), &[]);
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.id())
    }
}

/// The connection with a peer, for many pipes. When the last handle and the last pipe are dropped it is closed.
#[derive(Clone)]
pub struct Peer {
    called: Called,
}

impl Peer {
    pub(super) fn new(called: Called) -> Self {
        Self { called }
    }

    /// Who it is: the key that was proved.
    pub fn id(&self) -> PeerId {
        self.called.keep.0.peer
    }

    /// One more pipe to it: a stream for TCP, datagrams for UDP, each of at most 64 KiB. Only who has called a peer opens pipes to
    /// it; one that was accepted has a program that waits for none.
    ///
    /// # Errors
    /// [`ConnectError::TheirsToOpen`], [`ConnectError::TooMany`], [`ConnectError::Ended`] and [`ConnectError::Pipe`].
    pub fn open(&self, proto: Proto, conf: NetConf) -> Result<Pipe, ConnectError> {
        let kind = if proto == Proto::Tcp { ChannelKind::Stream } else { ChannelKind::Datagram };
        let shared = &self.called.keep.0;
        if shared.role() == Role::Answerer {
            return Err(ConnectError::TheirsToOpen);
        }
        let ended = *shared.ended().borrow();
        let id = shared.open(kind).ok_or_else(|| ended.map_or(ConnectError::TooMany, ConnectError::Ended))?;
        Ok(Pipe::over(ChannelPipe::new(self.called.keep.clone(), id, kind), conf)?)
    }

    /// The path in use, with its round trip; `None` while there is none.
    pub fn path(&self) -> Option<PathInfo> {
        self.called.keep.0.path()
    }

    /// All paths that stand now, those in doubt too, the one in use first.
    pub fn all_paths(&self) -> Vec<PathInfo> {
        self.called.keep.0.all_paths()
    }

    /// The path in use and each change of it.
    pub fn paths(&self) -> watch::Receiver<Option<PathInfo>> {
        self.called.keep.0.paths()
    }

    /// What happens from now on, at the end that called.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.called.events.subscribe()
    }

    /// Why it is over, once it is.
    pub async fn ended(&self) -> Ended {
        self.called.keep.0.over().await
    }

    /// Says goodbye, after everything that was written, and returns when the peer has heard it.
    pub async fn close(&self) {
        self.called.keep.0.close();
        self.ended().await;
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({}, {:?})", self.id(), self.path())
    }
}
