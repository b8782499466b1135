//! Waits: a client of a rendezvous server.

use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Instant;

use tokio::runtime::Handle as Runtime;
use tokio::sync::{Notify, watch};

use super::desk::Desk;
use super::dial::{ConnectError, Dialer, Way};
use super::link;
use super::proxy::Proxy;
use super::signal::{Signal, SignalError};
use super::talks::Carriage;
use crate::base::task;
use crate::key::{Identity, PeerId, ServerUrl};
use crate::net::{Interface, Route};
use crate::pipe::tls::TlsClient;

/// How a client and its server stand.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Registered: others can find this peer.
    Connected,
    /// The connection is lost and made again, until it stands.
    Connecting {
        /// Why it is not there, for people.
        why: Arc<str>,
    },
    /// It is over: the client was closed, or another one has registered with the same key.
    Closed {
        /// Why, for people, unless it was closed here.
        why: Option<Arc<str>>,
    },
}

/// A peer registered with a rendezvous server. Clones are the same client; dropping the last one, with all signals and
/// relayed streams, takes the registration back, after everything that was written is sent.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
    url: ServerUrl,
}

impl Client {
    /// Connects to a server and registers there as `identity`, straight and by whichever interface the kernel chooses. As
    /// [`builder`](Self::builder) with nothing set.
    ///
    /// # Errors
    /// [`ConnectError`]. Cancelling closes what was opened.
    pub async fn connect(url: &ServerUrl, identity: &Identity) -> Result<Self, ConnectError> {
        Self::builder(url, identity).connect().await
    }

    /// A client that is not yet connected, to say by which way it is to be.
    pub fn builder(url: &ServerUrl, identity: &Identity) -> ClientBuilder {
        let way = Way { url: url.clone(), route: None, proxy: None, web_tls: None };
        ClientBuilder { way, identity: identity.clone() }
    }

    /// Where it is registered.
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// How it stands, and each change of that.
    pub fn state(&self) -> watch::Receiver<State> {
        self.handle.shared.state.subscribe()
    }

    /// Looks whether the connection still stands, now and not only with the next ping: after a change of the network for
    /// example. One whose own address is gone, or that does not answer within a second, is made again; one that waits to be
    /// made again waits no longer. An attempt that is under way goes on, unless this machine had other addresses when it began,
    /// or it has come no further for five seconds.
    pub fn check(&self) {
        let here = Interface::list().unwrap_or_default();
        self.handle.shared.with(|desk, _| {
            let is_here =
                |ip: IpAddr| here.is_empty() || here.iter().any(|i| i.addrs().iter().any(|addr| addr.ip == ip));
            desk.moved = desk.local.is_some_and(|ip| !ip.is_loopback() && !is_here(ip));
        });
        self.handle.shared.check.notify_one();
    }

    /// The same; returns when the server has answered, or the connection was made again. Cancel safe.
    pub async fn checked(&self) {
        let mut proofs = self.handle.shared.proofs.subscribe();
        self.check();
        // The sender is in what is held here.
        let _ = proofs.changed().await;
    }

    /// Begins a conversation with a peer. Nothing is waited for: what is sent follows at once.
    ///
    /// # Errors
    /// [`SignalError`]; that the peer is not there comes with the signal's `recv`.
    pub fn signal(&self, peer: PeerId) -> Result<Signal, SignalError> {
        self.handle.signal(peer)
    }

    /// The next conversation that another peer has begun. At most 256 wait, 8 of them of one peer; more are not heard. While
    /// the client connects again it waits.
    ///
    /// # Errors
    /// [`SignalError::Ended`] when the client is closed. Cancel safe.
    pub async fn accept(&self) -> Result<Signal, SignalError> {
        self.handle.accept().await
    }

    /// Takes the registration back: what was written is sent, conversations and relayed streams end. Returns when the
    /// connection is closed.
    pub async fn close(&self) {
        self.handle.shared.close();
        let mut state = self.state();
        // The sender is in `shared`, which is held here.
        let _ = state.wait_for(|state| matches!(state, State::Closed { .. })).await.map(drop);
    }
}

/// A client that is not yet connected.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    way: Way,
    identity: Identity,
}

impl ClientBuilder {
    /// Leaves by this route's interface and address.
    pub fn route(mut self, route: &Route) -> Self {
        self.way.route = Some(route.clone());
        self
    }

