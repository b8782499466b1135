//! Holds: who listens to a pipe.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::callbacks::{HandlerId, OnEnd, OnMessage, OnUp};
use super::handle::Message;
use super::mailbox::{Mailbox, WhenFull};
use super::{Filter, NetConf, Pipe};

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
    pub(crate) handlers: Vec<(HandlerId, OnMessage)>,
    pub(crate) subs: Vec<Arc<Sub>>,
}

impl Listeners {
    pub(crate) fn is_empty(&self) -> bool {
        self.links.is_empty() && self.handlers.is_empty() && self.subs.is_empty()
    }

    /// The one pipe that everything goes to, if nobody else listens.
    pub(crate) fn only_link(&self) -> Option<&Pipe> {
        match &self.links[..] {
            [link] if self.handlers.is_empty() && self.subs.is_empty() => Some(link),
            _ => None,
        }
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
    pub(crate) inbox: Mailbox<Message>,
    /// Wakes the driver: the listeners have changed.
    pub(crate) changed: Notify,
}

impl Hub {
    pub(crate) fn new(conf: &NetConf, when_full: WhenFull) -> Self {
        Self {
            listeners: Mutex::default(),
            lifecycle: Mutex::default(),
            claimed: AtomicBool::new(false),
            inbox: Mailbox::new(conf.limits(), when_full),
            changed: Notify::new(),
        }
    }

    pub(crate) fn listeners(&self) -> Arc<Listeners> {
        self.lock_listeners().clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Listeners)) {
        change(Arc::make_mut(&mut self.lock_listeners()));
        self.changed.notify_one();
    }

    /// True once somebody has called `recv`.
    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }

    /// From now on the inbox gets every message, whoever else listens.
    pub(crate) fn claim(&self) {
        if !self.is_claimed() {
            self.claimed.store(true, Ordering::Release);
            self.changed.notify_one();
        }
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
    }

    pub(crate) fn del_end(&self, id: HandlerId) -> bool {
        let mut lifecycle = self.lock_lifecycle();
        let before = lifecycle.end.len();
        lifecycle.end.retain(|(other, _)| *other != id);
        lifecycle.end.len() < before
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
