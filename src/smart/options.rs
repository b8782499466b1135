//! Holds: how a smart socket is set up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::protocol::Timing;
use super::{Candidate, Identity};

/// Whom `send` sends to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendMode {
    /// Each message to one peer, in turn.
    #[default]
    RoundRobin,
    /// Each message to every peer.
    Publish,
    /// Only to the peer that is named: `send` without an identity is an error.
    ByIdentity,
}

/// What is promised about a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// It arrives once or not at all; per peer, in order.
    #[default]
    AtMostOnce,
    /// It is sent again until the peer acknowledges it: it may arrive twice, and out of order. What
    /// is published is sent at most once all the same.
    AtLeastOnce,
}

/// When a message that asks for it is acknowledged to its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledge {
    /// As soon as `recv` hands it over.
    #[default]
    Received,
    /// When the next one is asked for (or the socket is closed): the program is then done with it,
    /// and nothing is lost when it dies before. A program that takes long over one message
    /// sees it again.
    NextAsked,
}

/// What happens to a message when the queue that it belongs to is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// `send` waits for room.
    #[default]
    Wait,
    /// The oldest message of the queue goes, and is counted.
    DropOldest,
    /// The new message goes, and is counted.
    DropNewest,
    /// `send` fails.
    Fail,
}

/// The high-water mark of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages.
    pub messages: usize,
    /// Bytes of payload. A message that is larger passes alone.
    pub bytes: usize,
}

impl Limits {
    pub(crate) fn is_reached(self, messages: usize, bytes: usize) -> bool {
        messages > 0 && (messages >= self.messages || bytes >= self.bytes)
    }

    /// More than there may be at the limit.
    pub(crate) fn is_exceeded(self, messages: usize, bytes: usize) -> bool {
        messages > self.messages.max(1) || (messages > 1 && bytes > self.bytes)
    }

    /// As much as so many queues may hold.
    pub(crate) fn times(self, queues: usize) -> Self {
        Self { messages: self.messages.saturating_mul(queues), bytes: self.bytes.saturating_mul(queues) }
    }

    /// The low-water mark: who waits for room is called there.
    pub(crate) fn is_half_free(self, messages: usize, bytes: usize) -> bool {
        messages <= self.messages / 2 && bytes <= self.bytes / 2
    }
}

impl Default for Limits {
    /// 16,384 messages, 16 MiB.
    fn default() -> Self {
        Self { messages: 16 << 10, bytes: 16 << 20 }
    }
}

/// How often, and for how long, a message is sent that nobody acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resend {
    /// How long an acknowledgement is waited for before the message is sent again. Default 5 s.
    pub after: Duration,
    /// How often it is sent in all. Default 6. A try for which nobody was connected does not count.
    pub tries: u32,
    /// How long all this may take, waiting for a peer included. Default: for ever.
    pub within: Option<Duration>,
}

impl Default for Resend {
    fn default() -> Self {
        Self { after: Duration::from_secs(5), tries: 6, within: None }
    }
}

/// How long a connecting end waits before it tries again.
#[derive(Clone)]
pub struct Reconnect(Strategy);

#[derive(Clone)]
enum Strategy {
    Exponential { first: Duration, most: Duration },
    Own(Arc<dyn Fn(u32) -> Duration + Send + Sync>),
}

/// No wait is shorter: a peer that accepts and closes at once must not be called in a circle.
const SHORTEST: Duration = Duration::from_millis(1);

impl Reconnect {
    /// `first`, then twice as long each time up to `most`, of which a random half to the whole is waited.
    pub fn exponential(first: Duration, most: Duration) -> Self {
        Self(Strategy::Exponential { first, most })
    }

    /// What `wait` says, given how many tries have failed in a row (from 1).
    pub fn by(wait: impl Fn(u32) -> Duration + Send + Sync + 'static) -> Self {
        Self(Strategy::Own(Arc::new(wait)))
    }

    /// The wait after the `failed`th try in a row; `chance` is random, from 0 to 1.
    pub(crate) fn wait(&self, failed: u32, chance: f64) -> Duration {
        let wait = match &self.0 {
            Strategy::Exponential { first, most } => {
                let whole = first.saturating_mul(1 << failed.saturating_sub(1).min(20)).min(*most);
                whole.mul_f64(0.5 + chance / 2.0)
            }
            Strategy::Own(wait) => wait(failed),
        };
        wait.max(SHORTEST)
    }
}

impl Default for Reconnect {
    /// From 0.1 s to 5 s.
    fn default() -> Self {
        Self::exponential(Duration::from_millis(100), Duration::from_secs(5))
    }
}

impl fmt::Debug for Reconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Strategy::Exponential { first, most } => write!(f, "Reconnect({first:?} to {most:?})"),
            Strategy::Own(_) => f.write_str("Reconnect(own)"),
        }
    }
}

pub(crate) type Admit = Arc<dyn Fn(&Candidate) -> bool + Send + Sync>;

/// Everything that a socket is told at its birth.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) identity: Identity,
    pub(crate) mode: SendMode,
    pub(crate) delivery: Delivery,
    pub(crate) acknowledge: Acknowledge,
    pub(crate) resend: Resend,
    pub(crate) out: Limits,
    pub(crate) when_full: WhenFull,
    pub(crate) inbox: Limits,
    pub(crate) timing: Timing,
    pub(crate) reconnect: Reconnect,
    pub(crate) max_message: usize,
    pub(crate) max_greeting: usize,
    pub(crate) max_peers: usize,
    pub(crate) linger: Duration,
    pub(crate) admit: Option<Admit>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            identity: Identity::random(),
            mode: SendMode::default(),
            delivery: Delivery::default(),
            acknowledge: Acknowledge::default(),
            resend: Resend::default(),
            out: Limits::default(),
            when_full: WhenFull::default(),
            inbox: Limits::default(),
            timing: Timing::default(),
            reconnect: Reconnect::default(),
            max_message: 64 << 20,
            max_greeting: 1024,
            max_peers: 1 << 16,
            linger: Duration::from_secs(10),
            admit: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_most_and_differ_by_chance() {
        let reconnect = Reconnect::exponential(Duration::from_millis(100), Duration::from_secs(1));
        let wholes: Vec<_> = (1..7).map(|failed| reconnect.wait(failed, 1.0).as_millis()).collect();
        assert_eq!(wholes, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(reconnect.wait(1, 0.0), Duration::from_millis(50));
        assert_eq!(reconnect.wait(u32::MAX, 1.0), Duration::from_secs(1));
        assert_eq!(Reconnect::by(|failed| Duration::from_secs(failed.into())).wait(3, 0.5), Duration::from_secs(3));
        assert_eq!(Reconnect::by(|_| Duration::ZERO).wait(1, 0.5), SHORTEST);
    }
}
