//! Decides: the heart of a smart socket: who is connected, to whom a message goes, what waits for a
//! peer, for room or for its acknowledgement. Time and bytes are arguments; what is to be woken comes
//! out as values.

mod backlog;
mod load;
mod outbox;
mod peer;
mod pending;
mod sure;
#[cfg(test)]
mod tests;

use std::time::Instant;

use bytes::Bytes;

use super::options::{Delivery, Limits, Options, Resend, SendMode, WhenFull};
use super::protocol::MessageId;
use super::{Identity, Payload};
use backlog::{Backlog, Parcel};
pub(crate) use load::Load;
use outbox::{Outbox, Unsent};
pub(crate) use peer::Peer;
pub use peer::PeerCounters;
use peer::Peers;
pub(crate) use peer::{Joined, PeerKey};
use pending::Pending;

/// ACKs that a peer may leave unread, in bytes; it sends again what more would acknowledge.
const ACKS: usize = 1 << 20;

/// What a desk is told at its birth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) mode: SendMode,
    pub(crate) delivery: Delivery,
    pub(crate) resend: Resend,
    pub(crate) limits: Limits,
    pub(crate) when_full: WhenFull,
}

impl From<&Options> for Rules {
    fn from(options: &Options) -> Self {
        Self {
            mode: options.mode,
            delivery: options.delivery,
            resend: options.resend,
            limits: options.out,
            when_full: options.when_full,
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is queued, for a peer or until there is one; with its number where it is to be acknowledged.
    Queued(Option<u64>),
    /// There was no room for it, and it was dropped as asked for.
    Dropped,
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its queue is full.
    Full,
    /// No such peer is connected, and none will come back by itself.
    NoSuchPeer,
    /// The mode wants a name.
    NoDestination,
}

/// What ended the wait for an acknowledgement.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) number: u64,
    /// `None` when it was acknowledged.
    pub(crate) given_up: Option<GivenUp>,
}

#[derive(Debug)]
pub(crate) struct GivenUp {
    pub(crate) payload: Bytes,
    pub(crate) to: Option<Identity>,
    pub(crate) tries: u32,
}

/// What a socket has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Messages given to connections, copies for each subscriber and tries counted.
    pub sent: u64,
    /// Messages dropped for want of room.
    pub dropped: u64,
    /// Messages dropped because the peer that they were for has gone and will not come back by itself, or has been away for longest
    /// while too much waits for those that are away.
    pub lost: u64,
    /// Messages that were sent again.
    pub resent: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages given up unacknowledged.
    pub given_up: u64,
    /// Messages that were of no topic that this socket asked for.
    pub filtered: u64,
    /// Messages that wait for a peer.
    pub waiting: u64,
    /// Messages that wait for their acknowledgement.
    pub unacknowledged: u64,
}

/// `L` is what leads to a connection's driver.
#[derive(Debug)]
pub(crate) struct Desk<L> {
    rules: Rules,
    peers: Peers<L>,
    backlog: Backlog,
    pending: Pending,
    topics: Vec<Bytes>,
    counters: Counters,
    /// Connections that have something new to write, to be woken by the caller.
    woken: Vec<L>,
    outcomes: Vec<Outcome>,
}

impl<L: Clone> Desk<L> {
    /// `prefix` is random: it makes message ids differ from other sockets'.
    pub(crate) fn new(rules: Rules, prefix: [u8; 8]) -> Self {
        Self {
            rules,
            peers: Peers::default(),
            backlog: Backlog::default(),
            pending: Pending::new(rules.resend, prefix),
            topics: Vec::new(),
            counters: Counters::default(),
            woken: Vec::new(),
            outcomes: Vec::new(),
        }
    }

