//! Waits: a client of MQTT brokers.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle as Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::super::proxy::Proxy;
use super::super::talks::Carriage;
use super::super::{Handle, Shared, Signal, SignalError, State};
use super::dialect::Way;
use super::link::{LETTERS, Link};
use super::{pump, topic};
use crate::base::task::{self, Nursery};
use crate::key::{BrokerUrl, Identity, PeerId};
use crate::pipe::tls::{TlsClient, TlsError};

/// Brokers of one client.
const BROKERS: usize = 8;
/// How long [`MqttClient::ready`] waits.
const READY: Duration = Duration::from_secs(12);

/// Why nobody can be met at brokers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// It was called outside a tokio runtime.
    #[error("a client of brokers needs a tokio runtime")]
    NoRuntime,
    /// No broker was named.
    #[error("no broker is named")]
    NoBroker,
    /// TLS can not be used: no roots can be read.
    #[error("no TLS to brokers")]
    Tls(#[from] TlsError),
    /// No broker takes us.
    #[error("no broker can be used: {why}")]
    Unreachable {
        /// What each of them says.
        why: Arc<str>,
    },
}

/// A peer that is met at MQTT brokers, at one or at several at the same time: what is said goes through all, and is taken from
/// whichever is first. Connections are made again whenever they are lost, and conversations outlive that. Clones are the same
/// client; dropping the last one, with all signals, leaves the brokers after what was said is acknowledged, or two seconds later.
#[derive(Clone)]
pub struct MqttClient {
    handle: Arc<Handle>,
    brokers: Arc<[BrokerUrl]>,
    open: bool,
    /// Whether a broker has been connected once.
    was_up: Arc<AtomicBool>,
    /// Counts the times that the connections were doubted.
    checks: Arc<watch::Sender<u64>>,
}

impl MqttClient {
    /// A client that is not yet connected.
    pub fn builder(identity: &Identity) -> MqttBuilder {
        MqttBuilder { identity: identity.clone(), brokers: Vec::new(), proxy: None, tls: None, open: true }
    }

    /// Whether others may begin conversations here.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Where it is met.
    pub fn brokers(&self) -> &[BrokerUrl] {
        &self.brokers
    }

    /// How it stands, and each change of that: connected, while one broker is.
    pub fn state(&self) -> watch::Receiver<State> {
        self.handle.shared.state()
    }

    /// Waits until one broker is connected.
    ///
    /// # Errors
    /// [`BrokerError::Unreachable`] when each has refused and none was connected before, or after twelve seconds; the client goes on to try. Cancel safe.
    pub async fn ready(&self) -> Result<(), BrokerError> {
        let mut state = self.state();
        let settled = |state: &State| match state {
            // What was there comes back.
            State::Connecting { why } => !why.is_empty() && !self.was_up.load(Ordering::Relaxed),
            State::Connected | State::Closed { .. } => true,
        };
        let waited = timeout(READY, state.wait_for(settled)).await.map(|found| found.map(|state| state.clone()));
        match waited {
            Ok(Ok(State::Connected)) => Ok(()),
            Ok(Ok(State::Connecting { why })) => Err(BrokerError::Unreachable { why }),
            Ok(_) => Err(BrokerError::Unreachable { why: "the client was closed".into() }),
            Err(_) => Err(BrokerError::Unreachable { why: format!("none answered within {READY:?}").into() }),
        }
    }

    /// Has each broker asked whether it is still there: one that does not answer within a second is connected to anew, one that
    /// was waited for is tried at once, and an attempt that is under way goes on as one at a server does
    /// ([`Client::check`](super::super::Client::check)). To be called when the network has changed; a client that is left alone notices
    /// by itself, up to a minute later.
    pub fn check(&self) {
        self.checks.send_modify(|checks| *checks += 1);
    }

    /// The same; returns when one broker has answered, or was connected to anew. Cancel safe.
    pub async fn checked(&self) {
        let mut proofs = self.handle.shared.proofs.subscribe();
        self.check();
        // The sender is in what is held here.
        let _ = proofs.changed().await;
    }

    /// Begins a conversation with a peer. Nothing is waited for: what is sent follows at once.
    ///
    /// # Errors
    /// [`SignalError`]; that the peer does not answer comes with the signal's `recv`, 20 s later.
    pub fn signal(&self, peer: PeerId) -> Result<Signal, SignalError> {
        self.handle.signal(peer)
    }

    /// The next conversation that another peer has begun. At most 256 wait, 8 of them of one peer; more are not heard.
    ///
    /// # Errors
    /// [`SignalError::Ended`] when the client is closed. Cancel safe.
    pub async fn accept(&self) -> Result<Signal, SignalError> {
        self.handle.accept().await
    }

    /// Leaves the brokers, after what was said is acknowledged, or two seconds later.
    pub async fn close(&self) {
        self.handle.shared.close();
        let mut state = self.state();
        // The sender is in `shared`, which is held here.
        let _ = state.wait_for(|state| matches!(state, State::Closed { .. })).await.map(drop);
    }
}

impl fmt::Debug for MqttClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MqttClient(at {:?})", self.brokers)
    }
}

