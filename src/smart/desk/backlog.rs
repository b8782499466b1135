//! Decides: messages that wait for a peer, in order.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::smart::Identity;
use crate::smart::options::Limits;

/// A message on its way to somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parcel {
    pub(crate) payload: Bytes,
    pub(crate) to: Option<Identity>,
    /// Where it is to be acknowledged: its number.
    pub(crate) number: Option<u64>,
}

/// For peers that are away may wait in all what so many of them may have each.
pub(super) const AWAY: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    parcels: VecDeque<Parcel>,
    /// Of those that nobody acknowledges: what waits for anybody, for each peer alone, and for all such peers. Of the others
    /// `Pending` keeps count.
    for_anybody: Amount,
    away: HashMap<Identity, Away>,
    for_away: Amount,
    /// Counts who has gone away.
    clock: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Amount {
    messages: usize,
    bytes: usize,
}

impl Amount {
    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn take(&mut self, bytes: usize) {
        self.messages -= 1;
        self.bytes -= bytes;
    }

    fn reaches(self, limits: Limits) -> bool {
        limits.is_reached(self.messages, self.bytes)
    }
}

/// A peer that is away and for which something waits.
#[derive(Debug)]
struct Away {
    amount: Amount,
    /// Lower than of those that have gone away later.
    since: u64,
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.parcels.len()
    }

    /// Messages that nobody acknowledges.
    pub(crate) fn unasked(&self) -> usize {
        self.parcels.iter().filter(|parcel| parcel.number.is_none()).count()
    }

    /// True when no more may wait for this peer, or for anybody, of what nobody acknowledges.
    pub(crate) fn is_full(&self, to: Option<Identity>, limits: Limits) -> bool {
        let Some(identity) = to else { return self.for_anybody.reaches(limits) };
        let waits = self.away.get(&identity).map_or_else(Amount::default, |away| away.amount);
        waits.reaches(limits) || self.for_away.reaches(limits.times(AWAY))
    }

    pub(crate) fn push_back(&mut self, parcel: Parcel) {
        self.count(&parcel);
        self.parcels.push_back(parcel);
    }

    /// Drops the oldest message that stands in the way of one more to this peer, or to anybody. False when there is none.
    pub(crate) fn drop_oldest(&mut self, to: Option<Identity>) -> bool {
        let in_the_way = match to {
            Some(identity) if !self.away.contains_key(&identity) => self.away_for_longest(),
            own => own,
        };
        let oldest = |parcel: &Parcel| parcel.to == in_the_way && parcel.number.is_none();
        let at = self.parcels.iter().position(oldest);
        at.is_some_and(|at| self.remove(at).is_some())
    }

    /// Puts messages before all others, in their order.
    pub(crate) fn put_first(&mut self, parcels: Vec<Parcel>) {
        for parcel in parcels.into_iter().rev() {
            self.count(&parcel);
            self.parcels.push_front(parcel);
        }
    }

    /// A peer has gone away, and what it had not got is here. All of one break is kept; where more waits in all than may, what
    /// waits for those that have been away for longest goes, all of it. Returns how many messages.
    pub(crate) fn handle_gone(&mut self, identity: &Identity, limits: Limits) -> u64 {
        self.clock += 1;
        if let Some(away) = self.away.get_mut(identity) {
            away.since = self.clock;
        }
        let before = self.parcels.len();
        while limits.times(AWAY).is_exceeded(self.for_away.messages, self.for_away.bytes) && self.away.len() > 1 {
            let longest = self.away_for_longest();
            self.take_all(|parcel| parcel.to == longest && parcel.number.is_none());
        }
        (before - self.parcels.len()) as u64
    }

    fn away_for_longest(&self) -> Option<Identity> {
        self.away.iter().min_by_key(|(_, away)| away.since).map(|(identity, _)| *identity)
    }

    /// Takes what is for a peer, and what is for anybody where `takes_all`.
    pub(crate) fn for_peer(&mut self, identity: &Identity, takes_all: bool) -> Vec<Parcel> {
        self.take_all(|parcel| parcel.to.map_or(takes_all, |to| to == *identity))
    }

    /// Takes the first that is for a peer, or for anybody where `takes_all`.
    pub(crate) fn next_for(&mut self, identity: &Identity, takes_all: bool) -> Option<Parcel> {
        let is_for = |parcel: &Parcel| parcel.to.map_or(takes_all, |to| to == *identity);
        self.remove(self.parcels.iter().position(is_for)?)
    }

    /// A message is given up.
    pub(crate) fn forget(&mut self, number: u64) {
        if let Some(at) = self.parcels.iter().position(|parcel| parcel.number == Some(number)) {
            self.remove(at);
        }
    }

    fn take_all(&mut self, is_wanted: impl Fn(&Parcel) -> bool) -> Vec<Parcel> {
        let (taken, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.parcels).into_iter().partition(is_wanted);
        self.parcels = left.into();
        taken.iter().for_each(|parcel| self.discount(parcel));
        taken
    }

    fn remove(&mut self, at: usize) -> Option<Parcel> {
        let parcel = self.parcels.remove(at)?;
        self.discount(&parcel);
        Some(parcel)
    }

    fn count(&mut self, parcel: &Parcel) {
        let bytes = parcel.payload.len();
        match parcel.to {
            _ if parcel.number.is_some() => {}
            None => self.for_anybody.add(bytes),
            Some(identity) => {
                self.clock += 1;
                let first = Away { amount: Amount::default(), since: self.clock };
                self.away.entry(identity).or_insert(first).amount.add(bytes);
                self.for_away.add(bytes);
            }
        }
    }

    fn discount(&mut self, parcel: &Parcel) {
        let bytes = parcel.payload.len();
        match parcel.to {
            _ if parcel.number.is_some() => {}
            None => self.for_anybody.take(bytes),
            Some(identity) => {
                self.for_away.take(bytes);
                let Some(away) = self.away.get_mut(&identity) else { return };
                away.amount.take(bytes);
                if away.amount == Amount::default() {
                    self.away.remove(&identity);
                }
            }
        }
    }
}
