//! Holds: the options of a pool.

use std::time::Duration;

use super::Meta;
use crate::base::queue::Limits;
use crate::frame::ws;

/// Options of a pool; the defaults are those that the setters tell.
#[derive(Clone, Debug)]
pub struct PoolConf {
    pub(super) max_message: usize,
    pub(super) max_meta: usize,
    pub(super) queue: Limits,
    pub(super) members: usize,
    pub(super) calls: usize,
    pub(super) deadline: Option<Duration>,
    pub(super) router: Option<Duration>,
    pub(super) ping: Duration,
    pub(super) dead: Duration,
    pub(super) goodbye: Duration,
    pub(super) handshake: Duration,
    pub(super) meta: Meta,
}

impl Default for PoolConf {
    fn default() -> Self {
        Self {
            max_message: 4 << 20,
            max_meta: 16 << 10,
            queue: Limits { messages: 4096, bytes: 8 << 20 },
            members: 65_536,
            calls: 1024,
            deadline: Some(Duration::from_secs(60)),
            router: Some(Duration::from_secs(300)),
            ping: Duration::from_secs(5),
            dead: Duration::from_secs(15),
            goodbye: Duration::from_secs(2),
            handshake: Duration::from_secs(15),
            meta: Meta::new(),
        }
    }
}

impl PoolConf {
    /// Bytes of the longest message, both ways; what comes longer is closed with 1009. Default 4 MiB.
    pub fn max_message(self, bytes: usize) -> Self {
        Self { max_message: bytes, ..self }
    }

    /// Bytes of metadata that a member may tell; more is closed with 1008. Default 16 KiB.
    pub fn max_meta(self, bytes: usize) -> Self {
        Self { max_meta: bytes, ..self }
    }

    /// Messages that wait to be sent to one member; further sends wait, a publish fails there. Default 4096.
    pub fn max_qsize(mut self, messages: usize) -> Self {
        self.queue.messages = messages.max(1);
        self
    }

    /// Bytes that wait to be sent to one member, and answers that wait for their asker. Default 8 MiB.
    pub fn max_qbytes(mut self, bytes: usize) -> Self {
        self.queue.bytes = bytes.max(1);
        self
    }

    /// Members at once; a further one is answered 503. Default 65,536.
    pub fn max_members(self, members: usize) -> Self {
        Self { members, ..self }
    }

    /// Routers that run at once for one connection; while there are as many, it is not read. Default 1024.
    pub fn max_calls(self, calls: usize) -> Self {
        Self { calls: calls.max(1), ..self }
    }

    /// How long an ask waits for its answers, unless it says otherwise; `None`: for ever. Default 60 s.
    pub fn deadline(self, limit: impl Into<Option<Duration>>) -> Self {
        Self { deadline: limit.into(), ..self }
    }

    /// How long a router may take for an answer, or for the next of a stream; then the asker gets an error. Default 5
    /// minutes; `None`: for ever.
    pub fn router_limit(self, limit: impl Into<Option<Duration>>) -> Self {
        Self { router: limit.into(), ..self }
    }

    /// A member that says nothing for so long is pinged. Default 5 s, as the seed's.
    pub fn ping(self, every: Duration) -> Self {
        Self { ping: every.max(Duration::from_millis(1)), ..self }
    }

    /// A member that says nothing for so long, or takes nothing of what waits for it, is dead, and dropped. It is found at
    /// the next ping. Default 15 s.
    pub fn dead(self, after: Duration) -> Self {
        Self { dead: after, ..self }
    }

    /// How long a close waits for what is queued to go out and for the peer's goodbye, both together. Default 2 s.
    pub fn goodbye(self, limit: Duration) -> Self {
        Self { goodbye: limit, ..self }
    }

    /// How long a connection may take to become a member. Default 15 s.
    pub fn handshake(self, limit: Duration) -> Self {
        Self { handshake: limit, ..self }
    }

    /// What this end tells of itself to every member.
    pub fn meta(self, meta: Meta) -> Self {
        Self { meta, ..self }
    }

    pub(super) fn ws(&self) -> ws::Conf {
        // The envelope around a message: its keys, a tag, and room for the metadata.
        ws::Conf::default()
            .max_message(self.max_message.saturating_add(self.max_meta).saturating_add(1024))
            .handshake(self.handshake)
            .subprotocol(SUBPROTOCOL)
    }

    /// Silent pings after which a member is dead.
    pub(super) fn silent(&self) -> u32 {
        let ticks = self.dead.as_nanos().div_ceil(self.ping.as_nanos().max(1));
        u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
    }
}

/// The subprotocol by which natpipe knows itself: such a peer understands metadata alone and cancelled asks.
pub(super) const SUBPROTOCOL: &str = "natpipe.pool";