/// A client that is not yet connected.
#[derive(Debug)]
pub struct MqttBuilder {
    identity: Identity,
    brokers: Vec<BrokerUrl>,
    proxy: Option<Proxy>,
    tls: Option<TlsClient>,
    open: bool,
}

impl MqttBuilder {
    /// One more broker. The first eight count.
    pub fn broker(mut self, url: BrokerUrl) -> Self {
        if !self.brokers.contains(&url) {
            self.brokers.push(url);
            self.brokers.truncate(BROKERS);
        }
        self
    }

    /// Goes through an HTTP proxy.
    pub fn proxy(self, proxy: Proxy) -> Self {
        Self { proxy: Some(proxy), ..self }
    }

    /// Whom TLS trusts. Default: the roots of this system.
    pub fn tls(self, tls: TlsClient) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Whether others may begin conversations here. Default yes.
    pub fn open(self, yes: bool) -> Self {
        Self { open: yes, ..self }
    }

    /// Begins to connect; [`MqttClient::ready`] waits for it.
    ///
    /// # Errors
    /// [`BrokerError::NoRuntime`], [`BrokerError::NoBroker`], [`BrokerError::Tls`].
    pub fn start(self) -> Result<MqttClient, BrokerError> {
        let runtime = Runtime::try_current().map_err(|_| BrokerError::NoRuntime)?;
        if self.brokers.is_empty() {
            return Err(BrokerError::NoBroker);
        }
        let tls = match (self.brokers.iter().any(|broker| broker.carrier().is_tls()), self.tls) {
            (true, Some(tls)) => Some(tls.rustls()?),
            (true, None) => Some(TlsClient::system()?.rustls()?),
            (false, _) => None,
        };
        let me = self.identity.peer_id();
        let carriage = Carriage::Brokers { open: self.open };
        let shared = Arc::new(Shared::new(self.identity.clone(), carriage, State::Connecting { why: "".into() }));
        shared.with(|desk, _| desk.up = true);
        let was_up = Arc::default();
        let standings = Standing::of(&self.brokers, &shared, &was_up);
        let (mut links, mut mouths) = (Nursery::new(&runtime), Vec::new());
        let checks = Arc::new(watch::Sender::new(0));
        for (broker, standing) in self.brokers.iter().zip(standings) {
            let (give, letters) = mpsc::channel(LETTERS);
            let way = Way { broker: broker.clone(), tls: tls.clone(), proxy: self.proxy.clone() };
            let topic = topic(me).into();
            let link = Link { shared: shared.clone(), identity: self.identity.clone(), topic, way, standing };
            links.begin(link.run(letters, checks.subscribe()));
            mouths.push(give);
        }
        let pumping = pump::run(shared.clone(), me, mouths);
        task::drive(&runtime, async move {
            pumping.await;
            // The links end when no letters can come any more.
            while !links.is_empty() {
                links.next().await;
            }
        });
        let handle = Arc::new(Handle { shared });
        Ok(MqttClient { handle, brokers: self.brokers.into(), open: self.open, was_up, checks })
    }
}

/// How one of the brokers stands, for the client as a whole.
pub(super) struct Standing {
    all: Arc<Mutex<Vec<(BrokerUrl, Stands)>>>,
    at: usize,
    shared: Arc<Shared>,
    was_up: Arc<AtomicBool>,
}

#[derive(Clone, Debug)]
enum Stands {
    Tried,
    Up,
    Lost(String),
}

impl Standing {
    fn of(brokers: &[BrokerUrl], shared: &Arc<Shared>, was_up: &Arc<AtomicBool>) -> Vec<Self> {
        let all = brokers.iter().map(|broker| (broker.clone(), Stands::Tried)).collect();
        let all = Arc::new(Mutex::new(all));
        let one = |at| Self { all: all.clone(), at, shared: shared.clone(), was_up: was_up.clone() };
        (0..brokers.len()).map(one).collect()
    }

    pub(super) fn up(&self) {
        self.was_up.store(true, Ordering::Relaxed);
        self.set(Stands::Up);
    }

    pub(super) fn lost(&self, why: &str) {
        self.set(Stands::Lost(why.to_owned()));
    }

    /// This broker's bit, and those of all that are connected.
    pub(super) fn place(&self) -> (u8, u8) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let up = all.iter().enumerate().filter(|(_, (_, stands))| matches!(stands, Stands::Up));
        // There are at most eight.
        (1 << self.at, up.fold(0, |bits, (at, _)| bits | 1 << at))
    }

    fn set(&self, stands: Stands) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all[self.at].1 = stands;
        let up = all.iter().any(|(_, stands)| matches!(stands, Stands::Up));
        let tried = all.iter().any(|(_, stands)| matches!(stands, Stands::Tried));
        let said = |(broker, stands): &(BrokerUrl, Stands)| match stands {
            Stands::Lost(why) => Some(format!("{broker}: {why}")),
            Stands::Up | Stands::Tried => None,
        };
        let state = match (up, tried) {
            (true, _) => State::Connected,
            (false, true) => return,
            (false, false) => {
                State::Connecting { why: all.iter().filter_map(said).collect::<Vec<_>>().join("; ").into() }
            }
        };
        self.shared.tell_unless_closed(state);
    }
}
