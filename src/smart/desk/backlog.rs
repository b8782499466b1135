//! Decides: messages that wait for a peer, in order.

use std::collections::VecDeque;

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

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    parcels: VecDeque<Parcel>,
    bytes: usize,
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

    pub(crate) fn is_full(&self, limits: Limits) -> bool {
        limits.is_reached(self.parcels.len(), self.bytes)
    }

    pub(crate) fn push_back(&mut self, parcel: Parcel) {
        self.bytes += parcel.payload.len();
        self.parcels.push_back(parcel);
    }

    pub(crate) fn pop_front(&mut self) -> Option<Parcel> {
        let parcel = self.parcels.pop_front()?;
        self.bytes -= parcel.payload.len();
        Some(parcel)
    }

    /// Puts messages before all others, in their order.
    pub(crate) fn put_first(&mut self, parcels: Vec<Parcel>) {
        for parcel in parcels.into_iter().rev() {
            self.bytes += parcel.payload.len();
            self.parcels.push_front(parcel);
        }
    }

    /// Drops what is more than so much of what waits for one peer alone and nobody acknowledges: first what waits for those that
    /// have been away for longest. Returns how many.
    pub(crate) fn drop_beyond(&mut self, limits: Limits) -> u64 {
        let (mut at, before) = (self.parcels.len(), self.parcels.len());
        while at > 0 && limits.is_exceeded(self.parcels.len(), self.bytes) {
            at -= 1;
            if self.parcels[at].to.is_some() && self.parcels[at].number.is_none() {
                self.bytes -= self.parcels.remove(at).map_or(0, |parcel| parcel.payload.len());
            }
        }
        (before - self.parcels.len()) as u64
    }

    /// Takes what is for a peer, and what is for anybody where `takes_all`.
    pub(crate) fn for_peer(&mut self, identity: &Identity, takes_all: bool) -> Vec<Parcel> {
        let is_for = |parcel: &Parcel| parcel.to.map_or(takes_all, |to| to == *identity);
        let (taken, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.parcels).into_iter().partition(is_for);
        self.parcels = left.into();
        self.bytes -= taken.iter().map(|parcel| parcel.payload.len()).sum::<usize>();
        taken
    }

    /// Takes the first that is for a peer, or for anybody where `takes_all`.
    pub(crate) fn next_for(&mut self, identity: &Identity, takes_all: bool) -> Option<Parcel> {
        let is_for = |parcel: &Parcel| parcel.to.map_or(takes_all, |to| to == *identity);
        let at = self.parcels.iter().position(is_for)?;
        let parcel = self.parcels.remove(at)?;
        self.bytes -= parcel.payload.len();
        Some(parcel)
    }

    /// A message is given up.
    pub(crate) fn forget(&mut self, number: u64) {
        if let Some(at) = self.parcels.iter().position(|parcel| parcel.number == Some(number)) {
            self.bytes -= self.parcels.remove(at).map_or(0, |parcel| parcel.payload.len());
        }
    }
}
