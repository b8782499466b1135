//! Decides: the peers that are connected: by key, by identity, and whose turn it is.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;

use super::Outbox;
use crate::smart::Identity;
use crate::smart::options::Limits;

/// Topics that one peer may ask for; beyond them it gets everything, which it filters itself.
const TOPICS: usize = 1024;
/// Peers that were reached by connecting and are remembered while they are away.
const REMEMBERED: usize = 4096;

/// Names one connection: never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PeerKey(u64);

/// Keys are counted, not given by anybody: they spread by themselves, and each message looks one up.
#[derive(Debug, Default)]
pub(crate) struct ByCount(u64);

impl Hasher for ByCount {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, n: u64) {
        // The golden ratio: the upper bits, which the table also looks at, differ as well.
        self.0 = (self.0 ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// Who has greeted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joined {
    pub(crate) identity: Identity,
    /// This end connected, and will again.
    pub(crate) comes_back: bool,
}

/// What one connection has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerCounters {
    /// Messages given to it.
    pub sent: u64,
    /// Bytes of payload given to it.
    pub sent_bytes: u64,
    /// Messages dropped because its queue was full.
    pub dropped: u64,
    /// Messages that it has acknowledged.
    pub acknowledged: u64,
    /// Messages received from it.
    pub received: u64,
    /// Bytes of frames with messages received from it.
    pub received_bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Peer<L> {
    pub(crate) identity: Identity,
    pub(crate) comes_back: bool,
    pub(crate) link: L,
    pub(crate) outbox: Outbox,
    pub(crate) counters: PeerCounters,
    topics: BTreeSet<Bytes>,
    too_many_topics: bool,
    /// Its driver has nothing to write and waits to be woken.
    asleep: bool,
}

impl<L: Clone> Peer<L> {
    /// Whom to wake because there is something to write.
    pub(crate) fn wake(&mut self) -> Option<L> {
        std::mem::take(&mut self.asleep).then(|| self.link.clone())
    }
}

impl<L> Peer<L> {
    pub(crate) fn sleep(&mut self) {
        self.asleep = true;
    }

    /// It has written everything.
    pub(crate) fn is_idle(&self) -> bool {
        self.asleep && self.outbox.is_empty()
    }

    pub(crate) fn want(&mut self, topic: Bytes, wanted: bool) {
        if !wanted {
            self.topics.remove(&topic);
        } else if self.topics.len() < TOPICS {
            self.topics.insert(topic);
        } else {
            self.too_many_topics = true;
        }
    }

    fn wants(&self, payload: &[u8]) -> bool {
        let any = self.topics.is_empty() || self.too_many_topics;
        any || self.topics.iter().any(|topic| payload.starts_with(topic))
    }
}

/// All who are connected.
#[derive(Debug)]
pub(crate) struct Peers<L> {
    by_key: HashMap<PeerKey, Peer<L>, BuildHasherDefault<ByCount>>,
    by_identity: HashMap<Identity, PeerKey>,
    /// In the order in which they came.
    ring: Vec<PeerKey>,
    turn: usize,
    next: u64,
    away: HashSet<Identity>,
}

impl<L> Default for Peers<L> {
    fn default() -> Self {
        Self {
            by_key: HashMap::default(),
            by_identity: HashMap::new(),
            ring: Vec::new(),
            turn: 0,
            next: 0,
            away: HashSet::new(),
        }
    }
}

impl<L> Peers<L> {
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    pub(crate) fn get(&self, key: PeerKey) -> Option<&Peer<L>> {
        self.by_key.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: PeerKey) -> Option<&mut Peer<L>> {
        self.by_key.get_mut(&key)
    }

    pub(crate) fn key_of(&self, identity: &Identity) -> Option<PeerKey> {
        self.by_identity.get(identity).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer<L>> {
        self.ring.iter().filter_map(|key| self.by_key.get(key))
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    pub(crate) fn keys(&self) -> Vec<PeerKey> {
        self.ring.clone()
    }

    /// True of one that is away and that this end connects to again.
    pub(crate) fn comes_back(&self, identity: &Identity) -> bool {
        self.away.contains(identity)
    }

    /// `None` when the identity is there already.
    pub(crate) fn add(&mut self, joined: super::Joined, link: L) -> Option<PeerKey> {
        if self.by_identity.contains_key(&joined.identity) {
            return None;
        }
        let key = PeerKey(self.next);
        self.next += 1;
        self.away.remove(&joined.identity);
        self.by_identity.insert(joined.identity, key);
        self.ring.push(key);
        let peer = Peer {
            identity: joined.identity,
            comes_back: joined.comes_back,
            link,
            outbox: Outbox::default(),
            counters: PeerCounters::default(),
            topics: BTreeSet::new(),
            too_many_topics: false,
            asleep: false,
        };
        self.by_key.insert(key, peer);
        Some(key)
    }

    pub(crate) fn remove(&mut self, key: PeerKey) -> Option<Peer<L>> {
        let peer = self.by_key.remove(&key)?;
        self.by_identity.remove(&peer.identity);
        if peer.comes_back && self.away.len() < REMEMBERED {
            self.away.insert(peer.identity);
        }
        if let Some(at) = self.ring.iter().position(|other| *other == key) {
            self.ring.remove(at);
            // Whose turn it is does not change by this.
            self.turn -= usize::from(at < self.turn);
        }
        Some(peer)
    }

    /// The next in turn that has room.
    pub(crate) fn in_turn(&mut self, limits: Limits) -> Option<PeerKey> {
        for step in 0..self.ring.len() {
            let at = (self.turn + step) % self.ring.len();
            let key = self.ring[at];
            if self.by_key.get(&key).is_some_and(|peer| !peer.outbox.is_full(limits)) {
                self.turn = at + 1;
                return Some(key);
            }
        }
        None
    }

    /// The next in turn, whether it has room or not.
    fn next_in_turn(&mut self) -> Option<PeerKey> {
        let at = self.turn % self.ring.len().max(1);
        self.turn = at + 1;
        self.ring.get(at).copied()
    }

    /// The one that is named, or the next in turn.
    pub(crate) fn whatever_its_room(&mut self, to: Option<Identity>) -> Option<PeerKey> {
        match to {
            Some(identity) => self.key_of(&identity),
            None => self.next_in_turn(),
        }
    }

    /// Those who want a published message.
    pub(crate) fn wanting(&self, payload: &[u8]) -> Vec<PeerKey> {
        let wants = |key: &&PeerKey| self.by_key.get(key).is_some_and(|peer| peer.wants(payload));
        self.ring.iter().filter(wants).copied().collect()
    }
}
