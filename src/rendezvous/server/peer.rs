//! Decides: what waits for one peer, and in which order it is sent.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;

use super::super::limits::Limits;
use super::super::wire::{Frame, RawPeer, Reason, Token};
use super::registry::Conn;
use crate::base::bucket::Bucket;
use crate::base::queue;

/// What may wait for a peer beside relayed streams.
const CONTROL: queue::Limits = queue::Limits { messages: 256, bytes: 512 * 1024 };
/// Seconds of its rate that a peer may use at once.
const SIGNAL_BURST: u64 = 5;
/// What a peer may have been granted of its relay rate at once, at least, bytes.
const RATE_BURST: u64 = 256 * 1024;
/// Bytes that one stream sends before the next one has its turn.
const TURN: usize = 16 * 1024;
/// Data at least so long is kept as it came. Shorter data is copied, so that none keeps alive a buffer that is many times its
/// size, and joined up to here with what waits already: many short pieces would cost many times their bytes.
const KEPT_WHOLE: usize = 8 * 1024;

/// A registered peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) key: RawPeer,
    pub(super) ip: IpAddr,
    pub(super) control: queue::Queue<Frame>,
    pub(super) pong: Option<u64>,
    pub(super) signals: Bucket,
    rate: Bucket,
    pub(super) channels: HashMap<u32, Channel>,
    /// Streams with something to send to this peer, each once, in the order of their turns.
    ready: VecDeque<u32>,
    /// Streams on which this peer is to be told that it may send more, each once.
    owed: VecDeque<u32>,
    /// Bytes of streams that wait for it.
    pub(super) queued: usize,
    pub(super) goodbye: Option<Reason>,
}

/// One end of a relayed stream.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) other: RawPeer,
    pub(super) token: Token,
    /// What this end takes unread.
    pub(super) window: u32,
    pub(super) joined: Option<(Conn, u32)>,
    /// What this end may still send.
    pub(super) credit: u32,
    /// What it may send when it has been told so.
    pub(super) owed: u32,
    pub(super) finished: bool,
    /// Over: it only waits to say so.
    pub(super) dead: bool,
    /// For this end; until it is joined, from this end.
    pub(super) items: VecDeque<Item>,
    is_ready: bool,
    is_owed: bool,
}

/// What a stream carries.
#[derive(Debug)]
pub(super) enum Item {
    Data(Bytes),
    /// Short pieces, one after the other.
    Joined(Vec<u8>),
    Finish,
    Close(Reason),
}

impl Channel {
    pub(super) fn new(other: RawPeer, token: Token, window: u32, credit: u32) -> Self {
        Self {
            other,
            token,
            window,
            joined: None,
            credit,
            owed: 0,
            finished: false,
            dead: false,
            items: VecDeque::new(),
            is_ready: false,
            is_owed: false,
        }
    }

    /// Keeps what is to be sent.
    pub(super) fn push(&mut self, item: Item) {
        match (item, self.items.back_mut()) {
            (Item::Data(bytes), Some(Item::Joined(waiting))) if waiting.len() + bytes.len() <= KEPT_WHOLE => {
                waiting.extend_from_slice(&bytes);
            }
            (Item::Data(bytes), _) if bytes.len() < KEPT_WHOLE => self.items.push_back(Item::Joined(bytes.to_vec())),
            (item, _) => self.items.push_back(item),
        }
    }
}

impl Peer {
    pub(super) fn new(key: RawPeer, ip: IpAddr, limits: &Limits, now: Instant) -> Self {
        Self {
            key,
            ip,
            control: queue::Queue::new(CONTROL),
            pong: None,
            signals: Bucket::new(limits.signals, limits.signals * SIGNAL_BURST, now),
            rate: Bucket::new(limits.rate, (limits.rate / 4).max(RATE_BURST), now),
            channels: HashMap::new(),
            ready: VecDeque::new(),
            owed: VecDeque::new(),
            queued: 0,
            goodbye: None,
        }
    }

    /// Something waits on this stream.
    pub(super) fn make_ready(&mut self, number: u32) {
        if let Some(channel) = self.channels.get_mut(&number)
            && !std::mem::replace(&mut channel.is_ready, true)
        {
            self.ready.push_back(number);
        }
    }

    /// Forgets a stream, and the turn that it waits for: a flood of streams opened and closed leaves nothing behind.
    pub(super) fn remove(&mut self, number: u32) {
        let Some(channel) = self.channels.remove(&number) else { return };
        if channel.is_ready {
            self.ready.retain(|ready| *ready != number);
        }
        if channel.is_owed {
            self.owed.retain(|owed| *owed != number);
        }
    }

    /// Turns that are waited for.
    #[cfg(test)]
    pub(super) fn turns(&self) -> usize {
        self.ready.len() + self.owed.len()
    }

    /// The owner may send more on this stream.
    pub(super) fn owe(&mut self, number: u32, more: u32) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.owed = channel.owed.saturating_add(more);
            if !std::mem::replace(&mut channel.is_owed, true) {
                self.owed.push_back(number);
            }
        }
    }

    /// Writes what waits, up to about `budget` bytes: first what is not of streams, then the streams in turn. Returns
    /// how many bytes of streams were written, and when more may be granted.
    pub(super) fn transmit(&mut self, now: Instant, out: &mut Vec<u8>, budget: usize) -> (usize, Option<Instant>) {
        if let Some(number) = self.pong.take() {
            Frame::Pong(number).write(out);
        }
        while out.len() < budget
            && let Some(frame) = self.control.pop()
        {
            frame.write(out);
        }
        let again = self.grant(now, out);
        let mut relayed = 0;
        while out.len() < budget
            && let Some(number) = self.ready.pop_front()
        {
            relayed += self.turn(number, out);
        }
        self.queued -= relayed;
        (relayed, again)
    }

    fn grant(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Instant> {
        for _ in 0..self.owed.len() {
            let number = self.owed.pop_front()?;
            let Some(channel) = self.channels.get_mut(&number) else { continue };
            let most = if self.rate.is_unlimited() { u32::MAX } else { RATE_BURST as u32 };
            let more = channel.owed.min(most);
            if !self.rate.take(more.into(), now) {
                self.owed.push_front(number);
                return Some(self.rate.when(more.into(), now));
            }
            Frame::Window { channel: number, more }.write(out);
            channel.credit = channel.credit.saturating_add(more);
            channel.owed -= more;
            channel.is_owed = channel.owed > 0;
            if channel.is_owed {
                self.owed.push_back(number);
            }
        }
        (!self.owed.is_empty()).then_some(now)
    }

    /// One stream's turn.
    fn turn(&mut self, number: u32, out: &mut Vec<u8>) -> usize {
        let Some(channel) = self.channels.get_mut(&number) else { return 0 };
        let mut sent = 0;
        while sent < TURN {
            match channel.items.pop_front() {
                Some(Item::Data(bytes)) => {
                    sent += bytes.len();
                    Frame::Data { channel: number, bytes }.write(out);
                }
                Some(Item::Joined(bytes)) => {
                    sent += bytes.len();
                    Frame::Data { channel: number, bytes: bytes.into() }.write(out);
                }
                Some(Item::Finish) => Frame::Finish { channel: number }.write(out),
                Some(Item::Close(why)) => {
                    Frame::Close { channel: number, why }.write(out);
                    self.remove(number);
                    return sent;
                }
                None => break,
            }
        }
        channel.is_ready = !channel.items.is_empty();
        if channel.is_ready {
            self.ready.push_back(number);
        } else if channel.items.capacity() > 16 {
            channel.items.shrink_to_fit();
        }
        sent
    }
}