    /// Goes through an HTTP proxy, which sees the server's address and encrypted bytes.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.way.proxy = Some(proxy);
        self
    }

    /// Whom the web's TLS trusts, where the URL is `wss://`. Default: the roots of this system. The server proves its own key
    /// inside of it in any case.
    pub fn web_tls(mut self, tls: TlsClient) -> Self {
        self.way.web_tls = Some(tls);
        self
    }

    /// Connects and registers. Later, when the connection is lost, it is made again, with growing waits of up to 30 s;
    /// [`Client::state`] tells.
    ///
    /// # Errors
    /// [`ConnectError`]. Cancelling closes what was opened.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let runtime = Runtime::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let url = self.way.url.clone();
        let dialer = Dialer::new(self.way, &self.identity)?;
        let line = dialer.dial(&|| ()).await?;
        let shared = Arc::new(Shared::new(self.identity, Carriage::Server, State::Connected));
        shared.with(|desk, _| desk.rise(line.window, line.local));
        task::drive(&runtime, link::run(shared.clone(), dialer, line));
        Ok(Client { handle: Arc::new(Handle { shared }), url })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client(at {})", self.url.authority())
    }
}

/// Dropping the last one closes the client.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    /// Begins a conversation.
    pub(super) fn signal(self: &Arc<Self>, peer: PeerId) -> Result<Signal, SignalError> {
        let id = self.shared.with(|desk, now| {
            if !desk.up || desk.closing {
                return Err(SignalError::NotConnected);
            }
            if desk.is_overfull() {
                return Err(SignalError::Busy);
            }
            let (id, frame) = desk.talks.begin(now, peer)?;
            desk.out.push_back(frame);
            Ok(id)
        })?;
        Ok(Signal::new(self.clone(), id, peer))
    }

    /// The next one that another peer has begun.
    pub(super) async fn accept(self: &Arc<Self>) -> Result<Signal, SignalError> {
        let accepted = poll_fn(|cx| {
            self.shared.with(|desk, now| match desk.talks.accept(now) {
                Some((id, peer, told)) => {
                    desk.out.extend(told);
                    Poll::Ready(Ok((id, peer)))
                }
                None if desk.closing => Poll::Ready(Err(SignalError::Ended)),
                None => {
                    desk.talks.acceptors.wait(cx);
                    Poll::Pending
                }
            })
        });
        let (id, peer) = accepted.await?;
        Ok(Signal::new(self.clone(), id, peer))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// What handles and the link share.
pub(super) struct Shared {
    desk: Mutex<Desk>,
    /// Wakes the writer of the link.
    pub(super) bell: Notify,
    /// Rung when the connection is doubted.
    pub(super) check: Notify,
    /// Counts the times that the server has shown itself.
    pub(super) proofs: watch::Sender<u64>,
    state: watch::Sender<State>,
    closed: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(identity: Identity, carriage: Carriage, state: State) -> Self {
        Self {
            desk: Mutex::new(Desk::new(identity, carriage, Instant::now())),
            bell: Notify::new(),
            check: Notify::new(),
            proofs: watch::Sender::new(0),
            state: watch::Sender::new(state),
            closed: watch::Sender::new(false),
        }
    }

    #[cfg(feature = "mqtt")]
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// For one of several that do not know of each other.
    #[cfg(feature = "mqtt")]
    pub(super) fn tell_unless_closed(&self, state: State) {
        self.state.send_if_modified(|now| {
            let changes = !matches!(now, State::Closed { .. }) && *now != state;
            if changes {
                *now = state;
            }
            changes
        });
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One turn of the desk; then the writer is woken if there is something to write.
    pub(super) fn with<R>(&self, turn: impl FnOnce(&mut Desk, Instant) -> R) -> R {
        let mut desk = self.lock();
        let done = turn(&mut desk, Instant::now());
        if desk.has_output() {
            self.bell.notify_one();
        }
        done
    }

    /// A turn of the writer itself.
    pub(super) fn with_quietly<R>(&self, turn: impl FnOnce(&mut Desk) -> R) -> R {
        turn(&mut self.lock())
    }

    /// The server has shown itself.
    pub(super) fn prove(&self) {
        self.proofs.send_modify(|proofs| *proofs += 1);
    }

    pub(super) fn tell(&self, state: State) {
        self.state.send_replace(state);
    }

    pub(super) fn close(&self) {
        self.with(|desk, _| {
            desk.closing = true;
            desk.talks.acceptors.ring();
        });
        self.closed.send_replace(true);
    }

    /// Waits until the client is closed here.
    pub(super) async fn closing(&self) {
        // It can not fail: the sender is in `self`.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await.map(drop);
    }
}
