//! Holds: what leads to the driver of one connection: its call, its end, its counters.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::Identity;
use crate::base::attention::Attention;
use crate::pipe::Addr;

/// Why somebody wants a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// The socket closes.
    Close = 1,
    /// Others want to greet, and this one has not.
    Displace = 2,
}

/// One connection, as others see it.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Calls the driver: there is something to write, or it is to end.
    pub(crate) call: Attention,
    pub(crate) addr: Option<Addr>,
    pub(crate) identity: OnceLock<Identity>,
    wish: AtomicU8,
    received: AtomicU64,
    received_bytes: AtomicU64,
}

impl Lane {
    pub(crate) fn new(addr: Option<Addr>) -> Self {
        Self {
            call: Attention::default(),
            addr,
            identity: OnceLock::new(),
            wish: AtomicU8::new(0),
            received: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        }
    }

    /// Asks the driver to end.
    pub(crate) fn end(&self, wish: Wish) {
        self.wish.store(wish as u8, Ordering::SeqCst);
        self.call.raise();
    }

    pub(crate) fn wish(&self) -> Option<Wish> {
        match self.wish.load(Ordering::SeqCst) {
            0 => None,
            2 => Some(Wish::Displace),
            _ => Some(Wish::Close),
        }
    }

    pub(crate) fn count(&self, messages: usize, bytes: usize) {
        self.received.fetch_add(messages as u64, Ordering::Relaxed);
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Messages received, and bytes of their frames.
    pub(crate) fn received(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.received_bytes.load(Ordering::Relaxed))
    }
}