    /// Takes a message to send, to a peer or to whom the mode says.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        payload: &mut Payload<'_>,
        to: Option<Identity>,
    ) -> Result<Taken, Refused> {
        match (to, self.rules.mode) {
            (None, SendMode::ByIdentity) => Err(Refused::NoDestination),
            (None, SendMode::Publish) if !self.peers.is_empty() => self.publish(payload),
            _ if self.rules.delivery == Delivery::AtLeastOnce && !(to.is_none() && self.publishes()) => {
                self.send_for_sure(now, payload, to)
            }
            _ => self.send_once(payload, to),
        }
    }

    fn publishes(&self) -> bool {
        self.rules.mode == SendMode::Publish
    }

    fn send_once(&mut self, payload: &mut Payload<'_>, to: Option<Identity>) -> Result<Taken, Refused> {
        let Some(key) = self.choose(to)? else { return self.wait_for_peer(payload, to) };
        let Some(key) = key else { return self.overflow(payload, to) };
        self.give(key, payload, None, to.is_some());
        Ok(Taken::Queued(None))
    }

    /// The peer that a message goes to: `Some(None)` when all that could take it are full, `None` when
    /// it is to wait for a peer.
    #[allow(clippy::option_option, reason = "nobody there, and nobody who has room, are two things")]
    fn choose(&mut self, to: Option<Identity>) -> Result<Option<Option<PeerKey>>, Refused> {
        let limits = self.rules.limits;
        let Some(identity) = to else {
            if self.peers.is_empty() {
                return Ok(None);
            }
            return Ok(Some(self.peers.in_turn(limits)));
        };
        match self.peers.key_of(&identity) {
            Some(key) => Ok(Some(self.peers.get(key).is_some_and(|peer| !peer.outbox.is_full(limits)).then_some(key))),
            None if self.peers.is_empty() || self.peers.comes_back(&identity) => Ok(None),
            None => Err(Refused::NoSuchPeer),
        }
    }

    /// Queues a message for a peer.
    fn give(&mut self, key: PeerKey, payload: &mut Payload<'_>, number: Option<u64>, addressed: bool) {
        let id = number.map(|number| self.pending.id(number));
        let Some(peer) = self.peers.get_mut(key) else { return };
        if addressed {
            peer.outbox.address_next();
        }
        if Outbox::is_small(payload.len()) {
            peer.outbox.push_small(id.as_ref(), payload.as_slice());
        } else {
            peer.outbox.push_large(id.as_ref(), payload.keep());
        }
        peer.counters.sent += 1;
        peer.counters.sent_bytes += payload.len() as u64;
        self.counters.sent += 1;
        self.woken.extend(peer.wake());
    }

    /// All who want it get it; encoded once.
    fn publish(&mut self, payload: &mut Payload<'_>) -> Result<Taken, Refused> {
        let limits = self.rules.limits;
        let wanting = self.peers.wanting(payload.as_slice());
        let refuses = matches!(self.rules.when_full, WhenFull::Wait | WhenFull::Fail);
        let is_full = |key: &PeerKey| self.peers.get(*key).is_some_and(|peer| peer.outbox.is_full(limits));
        if refuses && wanting.iter().any(is_full) {
            return Err(Refused::Full);
        }
        if let [only] = wanting[..]
            && !is_full(&only)
        {
            self.give(only, payload, None, false);
            return Ok(Taken::Queued(None));
        }
        let mut frame = Vec::with_capacity(5 + payload.len());
        frame.extend_from_slice(super::protocol::Head::new(None, payload.len()).as_slice());
        frame.extend_from_slice(payload.as_slice());
        let frame = Bytes::from(frame);
        for key in wanting {
            self.give_copy(key, &frame, payload.len());
        }
        Ok(Taken::Queued(None))
    }

    fn give_copy(&mut self, key: PeerKey, frame: &Bytes, payload: usize) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.outbox.is_full(self.rules.limits) {
            peer.counters.dropped += 1;
            self.counters.dropped += 1;
            if self.rules.when_full != WhenFull::DropOldest || !peer.outbox.drop_oldest() {
                return;
            }
        }
        peer.outbox.push_shared(frame.clone(), payload);
        peer.counters.sent += 1;
        peer.counters.sent_bytes += payload as u64;
        self.counters.sent += 1;
        self.woken.extend(peer.wake());
    }

    /// Nobody is there who could take it.
    fn wait_for_peer(&mut self, payload: &mut Payload<'_>, to: Option<Identity>) -> Result<Taken, Refused> {
        if self.backlog.is_full(to, self.rules.limits) {
            match self.rules.when_full {
                WhenFull::Wait | WhenFull::Fail => return Err(Refused::Full),
                WhenFull::DropNewest => {
                    self.counters.dropped += 1;
                    return Ok(Taken::Dropped);
                }
                WhenFull::DropOldest => self.counters.dropped += u64::from(self.backlog.drop_oldest(to)),
            }
        }
        self.backlog.push_back(Parcel { payload: payload.keep(), to, number: None });
        Ok(Taken::Queued(None))
    }

    /// Everybody who could take it is full.
    fn overflow(&mut self, payload: &mut Payload<'_>, to: Option<Identity>) -> Result<Taken, Refused> {
        match self.rules.when_full {
            WhenFull::Wait | WhenFull::Fail => Err(Refused::Full),
            WhenFull::DropNewest => {
                self.counters.dropped += 1;
                Ok(Taken::Dropped)
            }
            WhenFull::DropOldest => {
                let Some(key) = self.peers.whatever_its_room(to) else {
                    return Err(Refused::NoSuchPeer);
                };
                if let Some(peer) = self.peers.get_mut(key) {
                    let dropped = u64::from(peer.outbox.drop_oldest());
                    peer.counters.dropped += dropped;
                    self.counters.dropped += dropped;
                }
                self.give(key, payload, None, to.is_some());
                Ok(Taken::Queued(None))
            }
        }
    }

    /// A peer has greeted. What waited for it, or for anybody, is queued for it in order.
    ///
    /// # Errors
    /// Its identity is connected already; that connection stays.
    pub(crate) fn join(&mut self, now: Instant, joined: Joined, link: L) -> Result<PeerKey, Double> {
        let key = self.peers.add(joined, link).ok_or(Double)?;
        if let Some(peer) = self.peers.get_mut(key) {
            for topic in &self.topics {
                super::protocol::Envelope::Subscribe(topic.clone()).encode(peer.outbox.control());
            }
            // The driver has not looked at the queue yet, and will.
            let _ = peer.wake();
        }
        let takes_all = self.rules.mode != SendMode::ByIdentity;
        for parcel in self.backlog.for_peer(&joined.identity, takes_all) {
            self.forward(now, key, parcel);
        }
        Ok(key)
    }

    fn forward(&mut self, now: Instant, key: PeerKey, parcel: Parcel) {
        let Parcel { payload, to, number } = parcel;
        if number.is_some_and(|number| self.pending.get(number).is_none()) {
            return;
        }
        self.give(key, &mut Payload::from(payload), number, to.is_some());
        if let Some(number) = number {
            self.note_sent(now, number, key);
        }
    }

    /// A connection has ended, in the middle of `load`. What the peer has not got goes to others, or
    /// waits.
    pub(crate) fn leave(&mut self, now: Instant, key: PeerKey, load: Load) {
        let Some(mut peer) = self.peers.remove(key) else { return };
        let mut back = Vec::new();
        for number in self.pending.at(key) {
            if let Some(message) = self.pending.get(number) {
                back.push(Parcel { payload: message.payload.clone(), to: message.to, number: Some(number) });
            }
        }
        for Unsent { payload, addressed, asks_ack } in peer.outbox.unsent(load) {
            let ours_alone = addressed || self.publishes();
            if asks_ack {
                continue;
            }
            if ours_alone && !peer.comes_back {
                self.counters.lost += 1;
                continue;
            }
            back.push(Parcel { payload, to: ours_alone.then_some(peer.identity), number: None });
        }
        self.counters.resent += back.iter().filter(|parcel| parcel.number.is_some()).count() as u64;
        self.reroute(now, back);
        // Each peer that goes and never comes back would leave its queue here.
        self.counters.lost += self.backlog.handle_gone(&peer.identity, self.rules.limits);
    }

    /// Gives messages to those who are connected, or puts them first among those that wait.
    fn reroute(&mut self, now: Instant, parcels: Vec<Parcel>) {
        let mut left = Vec::new();
        for parcel in parcels {
            let free = self.rules.mode != SendMode::Publish || parcel.to.is_some();
            match self.choose(parcel.to) {
                Ok(Some(Some(key))) if free => self.forward(now, key, parcel),
                _ => left.push(parcel),
            }
        }
        self.backlog.put_first(left);
    }

    /// A peer's message is acknowledged, on the connection that it came by.
    pub(crate) fn acknowledge(&mut self, key: PeerKey, id: &MessageId) {
        let Some(peer) = self.peers.get_mut(key).filter(|peer| peer.outbox.control_len() < ACKS) else { return };
        super::protocol::Envelope::Ack(*id).encode(peer.outbox.control());
        self.woken.extend(peer.wake());
    }

    /// A peer wants a topic, or no longer.
    pub(crate) fn handle_topic(&mut self, key: PeerKey, topic: Bytes, wanted: bool) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.want(topic, wanted);
        }
    }

    /// This socket wants a topic, or no longer.
    pub(crate) fn subscribe(&mut self, topic: Bytes, wanted: bool) {
        use super::protocol::Envelope::{Subscribe, Unsubscribe};
        let known = self.topics.iter().position(|known| *known == topic);
        let envelope = match (known, wanted) {
            (None, true) => {
                self.topics.push(topic.clone());
                Subscribe(topic)
            }
            (Some(at), false) => {
                self.topics.remove(at);
                Unsubscribe(topic)
            }
            _ => return,
        };
        for key in self.peers.keys() {
            if let Some(peer) = self.peers.get_mut(key) {
                envelope.encode(peer.outbox.control());
                self.woken.extend(peer.wake());
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Takes the next that a connection is to write. False when there is nothing; it is woken then
    /// when there is.
    pub(crate) fn take(&mut self, now: Instant, key: PeerKey, load: &mut Load) -> bool {
        if !self.backlog.is_empty() {
            self.fetch(now, key);
        }
        let Some(peer) = self.peers.get_mut(key) else { return false };
        if peer.outbox.is_empty() {
            peer.sleep();
            return false;
        }
        peer.outbox.take(load);
        // What waits goes before what is sent from now on.
        if !self.backlog.is_empty() {
            self.fetch(now, key);
        }
        true
    }

    /// True when a peer's queue is at most half as long as it may be.
    pub(crate) fn has_much_room(&self, key: PeerKey) -> bool {
        self.peers.get(key).is_none_or(|peer| peer.outbox.has_much_room(self.rules.limits))
    }

    /// Queues for a peer what waits because all were full.
    fn fetch(&mut self, now: Instant, key: PeerKey) {
        let (limits, takes_all) = (self.rules.limits, self.rules.mode == SendMode::RoundRobin);
        while let Some(peer) = self.peers.get(key).filter(|peer| !peer.outbox.is_full(limits)) {
            let identity = peer.identity;
            let Some(parcel) = self.backlog.next_for(&identity, takes_all) else { return };
            self.forward(now, key, parcel);
        }
    }

    /// A sign of life goes out with the rest.
    pub(crate) fn beat(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(key) {
            super::protocol::Envelope::Heartbeat.encode(peer.outbox.control());
        }
    }

    /// Connections that are to look at their queue.
    pub(crate) fn take_woken(&mut self) -> Vec<L> {
        if self.woken.is_empty() { Vec::new() } else { std::mem::take(&mut self.woken) }
    }

    /// True when nothing waits for a peer, for room or for its acknowledgement. What connections have
    /// taken is theirs.
    pub(crate) fn is_drained(&self) -> bool {
        self.backlog.is_empty() && self.pending.len() == 0 && self.peers.iter().all(|peer| peer.is_idle())
    }

    /// Messages that are on their way, those that a connection is writing not counted.
    pub(crate) fn outstanding(&self) -> u64 {
        let queued: usize = self.peers.iter().map(|peer| peer.outbox.unasked()).sum();
        (self.backlog.unasked() + queued + self.pending.len()) as u64
    }

    pub(crate) fn counters(&self) -> Counters {
        let (waiting, unacknowledged) = (self.backlog.len() as u64, self.pending.len() as u64);
        Counters { waiting, unacknowledged, ..self.counters }
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer<L>> {
        self.peers.iter()
    }
}

/// A peer of this identity is connected already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Double;
