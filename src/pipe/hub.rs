//! Holds: who listens to a pipe.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::callbacks::{HandlerId, OnEnd, OnMessage, OnUp};
use super::handle::Message;
use super::mailbox::{Mailbox, WhenFull};
use super::{Filter, NetConf, Pipe};
use crate::base::attention::Attention;

/// One subscription: its filter and its own queue.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) filter: Filter,
    pub(crate) mailbox: Mailbox<Message>,
}

/// Those who get messages, as they are at one instant.
#[derive(Clone, Default)]
pub(crate) struct Listeners {
    pub(crate) links: Vec<Pipe>,
    /// Those of the links that have been told of the end.
    pub(crate) told: Vec<Pipe>,
    pub(crate) handlers: Vec<(HandlerId, OnMessage)>,
    pub(crate) subs: Vec<Arc<Sub>>,
}

impl Listeners {
    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty() && self.handlers.is_empty() && self.subs.is_empty()
    }

    /// Those of `links` that are linked still and have yet to be told of the end; they count as told from now on.
    pub(crate) fn begin_telling(&mut self, links: &[Pipe]) -> Vec<Pipe> {
        let among = |pipes: &[Pipe], link: &Pipe| pipes.iter().any(|other| other.is_same(link));
        let left = links.iter().filter(|link| among(&self.links, link) && !among(&self.told, link));
        let left: Vec<Pipe> = left.cloned().collect();
        self.told.extend(left.iter().cloned());
        left
    }

    /// The one pipe that everything goes to, if nobody else listens.
    pub(crate) fn only_link(&self) -> Option<&Pipe> {
        match &self.links[..] {
            [link] if self.handlers.is_empty() && self.subs.is_empty() => Some(link),
            _ => None,
        }
    }
}

/// The listeners as a driver saw them last.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    version: Option<u64>,
    listeners: Arc<Listeners>,
}

impl Seen {
    /// The listeners of `hub` now; asking costs little while they do not change.
    pub(crate) fn refresh(&mut self, hub: &Hub) -> Arc<Listeners> {
        let version = hub.version.load(Ordering::Acquire);
        if self.version != Some(version) {
            *self = Self { version: Some(version), listeners: hub.listeners() };
        }
        self.listeners.clone()
    }
}

/// Handlers of the beginning and the end.
#[derive(Default)]
struct Lifecycle {
    up: Vec<(HandlerId, OnUp)>,
    end: Vec<(HandlerId, OnEnd)>,
}

/// Who listens to a pipe: links, callbacks, subscriptions, and the inbox that `recv` reads.
///
/// The inbox listens while nobody else does, and from the first `recv` on. What it holds when the
/// first other listener comes, and nobody has called `recv`, is handed to that listener: nothing
/// is lost between opening a pipe and listening to it.
pub(crate) struct Hub {
    listeners: Mutex<Arc<Listeners>>,
    lifecycle: Mutex<Lifecycle>,
    claimed: AtomicBool,
    awaits_end: AtomicBool,
    pub(crate) inbox: Mailbox<Message>,
    /// Counts the changes of the listeners, so that a driver can keep what it saw.
    version: AtomicU64,
    /// Calls the driver: the listeners have changed, or the pipe is to close.
    pub(crate) attention: Attention,
}

impl Hub {
    pub(crate) fn new(conf: &NetConf, when_full: WhenFull) -> Self {
        Self {
            listeners: Mutex::default(),
            lifecycle: Mutex::default(),
            claimed: AtomicBool::new(false),
            awaits_end: AtomicBool::new(false),
            inbox: Mailbox::new(conf.limits(), when_full),
            version: AtomicU64::new(0),
            attention: Attention::default(),
        }
    }

    pub(crate) fn listeners(&self) -> Arc<Listeners> {
        self.lock_listeners().clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Listeners)) {
        change(Arc::make_mut(&mut self.lock_listeners()));
        self.version.fetch_add(1, Ordering::Release);
        self.attention.raise();
    }

    /// True once somebody has called `recv`.
    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }

    /// From now on the inbox gets every message, whoever else listens. True the first time.
    pub(crate) fn claim(&self) -> bool {
        let first = !self.is_claimed() && !self.claimed.swap(true, Ordering::AcqRel);
        if first {
            self.attention.raise();
        }
        first
    }

    pub(crate) fn add_up(&self, id: HandlerId, handler: OnUp) {
        self.lock_lifecycle().up.push((id, handler));
    }

    pub(crate) fn del_up(&self, id: HandlerId) -> bool {
        let mut lifecycle = self.lock_lifecycle();
        let before = lifecycle.up.len();
        lifecycle.up.retain(|(other, _)| *other != id);
        lifecycle.up.len() < before
    }

    pub(crate) fn ups(&self) -> Vec<OnUp> {
        self.lock_lifecycle().up.iter().map(|(_, handler)| handler.clone()).collect()
    }

    pub(crate) fn add_end(&self, id: HandlerId, handler: OnEnd) {
        self.lock_lifecycle().end.push((id, handler));
        self.awaits_end.store(true, Ordering::Release);
        self.attention.raise();
    }

    pub(crate) fn del_end(&self, id: HandlerId) -> bool {
        let mut lifecycle = self.lock_lifecycle();
        let before = lifecycle.end.len();
        lifecycle.end.retain(|(other, _)| *other != id);
        lifecycle.end.len() < before
    }

    /// True when somebody wants to know of the end when it comes.
    pub(crate) fn awaits_end(&self) -> bool {
        self.awaits_end.load(Ordering::Acquire)
    }

    /// The end handlers of this pipe, for a pipe whose clients have them too.
    pub(crate) fn ends(&self) -> Vec<OnEnd> {
        self.lock_lifecycle().end.iter().map(|(_, handler)| handler.clone()).collect()
    }

    /// Takes the end handlers away, so that each runs once.
    pub(crate) fn take_ends(&self) -> Vec<OnEnd> {
        std::mem::take(&mut self.lock_lifecycle().end).into_iter().map(|(_, handler)| handler).collect()
    }

    /// Lets go of every listener, and with the links of the pipes that they kept open.
    pub(crate) fn clear(&self) {
        let listeners = std::mem::take(&mut *self.lock_listeners());
        self.version.fetch_add(1, Ordering::Release);
        self.lock_lifecycle().up.clear();
        drop(listeners);
    }

    fn lock_listeners(&self) -> MutexGuard<'_, Arc<Listeners>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_lifecycle(&self) -> MutexGuard<'_, Lifecycle> {
        self.lifecycle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
