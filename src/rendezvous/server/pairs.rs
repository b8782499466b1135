//! Decides: relayed streams: who meets whom, what may be sent, and what ends them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::wire::{FIRST_WINDOW, RawPeer, Reason, Token};
use super::peer::{Channel, Item};
use super::registry::{Conn, Meeting, Registry, Violation};

/// How long one end waits for the other to ask for the same stream.
const PATIENCE: Duration = Duration::from_secs(30);
/// The part of all buffered bytes that one peer may have.
const PEER_SHARE: usize = 16;

/// Streams whose other end has not been asked for yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_meeting: HashMap<Meeting, Wait>,
    /// By the numbers of the waits, and so in the order in which they end.
    until: BTreeMap<u64, (Instant, Meeting)>,
    last: u64,
    pub(super) swept: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    end: (Conn, u32),
    number: u64,
}

impl Waiting {
    /// False: one waits there already.
    fn add(&mut self, until: Instant, meeting: Meeting, end: (Conn, u32)) -> bool {
        let Entry::Vacant(vacant) = self.by_meeting.entry(meeting) else { return false };
        self.last += 1;
        vacant.insert(Wait { end, number: self.last });
        self.until.insert(self.last, (until, meeting));
        true
    }

    fn take(&mut self, meeting: &Meeting) -> Option<(Conn, u32)> {
        let wait = self.by_meeting.remove(meeting)?;
        self.until.remove(&wait.number);
        Some(wait.end)
    }

    fn forget(&mut self, meeting: &Meeting, end: (Conn, u32)) {
        if self.by_meeting.get(meeting).is_some_and(|wait| wait.end == end) {
            self.take(meeting);
        }
    }

    fn take_expired(&mut self, now: Instant) -> Option<(Conn, u32)> {
        let (_, (_, meeting)) = self.until.first_key_value().filter(|(_, (until, _))| *until <= now)?;
        let meeting = *meeting;
        self.take(&meeting)
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.until.len()
    }
}

impl Registry {
    pub(super) fn open(
        &mut self,
        now: Instant,
        from: Conn,
        number: u32,
        other: RawPeer,
        token: Token,
        window: u32,
    ) -> Result<(), Violation> {
        let total = self.counters.pairs as usize + self.waiting.by_meeting.len() / 2;
        let Some(peer) = self.peers.get_mut(&from) else { return Ok(()) };
        if window < FIRST_WINDOW {
            return Err(Violation("a window is too small"));
        }
        if peer.channels.contains_key(&number) {
            return Err(Violation("a stream's number is in use"));
        }
        let full = total >= self.limits.pairs || peer.channels.len() >= self.limits.pairs_per_peer;
        // What is over counts until it has been said: a flood of opens is held back by what waits for it.
        if peer.channels.len() >= 2 * self.limits.pairs_per_peer + 16 {
            return Err(Violation("too many streams are asked for"));
        }
        let key = peer.key;
        peer.channels.insert(number, Channel::new(other, token, window.min(self.limits.window), FIRST_WINDOW));
        if full || other == key {
            self.refuse(from, number, Reason::Busy);
        } else if !self.by_key.contains_key(&other) {
            self.refuse(from, number, Reason::NotThere);
        } else if let Some(first) = self.waiting.take(&(other, key, token)) {
            self.join(first, (from, number));
        } else if !self.waiting.add(now + PATIENCE, (key, other, token), (from, number)) {
            self.refuse(from, number, Reason::Violation);
        }
        Ok(())
    }

