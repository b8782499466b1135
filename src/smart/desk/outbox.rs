//! Decides: what is to go to one peer: frames in order, small ones packed together, large ones and
//! those that go to many as they are.

use std::collections::VecDeque;

use bytes::Bytes;

use super::load::{Chunk, Load, Pack, measure};
use crate::smart::options::Limits;
use crate::smart::protocol::{Head, MessageId};

/// A payload of up to this size is copied beside its neighbours, so that one write carries many.
const PACKED: usize = 8 << 10;
/// A pack is begun anew when it has come to this size.
const PACK: usize = 64 << 10;
/// What one turn of the connection takes, at least one chunk.
const TURN: usize = 256 << 10;

/// The queue of one peer.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Frames that carry no message and are neither limited nor dropped: ACKs, topics.
    control: Vec<u8>,
    chunks: VecDeque<Chunk>,
    messages: usize,
    bytes: usize,
    /// The place, counted from the peer's first message, of the next one that is queued.
    next: u64,
    /// The places of those that were meant for this peer and nobody else.
    addressed: VecDeque<u64>,
    /// The size of the last pack that was taken.
    usual: usize,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.control.is_empty()
    }

    /// Messages that nobody acknowledges.
    pub(crate) fn unasked(&self) -> usize {
        self.chunks.iter().map(Chunk::unasked).sum()
    }

    pub(crate) fn is_full(&self, limits: Limits) -> bool {
        limits.is_reached(self.messages, self.bytes)
    }

    pub(crate) fn control_len(&self) -> usize {
        self.control.len()
    }

    pub(crate) fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// The place of the message that was queued last.
    pub(crate) fn last_place(&self) -> u64 {
        self.next.wrapping_sub(1)
    }

    /// True of a message that no connection has taken yet.
    pub(crate) fn holds(&self, place: u64) -> bool {
        place >= self.next - self.messages as u64
    }

    /// Notes that the next message is for this peer alone.
    pub(crate) fn address_next(&mut self) {
        self.addressed.push_back(self.next);
    }

    pub(crate) fn push_small(&mut self, id: Option<&MessageId>, payload: &[u8]) {
        let head = Head::new(id, payload.len());
        let len = head.as_slice().len() + payload.len();
        self.count(payload.len());
        if let Some(Chunk::Packed(pack)) = self.chunks.back_mut()
            && pack.size() + len <= PACK
        {
            return pack.push(head, payload);
        }
        // The next one is likely to become as long as the last one was.
        let room = if self.chunks.is_empty() { self.usual } else { PACK };
        let mut pack = Pack::with_capacity(room.max(len));
        pack.push(head, payload);
        self.chunks.push_back(Chunk::Packed(pack));
    }

    pub(crate) fn is_small(payload: usize) -> bool {
        payload <= PACKED
    }

    pub(crate) fn push_large(&mut self, id: Option<&MessageId>, payload: Bytes) {
        self.count(payload.len());
        self.chunks.push_back(Chunk::Large(Head::new(id, payload.len()), payload));
    }

    /// Queues a frame that others send as well.
    pub(crate) fn push_shared(&mut self, frame: Bytes, payload: usize) {
        self.count(payload);
        self.chunks.push_back(Chunk::Shared(frame));
    }

    fn count(&mut self, payload: usize) {
        self.messages += 1;
        self.bytes += payload;
        self.next += 1;
    }

    /// Drops the oldest message that has not been taken. False when there is none.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let Some(front) = self.chunks.front_mut() else { return false };
        let (payload, emptied) = match front {
            Chunk::Packed(pack) => {
                let Some(payload) = pack.drop_first() else { return false };
                (payload, pack.is_empty())
            }
            other => (other.census().1, true),
        };
        if emptied {
            self.chunks.pop_front();
        }
        let place = self.next - self.messages as u64;
        if self.addressed.front() == Some(&place) {
            self.addressed.pop_front();
        }
        self.messages -= 1;
        self.bytes -= payload;
        true
    }

    /// Moves what is next to a load that is empty.
    pub(crate) fn take(&mut self, load: &mut Load) {
        let first = self.next - self.messages as u64;
        load.begin(first);
        self.settle(first);
        let mut size = self.control.len();
        if size > 0 {
            load.push(Chunk::Packed(Pack::of_control(std::mem::take(&mut self.control))));
        }
        while size < TURN {
            let Some(chunk) = self.chunks.pop_front() else { break };
            let (messages, bytes) = chunk.census();
            self.messages -= messages;
            self.bytes -= bytes;
            size += chunk.len();
            self.usual = chunk.len().min(PACK);
            load.push(chunk);
        }
    }

    /// Forgets who was addressed among messages that have left.
    fn settle(&mut self, before: u64) {
        while self.addressed.front().is_some_and(|place| *place < before) {
            self.addressed.pop_front();
        }
    }

    /// What had not left when the connection ended: the rest of `load`, and everything behind
    /// it. A frame of which a part has left counts as not sent: its end
    /// can never reach the peer.
    pub(crate) fn unsent(&mut self, load: Load) -> Vec<Unsent> {
        let (mut place, mut gone, chunks) = load.into_rest();
        let mut found = Vec::new();
        for chunk in chunks.into_iter().chain(std::mem::take(&mut self.chunks)) {
            let mut bytes = chunk.into_bytes();
            while let Some((whole, payload)) = measure(&bytes) {
                let frame = bytes.split_to(whole);
                let left = gone >= whole;
                gone = gone.saturating_sub(whole);
                if !Head::carries_message(&frame) {
                    continue;
                }
                let addressed = self.addressed.front() == Some(&place);
                if addressed {
                    self.addressed.pop_front();
                }
                place += 1;
                if !left {
                    let payload = frame.slice(whole - payload..);
                    found.push(Unsent { payload, addressed, asks_ack: Head::asks_ack(&frame) });
                }
            }
        }
        self.messages = 0;
        self.bytes = 0;
        found
    }
}

/// A message that was queued and did not leave.
#[derive(Debug)]
pub(crate) struct Unsent {
    pub(crate) payload: Bytes,
    /// It was meant for this peer and nobody else.
    pub(crate) addressed: bool,
    /// It is kept elsewhere until it is acknowledged.
    pub(crate) asks_ack: bool,
}
