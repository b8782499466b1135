//! Decides: which bindings and permits exist at a time, within bounds.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::nat::{Proto, TcpFlags};

/// What makes a mapping the same one: the internal socket and, as the mapping rule wants, the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) proto: Proto,
    pub(super) internal: SocketAddr,
    /// Nothing for EIM, port 0 for ADM, all of it for APDM and for a flow that was moved away.
    pub(super) remote: Option<SocketAddr>,
}

/// An internal socket's external address and who may send to it.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) key: Key,
    pub(super) external: SocketAddr,
    /// Remote endpoints (port 0 for ADF) that may send in, and until when.
    permits: HashMap<SocketAddr, Duration>,
    expires: Duration,
    established: bool,
    /// A FIN or a reset has passed, and no new beginning since.
    closing: bool,
}

/// How long a binding lives after a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) fresh: Duration,
    pub(super) established: Duration,
}

/// All bindings, found from inside and from outside.
#[derive(Debug)]
pub(super) struct Table {
    by_key: HashMap<Key, (Proto, SocketAddr)>,
    by_external: HashMap<(Proto, SocketAddr), Binding>,
    permits: usize,
    max_bindings: usize,
    max_permits: usize,
    next_sweep: Duration,
}

/// A table that refused something because it was full is swept for dead entries at most this often, so
/// that a flood does not make each packet cost a walk through the table.
const SWEEP: Duration = Duration::from_millis(500);

impl Table {
    pub(super) fn new(max_bindings: usize, max_permits: usize) -> Self {
        Self {
            by_key: HashMap::new(),
            by_external: HashMap::new(),
            permits: 0,
            max_bindings,
            max_permits,
            next_sweep: Duration::ZERO,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_external.len()
    }

    /// The live binding of a key.
    pub(super) fn by_key(&mut self, now: Duration, key: &Key) -> Option<&mut Binding> {
        let external = *self.by_key.get(key)?;
        self.by_external(now, external.0, external.1)
    }

    /// The live binding of an external address; a dead one is removed on the way.
    pub(super) fn by_external(&mut self, now: Duration, proto: Proto, external: SocketAddr) -> Option<&mut Binding> {
        let at = (proto, external);
        if self.by_external.get(&at).is_some_and(|binding| binding.expires <= now) {
            self.remove(at);
        }
        self.by_external.get_mut(&at)
    }

    /// True when no live binding has this external address.
    pub(super) fn is_free(&self, now: Duration, proto: Proto, external: SocketAddr) -> bool {
        self.by_external.get(&(proto, external)).is_none_or(|binding| binding.expires <= now)
    }

    /// True when one more binding fits, after a sweep if need be.
    pub(super) fn has_room(&mut self, now: Duration) -> bool {
        if self.by_external.len() >= self.max_bindings {
            self.sweep(now);
        }
        self.by_external.len() < self.max_bindings
    }

    /// Adds a binding; whatever held the address before was dead.
    pub(super) fn insert(&mut self, now: Duration, key: Key, external: SocketAddr, life: Life) {
        self.remove((key.proto, external));
        let binding = Binding {
            key,
            external,
            permits: HashMap::new(),
            expires: now + life.fresh,
            established: false,
            closing: false,
        };
        self.by_key.insert(key, (key.proto, external));
        self.by_external.insert((key.proto, external), binding);
    }

    /// Lets `remote` in for as long as the binding would now live idle. False when the table is full.
    pub(super) fn permit(&mut self, now: Duration, proto: Proto, external: SocketAddr, remote: SocketAddr) -> bool {
        if self.permits >= self.max_permits {
            self.sweep(now);
        }
        let full = self.permits >= self.max_permits;
        let Some(binding) = self.by_external.get_mut(&(proto, external)) else { return false };
        let until = binding.expires;
        if let Some(old) = binding.permits.get_mut(&remote) {
            *old = until;
        } else if full {
            return false;
        } else {
            binding.permits.insert(remote, until);
            self.permits += 1;
        }
        true
    }

    fn remove(&mut self, at: (Proto, SocketAddr)) {
        let Some(dead) = self.by_external.remove(&at) else { return };
        self.permits -= dead.permits.len();
        if self.by_key.get(&dead.key) == Some(&at) {
            self.by_key.remove(&dead.key);
        }
    }

    fn sweep(&mut self, now: Duration) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP;
        let dead: Vec<_> = self.by_external.iter().filter(|(_, b)| b.expires <= now).map(|(at, _)| *at).collect();
        dead.into_iter().for_each(|at| self.remove(at));
        for binding in self.by_external.values_mut() {
            let before = binding.permits.len();
            binding.permits.retain(|_, until| *until > now);
            self.permits -= before - binding.permits.len();
        }
    }
}

impl Binding {
    /// True when `remote` (port 0 for ADF) was sent to and is still let in.
    pub(super) fn permits(&self, now: Duration, remote: SocketAddr) -> bool {
        self.permits.get(&remote).is_some_and(|until| *until > now)
    }

    /// A packet of this binding's passed: it lives on, shorter once it is closing.
    pub(super) fn refresh(&mut self, now: Duration, flags: TcpFlags, life: Life) {
        if flags.has(TcpFlags::FIN) || flags.has(TcpFlags::RST) {
            self.closing = true;
        } else if flags.has(TcpFlags::SYN) {
            self.closing = false;
        } else if flags.has(TcpFlags::ACK) {
            self.established = true;
        }
        self.established &= !self.closing;
        self.expires = now + if self.established { life.established } else { life.fresh };
    }
}