    /// Ends the waits that have lasted too long.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((conn, number)) = self.waiting.take_expired(now) {
            self.refuse(conn, number, Reason::NotThere);
        }
    }

    fn join(&mut self, first: (Conn, u32), second: (Conn, u32)) {
        let held = self.link(first, second);
        self.link(second, first);
        self.counters.pairs += 1;
        self.counters.pairs_joined += 1;
        let bytes: usize = held.iter().map(Item::len).sum();
        if let Some(peer) = self.peers.get_mut(&first.0) {
            peer.queued -= bytes;
        }
        if let Some(peer) = self.peers.get_mut(&second.0) {
            peer.queued += bytes;
            if let Some(channel) = peer.channels.get_mut(&second.1) {
                channel.items = held;
            }
            peer.make_ready(second.1);
        }
        for ((conn, number), other) in [(first, second), (second, first)] {
            let window = self.channel(other).map_or(FIRST_WINDOW, |channel| channel.window);
            if let Some(peer) = self.peers.get_mut(&conn) {
                peer.owe(number, window - FIRST_WINDOW);
            }
            self.wakes.push(conn);
        }
    }

    /// Makes one end know the other. Gives what it had sent so far.
    fn link(&mut self, end: (Conn, u32), other: (Conn, u32)) -> VecDeque<Item> {
        match self.channel(end) {
            Some(channel) => {
                channel.joined = Some(other);
                std::mem::take(&mut channel.items)
            }
            None => VecDeque::new(),
        }
    }

    fn channel(&mut self, (conn, number): (Conn, u32)) -> Option<&mut Channel> {
        self.peers.get_mut(&conn)?.channels.get_mut(&number)
    }

    pub(super) fn data(&mut self, now: Instant, from: Conn, number: u32, bytes: Bytes) {
        let (limits, len) = (self.limits.buffer, bytes.len());
        // What is on its way while a stream ends is not the sender's fault.
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let ip = peer.ip;
        let Some(channel) = peer.channels.get_mut(&number).filter(|channel| !channel.dead) else { return };
        if channel.finished || channel.credit < len as u32 {
            return self.break_off(from, number, Reason::Violation);
        }
        channel.credit -= len as u32;
        let to = channel.joined;
        if !self.accounts.spend(now, ip, len) {
            return self.break_off(from, number, Reason::Quota);
        }
        let Some(holder) = self.peers.get_mut(&to.map_or(from, |(conn, _)| conn)) else { return };
        if self.counters.buffered as usize + len > limits || holder.queued + len > limits / PEER_SHARE {
            return self.break_off(from, number, Reason::Busy);
        }
        holder.queued += len;
        self.counters.buffered += len as u64;
        self.pass_on(from, number, Item::Data(bytes));
    }

    /// To the other end, or kept until it comes.
    fn pass_on(&mut self, from: Conn, number: u32, item: Item) {
        let Some(channel) = self.channel((from, number)) else { return };
        let Some((conn, theirs)) = channel.joined else {
            channel.push(item);
            return;
        };
        if let Some(other) = self.channel((conn, theirs)) {
            other.push(item);
        }
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.make_ready(theirs);
            self.wakes.push(conn);
        }
    }

    pub(super) fn window(&mut self, from: Conn, number: u32, more: u32) {
        let most = self.limits.window;
        let Some((conn, theirs)) = self.channel((from, number)).and_then(|channel| channel.joined) else { return };
        let Some(sender) = self.channel((conn, theirs)) else { return };
        if u64::from(sender.credit) + u64::from(sender.owed) + u64::from(more) > u64::from(most) {
            return self.break_off(from, number, Reason::Violation);
        }
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.owe(theirs, more);
            self.wakes.push(conn);
        }
    }

    pub(super) fn finish(&mut self, from: Conn, number: u32) {
        let Some(channel) = self.channel((from, number)).filter(|channel| !channel.dead) else { return };
        if !std::mem::replace(&mut channel.finished, true) {
            self.pass_on(from, number, Item::Finish);
        }
    }

    /// An end has closed its stream. What it had sent before still reaches the other.
    pub(super) fn close(&mut self, from: Conn, number: u32, why: Reason) {
        let done = if why == Reason::Done { Reason::Done } else { Reason::Gone };
        self.end_other((from, number), done);
        self.drop_channel(from, number);
    }

    /// The server ends a stream, and tells both ends.
    fn break_off(&mut self, conn: Conn, number: u32, why: Reason) {
        let theirs = if why == Reason::Violation { Reason::Gone } else { why };
        self.end_other((conn, number), theirs);
        self.refuse(conn, number, why);
    }

    /// Tells one end alone that its stream is over.
    fn refuse(&mut self, conn: Conn, number: u32, why: Reason) {
        if why != Reason::NotThere {
            self.counters.pairs_refused += 1;
        }
        self.take_items(conn, number);
        if let Some(channel) = self.channel((conn, number)) {
            channel.dead = true;
            channel.push(Item::Close(why));
        }
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.make_ready(number);
            self.wakes.push(conn);
        }
    }

    /// The other end's stream is over when it has got what was sent before.
    fn end_other(&mut self, end: (Conn, u32), why: Reason) {
        let key = self.key_of(end.0);
        let Some(channel) = self.channel(end) else { return };
        let meeting = key.map(|key| (key, channel.other, channel.token));
        let Some((conn, theirs)) = channel.joined.take() else {
            if let Some(meeting) = meeting {
                self.waiting.forget(&meeting, end);
            }
            return;
        };
        self.counters.pairs -= 1;
        if let Some(other) = self.channel((conn, theirs)) {
            other.joined = None;
            other.dead = true;
            other.push(Item::Close(why));
        }
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.make_ready(theirs);
            self.wakes.push(conn);
        }
    }

    /// Throws away what waits in a stream.
    fn take_items(&mut self, conn: Conn, number: u32) {
        let Some(channel) = self.channel((conn, number)) else { return };
        let bytes: usize = std::mem::take(&mut channel.items).iter().map(Item::len).sum();
        self.counters.buffered -= bytes as u64;
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.queued -= bytes;
        }
    }

    fn drop_channel(&mut self, conn: Conn, number: u32) {
        self.take_items(conn, number);
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.remove(number);
        }
    }

    /// A peer leaves, and its streams with it.
    pub(super) fn forget_channels(&mut self, conn: Conn) {
        let Some(peer) = self.peers.get(&conn) else { return };
        let numbers: Vec<u32> = peer.channels.keys().copied().collect();
        for number in numbers {
            self.end_other((conn, number), Reason::Gone);
            self.drop_channel(conn, number);
        }
    }
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::Joined(bytes) => bytes.len(),
            Self::Finish | Self::Close(_) => 0,
        }
    }
}
