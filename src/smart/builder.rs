//! Holds: the setters of a smart socket that is to be made.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::options::Options;
use super::{
    Acknowledge, Candidate, Delivery, Identity, Limits, Reconnect, Resend, SendMode, SmartSocket, Timing, WhenFull,
};
use crate::pipe::{OpenError, OpenFailure};

/// What a socket is to be like; [`build`](Self::build) makes it.
#[must_use = "it does nothing until it is built"]
pub struct Builder {
    options: Options,
    runtime: Option<Handle>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { options: Options::default(), runtime: None }
    }

    fn with(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(&mut self.options);
        self
    }

    /// Who the socket is. Default: a random identity. Two with one identity keep each other out.
    pub fn identity(self, identity: impl Into<Identity>) -> Self {
        let identity = identity.into();
        self.with(|options| options.identity = identity)
    }

    /// Whom `send` sends to. Default round-robin.
    pub fn mode(self, mode: SendMode) -> Self {
        self.with(|options| options.mode = mode)
    }

    /// What is promised about a message. Default at most once.
    pub fn delivery(self, delivery: Delivery) -> Self {
        self.with(|options| options.delivery = delivery)
    }

    /// When what asks for it is acknowledged. Default as soon as it is received.
    pub fn acknowledge(self, when: Acknowledge) -> Self {
        self.with(|options| options.acknowledge = when)
    }

    /// How often and how long a message is sent that nobody acknowledges.
    pub fn resend(self, resend: Resend) -> Self {
        self.with(|options| options.resend = resend)
    }

    /// High-water marks of what waits to be sent: for each peer, for each one that is away (16 times as much for all of
    /// these), for a peer at all, and for acknowledgements.
    pub fn send_limits(self, limits: Limits) -> Self {
        self.with(|options| options.out = limits)
    }

    /// What happens at the high-water mark. Default: `send` waits.
    pub fn when_full(self, what: WhenFull) -> Self {
        self.with(|options| options.when_full = what)
    }

    /// The high-water mark of what was received and not asked for; beyond it connections are not
    /// read, which their peers feel. It may be exceeded by one read of each connection.
    pub fn recv_limits(self, limits: Limits) -> Self {
        self.with(|options| options.inbox = limits)
    }

    /// Heartbeats, and how long silence is borne. Default 5 s and 15 s, as the protocol has it.
    pub fn timing(self, timing: Timing) -> Self {
        self.with(|options| options.timing = timing)
    }

    /// How long a connecting end waits before it tries again. Default from 0.1 s to 5 s, by chance.
    pub fn reconnect(self, reconnect: Reconnect) -> Self {
        self.with(|options| options.reconnect = reconnect)
    }

    /// The longest message that is sent or received, in bytes. Default 64 MiB. A peer that announces a
    /// longer one is disconnected.
    pub fn max_message(self, bytes: usize) -> Self {
        // A frame's length has 32 bits, and counts an id and a type.
        self.with(|options| options.max_message = bytes.min(u32::MAX as usize - 17))
    }

    /// Connections that may be without a greeting at once; one more, and the oldest goes. Default 1024.
    pub fn max_greeting(self, connections: usize) -> Self {
        self.with(|options| options.max_greeting = connections.max(1))
    }

    /// Peers that may be connected at once; others are refused. Default 65,536.
    pub fn max_peers(self, peers: usize) -> Self {
        self.with(|options| options.max_peers = peers)
    }

    /// How long `close` waits for what is on its way. Default 10 s.
    pub fn linger(self, limit: Duration) -> Self {
        self.with(|options| options.linger = limit)
    }

    /// Asked about each peer before it counts as connected: false closes the connection. It must not
    /// wait; it runs while the connection does nothing else.
    pub fn admit(self, check: impl Fn(&Candidate) -> bool + Send + Sync + 'static) -> Self {
        self.with(|options| options.admit = Some(Arc::new(check)))
    }

    /// The runtime that its tasks run on. Default: the caller's.
    pub fn runtime(self, runtime: Handle) -> Self {
        Self { runtime: Some(runtime), ..self }
    }

    /// Makes the socket.
    ///
    /// # Errors
    /// [`OpenFailure::NoRuntime`].
    pub fn build(self) -> Result<SmartSocket, OpenError> {
        let runtime = self.runtime.or_else(|| Handle::try_current().ok()).ok_or(OpenFailure::NoRuntime)?;
        Ok(SmartSocket::start(self.options, runtime))
    }
}
