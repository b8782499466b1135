//! Decides: messages that were sent and not acknowledged: when each is sent again, and when it is
//! given up.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use super::PeerKey;
use crate::smart::Identity;
use crate::smart::options::{Limits, Resend};
use crate::smart::protocol::MessageId;

/// Connections that a message went to before its last one, and that may still acknowledge it.
const REMEMBERED: usize = 8;

/// A message that waits for its acknowledgement.
#[derive(Debug)]
pub(crate) struct Unacknowledged {
    pub(crate) payload: Bytes,
    pub(crate) to: Option<Identity>,
    /// The connection that it went to last; `None` while it waits for a peer.
    pub(crate) at: Option<PeerKey>,
    /// Those that it went to before, as many as are remembered.
    before: VecDeque<PeerKey>,
    /// Its place in that connection's queue.
    pub(crate) place: u64,
    pub(crate) tries: u32,
    since: Instant,
    due: Instant,
}

impl Unacknowledged {
    /// True of a connection that this message was given to.
    pub(crate) fn went_by(&self, key: PeerKey) -> bool {
        self.at == Some(key) || self.before.contains(&key)
    }

    fn leave(&mut self) {
        let Some(key) = self.at.take().filter(|key| !self.before.contains(key)) else { return };
        if self.before.len() >= REMEMBERED {
            self.before.pop_front();
        }
        self.before.push_back(key);
    }
}

/// All of a socket.
#[derive(Debug)]
pub(crate) struct Pending {
    resend: Resend,
    /// The first half of each message id; the second is the message's number.
    prefix: [u8; 8],
    next: u64,
    waiting: BTreeMap<u64, Unacknowledged>,
    /// Instants at which to look at a message, in order.
    agenda: VecDeque<(Instant, u64)>,
    bytes: usize,
}

/// What has become due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// To be sent again.
    Again(u64),
    /// Given up.
    GiveUp(u64),
}

impl Pending {
    pub(crate) fn new(resend: Resend, prefix: [u8; 8]) -> Self {
        Self { resend, prefix, next: 0, waiting: BTreeMap::new(), agenda: VecDeque::new(), bytes: 0 }
    }

    pub(crate) fn is_full(&self, limits: Limits) -> bool {
        limits.is_reached(self.waiting.len(), self.bytes)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn id(&self, number: u64) -> MessageId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.prefix);
        id[8..].copy_from_slice(&number.to_be_bytes());
        id
    }

    /// The number in an id that this socket gave.
    pub(crate) fn number(&self, id: &MessageId) -> Option<u64> {
        let (prefix, number) = id.split_first_chunk::<8>()?;
        let number = number.first_chunk::<8>()?;
        (*prefix == self.prefix).then(|| u64::from_be_bytes(*number))
    }

    /// Keeps a message until it is acknowledged. Returns its number.
    pub(crate) fn add(&mut self, now: Instant, payload: Bytes, to: Option<Identity>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.bytes += payload.len();
        let due = self.next_look(now, now);
        self.waiting.insert(
            number,
            Unacknowledged { payload, to, at: None, before: VecDeque::new(), place: 0, tries: 0, since: now, due },
        );
        self.put_down(due, number);
        number
    }

    fn next_look(&self, now: Instant, since: Instant) -> Instant {
        let again = now + self.resend.after;
        self.resend.within.map_or(again, |within| again.min(since + within))
    }

    /// Nearly always the latest of all, so that it goes to the end.
    fn put_down(&mut self, due: Instant, number: u64) {
        let later = self.agenda.iter().rev().take_while(|(at, _)| *at > due).count();
        self.agenda.insert(self.agenda.len() - later, (due, number));
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Unacknowledged> {
        self.waiting.get(&number)
    }

    pub(crate) fn oldest(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(number, _)| *number)
    }

    /// The message goes out to a peer.
    pub(crate) fn handle_sent(&mut self, now: Instant, number: u64, at: PeerKey, place: u64) {
        let Some(since) = self.waiting.get(&number).map(|message| message.since) else { return };
        let due = self.next_look(now, since);
        let Some(message) = self.waiting.get_mut(&number) else { return };
        message.leave();
        message.at = Some(at);
        message.place = place;
        message.tries += 1;
        if std::mem::replace(&mut message.due, due) != due {
            self.put_down(due, number);
        }
    }

    /// It waits for a peer.
    pub(crate) fn handle_waits(&mut self, number: u64) {
        if let Some(message) = self.waiting.get_mut(&number) {
            message.leave();
        }
    }

    /// It was acknowledged, or is given up: forgets it.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Unacknowledged> {
        let message = self.waiting.remove(&number)?;
        self.bytes -= message.payload.len();
        while self.agenda.front().is_some_and(|(_, first)| !self.waiting.contains_key(first)) {
            self.agenda.pop_front();
        }
        Some(message)
    }

    /// Those that were last sent over a connection, the oldest first. They wait for a peer now.
    pub(crate) fn at(&mut self, key: PeerKey) -> Vec<u64> {
        let lost = self.waiting.iter_mut().filter(|(_, message)| message.at == Some(key));
        let take = |(number, message): (&u64, &mut Unacknowledged)| {
            message.at = None;
            *number
        };
        lost.map(take).collect()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.agenda.front().map(|(at, _)| *at)
    }

    /// The next message for which something is to be done at this instant.
    ///
    /// `is_queued` tells whether a message still waits to be written to its connection.
    pub(crate) fn poll_due(&mut self, now: Instant, is_queued: impl Fn(&Unacknowledged) -> bool) -> Option<Due> {
        while let Some(&(at, number)) = self.agenda.front().filter(|(at, _)| *at <= now) {
            self.agenda.pop_front();
            let Some(message) = self.waiting.get_mut(&number).filter(|message| message.due == at) else { continue };
            let overdue = self.resend.within.is_some_and(|within| now >= message.since + within);
            if overdue || (message.tries >= self.resend.tries && !is_queued(message)) {
                return Some(Due::GiveUp(number));
            }
            // What the peer has not read yet is not repeated: the queue would only grow.
            let (since, is_out) = (message.since, message.at.is_some() && !is_queued(message));
            let due = self.next_look(now, since);
            if let Some(message) = self.waiting.get_mut(&number) {
                message.due = due;
            }
            self.put_down(due, number);
            if is_out {
                return Some(Due::Again(number));
            }
        }
        None
    }
}
