//! Decides: messages that are to be acknowledged: sent, sent again, given up.

use std::time::Instant;

use super::backlog::Parcel;
use super::pending::{Due, Unacknowledged};
use super::{Desk, GivenUp, Outcome, PeerKey, Refused, Taken};
use crate::smart::options::WhenFull;
use crate::smart::protocol::MessageId;
use crate::smart::{Identity, Payload};

impl<L: Clone> Desk<L> {
    pub(super) fn send_for_sure(
        &mut self,
        now: Instant,
        payload: &mut Payload<'_>,
        to: Option<Identity>,
    ) -> Result<Taken, Refused> {
        if self.pending.is_full(self.rules.limits) && !self.make_room_for_sure()? {
            self.counters.dropped += 1;
            return Ok(Taken::Dropped);
        }
        // Where all are full it waits behind their queues: what is given up there is forgotten, and in a queue it would stay.
        let key = self.choose(to)?.flatten();
        let number = self.pending.add(now, payload.keep(), to);
        match key {
            Some(key) => {
                self.give(key, payload, Some(number), to.is_some());
                self.note_sent(now, number, key);
            }
            None => self.backlog.push_back(Parcel { payload: payload.keep(), to, number: Some(number) }),
        }
        Ok(Taken::Queued(Some(number)))
    }

    pub(super) fn note_sent(&mut self, now: Instant, number: u64, key: PeerKey) {
        let place = self.peers.get(key).map_or(0, |peer| peer.outbox.last_place());
        self.pending.handle_sent(now, number, key, place);
    }

    /// Room among the unacknowledged; false when the new message is to go instead.
    pub(super) fn make_room_for_sure(&mut self) -> Result<bool, Refused> {
        match self.rules.when_full {
            WhenFull::Wait | WhenFull::Fail => Err(Refused::Full),
            WhenFull::DropNewest => Ok(false),
            WhenFull::DropOldest => {
                if let Some(oldest) = self.pending.oldest() {
                    self.give_up(oldest);
                    self.counters.dropped += 1;
                }
                Ok(true)
            }
        }
    }

    /// A message of ours has arrived at a peer.
    pub(crate) fn handle_ack(&mut self, key: PeerKey, id: &MessageId) {
        let Some(number) = self.pending.number(id) else { return };
        // One peer's word says nothing of what went to another.
        if !self.pending.get(number).is_some_and(|message| message.went_by(key)) {
            return;
        }
        self.pending.remove(number);
        self.counters.acknowledged += 1;
        if let Some(peer) = self.peers.get_mut(key) {
            peer.counters.acknowledged += 1;
        }
        self.outcomes.push(Outcome { number, given_up: None });
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.pending.poll_timeout()
    }

    /// Sends again what is due, and gives up what was tried often enough.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let peers = &self.peers;
        let is_queued = |message: &Unacknowledged| {
            message.at.and_then(|key| peers.get(key)).is_some_and(|peer| peer.outbox.holds(message.place))
        };
        let mut all = Vec::new();
        while let Some(due) = self.pending.poll_due(now, is_queued) {
            all.push(due);
        }
        for due in all {
            match due {
                Due::GiveUp(number) => self.give_up(number),
                Due::Again(number) => self.send_again(now, number),
            }
        }
    }

    pub(super) fn send_again(&mut self, now: Instant, number: u64) {
        let Some(message) = self.pending.get(number) else { return };
        let (payload, to) = (message.payload.clone(), message.to);
        match self.choose(to) {
            Ok(Some(Some(key))) => {
                self.counters.resent += 1;
                self.forward(now, key, Parcel { payload, to, number: Some(number) });
            }
            // They are full: what is queued there may be this very message. It stays on the agenda.
            Ok(Some(None)) => {}
            Ok(None) | Err(_) => {
                self.pending.handle_waits(number);
                self.backlog.push_back(Parcel { payload, to, number: Some(number) });
            }
        }
    }

    pub(super) fn give_up(&mut self, number: u64) {
        let Some(message) = self.pending.remove(number) else { return };
        self.counters.given_up += 1;
        self.backlog.forget(number);
        let given_up = GivenUp { payload: message.payload, to: message.to, tries: message.tries };
        self.outcomes.push(Outcome { number, given_up: Some(given_up) });
    }

    /// What became of messages that were to be acknowledged.
    pub(crate) fn take_outcomes(&mut self) -> Vec<Outcome> {
        if self.outcomes.is_empty() { Vec::new() } else { std::mem::take(&mut self.outcomes) }
    }
}
