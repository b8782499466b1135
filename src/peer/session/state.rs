//! Decides: a session: channels over numbered records over whichever path the caller chose last.
//!
//! Input goes in by `handle_*`, and by what the channels' owners do; output comes from `poll_transmit`
//! (bytes for one path), `poll_event` and `poll_timeout`.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::ProtocolError;
use super::channels::{Channel, ChannelKind, Next};
use super::lane::{Incoming, Outgoing};
use super::path::{Hello, Path, PathId, SessionId};
use super::record::{Kind, MAX_PAYLOAD, Record};
use super::twins::Twins;

/// Channels that may be open at once, opened by either end.
const CHANNELS: usize = 512;

/// Bytes given to the lane ahead of the path: more would make a new channel wait behind them.
const AHEAD: usize = 256 << 10;

/// Bytes that come on a path beside the one in use before they are acknowledged there.
const ANSWER_AFTER: usize = 32 << 10;

/// Paths beside the one in use that are kept to go back to.
const SPARE: usize = 2;

/// Paths that an answerer keeps: a caller keeps fewer, and opens few at a time.
const KEPT: usize = 8;

/// A better path that was in doubt is gone back to when it has been well for this long.
const STEADY: Duration = Duration::from_secs(2);

/// The standing of a path through a server; others are better.
pub(crate) const RELAYED: u8 = 2;

/// What several paths to one peer are used for. Each end decides for what it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Multipath {
    /// One path carries everything; others are kept to go to when it dies.
    #[default]
    Off,
    /// The bytes of streams take all paths that do not lead through a server, each as much as it takes. It is not offered yet: in
    /// virtual time nothing is lost, but on a loaded machine it has stalled.
    #[cfg(test)]
    Throughput,
    /// Each datagram takes two paths, and the first copy counts: the loss of one path, or on one, costs nothing. Streams take one.
    Duplicate,
}

/// Which end a session's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The one that used the ticket; it chooses the path.
    Caller,
    /// The one that made it.
    Answerer,
}

/// What the driver should know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Something may be read from this channel, or it has ended.
    Readable(u32),
    /// The channel may take more, or its other end reads no more.
    Writable(u32),
    /// The other end has opened a channel.
    Opened,
    /// From now on everything goes over this path.
    Active(PathId),
    /// The path is dead, or one too many.
    Over(PathId),
    /// The path in use says nothing any more, and there is no other to go to.
    Ailing,
    /// The other end has said everything and is gone.
    Closed,
}

#[derive(Debug)]
pub(crate) struct State {
    role: Role,
    session: SessionId,
    since: Instant,
    epoch: u32,
    paths: BTreeMap<PathId, Path>,
    active: Option<PathId>,
    outgoing: Outgoing,
    incoming: Incoming,
    /// What is known to the other end only after an `Ack` goes out.
    ack_now: bool,
    channels: BTreeMap<u32, Channel>,
    next_channel: u32,
    /// The highest channel that the other end has opened.
    highest_theirs: u32,
    opened: VecDeque<u32>,
    /// Channels that have something to say, in the order in which they may.
    ready: VecDeque<u32>,
    events: VecDeque<Event>,
    closing: bool,
    close_said: bool,
    close_heard: bool,
    greeted: bool,
    /// When the batch that goes out began.
    batch: Instant,
    multipath: Multipath,
    /// The next datagram that goes several ways.
    next_twin: u64,
    twins: Twins,
}

impl State {
    pub(crate) fn new(role: Role, session: SessionId, now: Instant) -> Self {
        Self {
            role,
            session,
            since: now,
            epoch: 0,
            paths: BTreeMap::new(),
            active: None,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            ack_now: false,
            channels: BTreeMap::new(),
            next_channel: if role == Role::Caller { 1 } else { 2 },
            highest_theirs: 0,
            opened: VecDeque::new(),
            ready: VecDeque::new(),
            events: VecDeque::new(),
            closing: false,
            close_said: false,
            close_heard: false,
            greeted: false,
            batch: now,
            multipath: Multipath::Off,
            next_twin: 0,
            twins: Twins::default(),
        }
    }

    /// What several paths are used for.
    pub(crate) fn with_multipath(self, multipath: Multipath) -> Self {
        Self { multipath, ..self }
    }

    fn spreads(&self) -> bool {
        #[cfg(test)]
        return self.multipath == Multipath::Throughput;
        #[cfg(not(test))]
        false
    }

    // ---- paths

    /// An authenticated path to the other end; `standing` says how good it is, smaller is better. The caller's wish is to use it
    /// from now on; the first one is used at once, a later one when the other end has greeted.
    pub(crate) fn attach(&mut self, id: PathId, standing: u8, now: Instant) {
        if self.paths.len() >= KEPT {
            let oldest =
                self.paths.iter().filter(|(id, _)| self.active != Some(**id)).min_by_key(|(_, path)| path.epoch);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.give_up(oldest);
                self.events.push_back(Event::Over(oldest));
            }
        }
        self.paths.insert(id, Path::new(standing, now));
        if self.role == Role::Caller {
            self.choose(id, now);
            if self.epoch == 1 {
                self.active = Some(id);
                self.events.push_back(Event::Active(id));
            }
        }
    }

    /// The caller's wish, from now on.
    fn choose(&mut self, id: PathId, now: Instant) {
        let Some(mut path) = self.paths.remove(&id) else { return };
        self.epoch += 1;
        path.epoch = self.epoch;
        path.awaiting = true;
        self.greet(&mut path, 0, now);
        self.paths.insert(id, path);
    }

    fn greet(&self, path: &mut Path, from: u64, now: Instant) {
        let expected = self.incoming.expected();
        // What the other end still has to say from an earlier time on this path comes before its greeting.
        if !path.greeted || self.role == Role::Answerer {
            path.number = expected;
        }
        path.out = None;
        path.say(Hello { session: self.session, epoch: path.epoch, expected, from }.to_record());
        path.ask(now, self.since);
    }

    /// The path is gone.
    pub(crate) fn detach(&mut self, id: PathId, now: Instant) {
        self.give_up(id);
        if self.active == Some(id) {
            self.active = None;
        }
        self.reconsider(now);
    }

    /// What was on its way there goes by the others.
    fn give_up(&mut self, id: PathId) {
        if self.paths.remove(&id).is_some_and(|path| path.is_used) && self.spreads() {
            self.outgoing.again();
        }
    }

    pub(crate) fn active(&self) -> Option<PathId> {
        self.active
    }

    /// True when this path says nothing any more.
    pub(crate) fn is_doubted(&self, id: PathId) -> bool {
        self.paths.get(&id).is_some_and(|path| path.pulse.is_doubted())
    }

    pub(crate) fn rtt(&self, id: PathId) -> Option<Duration> {
        self.paths.get(&id)?.pulse.rtt()
    }

    fn handle_hello(&mut self, id: PathId, hello: Hello, now: Instant) -> Result<(), ProtocolError> {
        let Some(mut path) = self.paths.remove(&id) else { return Ok(()) };
        let due = match self.role {
            Role::Caller => path.awaiting && hello.epoch == path.epoch,
            Role::Answerer => !path.greeted || hello.epoch > path.epoch,
        };
        if hello.session != self.session || !due {
            return Err(ProtocolError::Greeting);
        }
        let known = std::mem::replace(&mut path.greeted, true);
        path.awaiting = false;
        self.greeted = true;
        let wanted = match self.role {
            // The one in use stays so until a later one is greeted, be that the last or not.
            Role::Caller => self
                .active
                .filter(|active| *active != id)
                .and_then(|active| self.paths.get(&active))
                .is_none_or(|p| p.epoch < path.epoch),
            Role::Answerer => hello.epoch > self.epoch,
        };
        if self.role == Role::Answerer {
            path.epoch = hello.epoch;
            self.epoch = self.epoch.max(hello.epoch);
            self.greet(&mut path, self.outgoing.resumes_from(hello.expected), now);
        }
        if self.role == Role::Caller || !wanted && !known {
            path.number = hello.from;
        }
        self.paths.insert(id, path);
        if wanted {
            return self.switch(id, hello.expected);
        }
        // A later one was greeted sooner: this one is kept to go back to.
        self.spare_few();
        Ok(())
    }

    /// Everything goes over this path from now on, from what the other end expects. The one before is kept to go back to.
    fn switch(&mut self, id: PathId, expected: u64) -> Result<(), ProtocolError> {
        if self.active == Some(id) {
            // The first path, used before it was greeted: all of it is on the way already.
            return self.handle_ack(expected);
        }
        let before = self.active.and_then(|active| self.paths.get(&active));
        let goes_on = self.spreads() && before.is_some_and(Path::is_usable);
        self.active = Some(id);
        self.events.push_back(Event::Active(id));
        self.spare_few();
        self.incoming.resume();
        // The path before still carries what was given to it.
        if goes_on { self.handle_ack(expected) } else { self.outgoing.resume(expected) }
    }

    fn handle_ack(&mut self, expected: u64) -> Result<(), ProtocolError> {
        if self.spreads() { self.outgoing.handle_ack_of_any(expected) } else { self.outgoing.handle_ack(expected) }
    }

    /// Gives up what is one too many to keep: paths that are in doubt first, then those that were in use longest ago; the last
    /// resort is kept.
    fn spare_few(&mut self) {
        let spare = |(id, path): &(&PathId, &Path)| path.greeted && !path.awaiting && Some(**id) != self.active;
        let spares: Vec<(PathId, (bool, u8, u32))> = self
            .paths
            .iter()
            .filter(spare)
            .map(|(id, path)| (*id, (path.is_usable(), path.standing, path.epoch)))
            .collect();
        if self.role != Role::Caller || spares.len() <= SPARE {
            return;
        }
        if let Some((id, _)) = spares.into_iter().min_by_key(|(_, worth)| *worth) {
            self.give_up(id);
            self.events.push_back(Event::Over(id));
        }
    }

    /// Chooses another path where the one in use, or the one that was chosen last, says nothing any more, and goes back to a
    /// better one that is well again. The answerer, which can not choose, says that it doubts.
    fn reconsider(&mut self, now: Instant) {
        if !self.greeted {
            return;
        }
        let last = match self.role {
            Role::Caller => self.paths.iter().max_by_key(|(_, path)| path.epoch).map(|(id, _)| *id),
            Role::Answerer => self.active,
        };
        let last = last.filter(|id| self.active == Some(*id) || self.paths.get(id).is_some_and(|path| path.awaiting));
        let at = last.and_then(|id| self.paths.get(&id));
        let (heard, well, standing) = at
            .map_or((None, false, u8::MAX), |path| (Some(path.pulse.heard()), !path.pulse.is_doubted(), path.standing));
        let better = |path: &Path| match well {
            true => path.standing < standing && now >= path.pulse.steady() + STEADY,
            false => heard.is_none_or(|heard| path.pulse.heard() > heard),
        };
        let others = self.paths.iter().filter(|(id, path)| Some(**id) != last && path.is_usable() && better(path));
        let best =
            others.min_by_key(|(_, path)| (path.standing, std::cmp::Reverse(path.pulse.heard()))).map(|(id, _)| *id);
        match (self.role, best) {
            (Role::Caller, Some(id)) => self.choose(id, now),
            (Role::Answerer, Some(id)) if !well => {
                if let Some(path) = self.paths.get_mut(&id) {
                    path.say(Record::new(Kind::Doubt, 0, Bytes::new()));
                }
            }
            _ => {}
        }
    }

    /// The other end does not hear us on the path in use, and hears us on this one.
    fn handle_doubt(&mut self, id: PathId, now: Instant) {
        let chosen = self.paths.values().any(|path| path.awaiting);
        if chosen || self.active == Some(id) {
            return;
        }
        if let Some(path) = self.active.and_then(|active| self.paths.get_mut(&active)) {
            path.pulse.handle_blamed(now);
        }
        self.choose(id, now);
    }

    /// The machine's network is another one: every path is asked whether it lives.
    pub(crate) fn handle_change(&mut self, now: Instant) {
        for path in self.paths.values_mut() {
            path.ask(now, self.since);
        }
    }

    // ---- records

    /// A record that came on a path.
    ///
    /// # Errors
    /// What the protocol does not allow; the path is of no use any more.
    pub(crate) fn handle_record(&mut self, id: PathId, record: Record, now: Instant) -> Result<(), ProtocolError> {
        let Some(path) = self.paths.get_mut(&id) else { return Ok(()) };
        path.pulse.handle_heard(now);
        if record.kind == Kind::Hello {
            return self.handle_hello(id, Hello::from_record(&record)?, now);
        }
        if !path.greeted {
            return Err(ProtocolError::OutOfPlace(record.kind));
        }
        if record.kind.is_numbered() {
            let number = path.number;
            path.number += 1;
            path.pulse.handle_busy(now, false);
            path.unsaid += record.len();
            self.incoming.hold(number, record)?;
            while let Some(record) = self.incoming.poll_due() {
                self.handle_numbered(record)?;
            }
            self.answer_beside(id);
            return Ok(());
        }
        match record.kind {
            Kind::Ping => path.handle_ping(record.payload),
            Kind::Pong => {
                path.handle_pong(&record, now, self.since)?;
                self.reconsider(now);
            }
            Kind::Doubt if self.role == Role::Caller => self.handle_doubt(id, now),
            Kind::Ack => return self.handle_ack(record.number()?),
            Kind::At => (path.number, path.is_one_of_several) = (record.number()?, true),
            Kind::Datagram => self.handle_datagram(record.channel, record.payload),
            Kind::Twin => {
                let (number, _) = record.payload.split_first_chunk::<8>().ok_or(ProtocolError::Length(Kind::Twin))?;
                if self.twins.is_new(u64::from_be_bytes(*number)) {
                    self.handle_datagram(record.channel, record.payload.slice(8..));
                }
            }
            other => return Err(ProtocolError::OutOfPlace(other)),
        }
        Ok(())
    }

    /// What comes on a path beside the one in use is acknowledged there as well, or the other end would hear nothing on it and
    /// doubt it while it is full.
    fn answer_beside(&mut self, id: PathId) {
        let expected = self.incoming.expected();
        let beside = self.active != Some(id);
        let path = self.paths.get_mut(&id).filter(|path| beside && path.is_one_of_several);
        if let Some(path) = path.filter(|path| path.unsaid >= ANSWER_AFTER) {
            path.unsaid = 0;
            path.say(Record::new(Kind::Ack, 0, expected.to_be_bytes().to_vec()));
        }
    }

    fn handle_numbered(&mut self, record: Record) -> Result<(), ProtocolError> {
        let id = record.channel;
        match record.kind {
            Kind::Open => return self.handle_open(&record),
            Kind::Close => {
                self.handle_close();
                return Ok(());
            }
            _ => {}
        }
        let Some(channel) = self.channels.get_mut(&id) else {
            // It was open once, and is over on this side.
            let known = if self.is_ours(id) { id < self.next_channel } else { id <= self.highest_theirs };
            return if known { Ok(()) } else { Err(ProtocolError::OutOfPlace(record.kind)) };
        };
        match record.kind {
            Kind::Data => {
                if channel.handle_data(id, record.payload)? {
                    self.events.push_back(Event::Readable(id));
                }
            }
            Kind::Finish => {
                channel.handle_finish();
                self.events.push_back(Event::Readable(id));
            }
            Kind::Stop => {
                channel.handle_stop();
                self.events.push_back(Event::Writable(id));
            }
            Kind::Window => channel.handle_window(record.number()?),
            other => return Err(ProtocolError::OutOfPlace(other)),
        }
        self.settle(id);
        Ok(())
    }

    /// The other end is gone, having said everything: what came can still be read.
    fn handle_close(&mut self) {
        self.close_heard = true;
        for (id, channel) in &mut self.channels {
            channel.handle_finish();
            channel.handle_stop();
            self.events.extend([Event::Readable(*id), Event::Writable(*id)]);
        }
        self.events.push_back(Event::Closed);
    }

    fn handle_open(&mut self, record: &Record) -> Result<(), ProtocolError> {
        let id = record.channel;
        let kind = match record.payload[..] {
            [byte] => ChannelKind::from_byte(byte).ok_or(ProtocolError::Length(Kind::Open))?,
            _ => return Err(ProtocolError::Length(Kind::Open)),
        };
        if id == 0 || self.is_ours(id) || id <= self.highest_theirs {
            return Err(ProtocolError::OutOfPlace(Kind::Open));
        }
        self.highest_theirs = id;
        if self.channels.len() >= CHANNELS || self.closing {
            self.outgoing.push(Record::new(Kind::Stop, id, Bytes::new()));
            self.outgoing.push(Record::new(Kind::Finish, id, Bytes::new()));
            return Ok(());
        }
        self.channels.insert(id, Channel::new(kind));
        self.opened.push_back(id);
        self.events.push_back(Event::Opened);
        Ok(())
    }

    fn is_ours(&self, id: u32) -> bool {
        id % 2 == if self.role == Role::Caller { 1 } else { 0 }
    }

    /// A datagram that came on its own, or in a record.
    pub(crate) fn handle_datagram(&mut self, id: u32, data: Bytes) {
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| channel.kind == ChannelKind::Datagram) else {
            // It may have overtaken the record that opens its channel.
            return;
        };
        channel.handle_datagram(data);
        self.events.push_back(Event::Readable(id));
    }

    // ---- channels

    /// A new channel; `None` when there are too many, or the session is over.
    pub(crate) fn open(&mut self, kind: ChannelKind) -> Option<u32> {
        if self.channels.len() >= CHANNELS || self.closing || self.close_heard {
            return None;
        }
        let id = self.next_channel;
        self.next_channel = id.checked_add(2)?;
        self.channels.insert(id, Channel::new(kind));
        self.outgoing.push(Record::new(Kind::Open, id, vec![kind.to_byte()]));
        Some(id)
    }

    /// The next channel that the other end has opened.
    pub(crate) fn accept(&mut self) -> Option<(u32, ChannelKind)> {
        let id = self.opened.pop_front()?;
        let kind = self.channels.get(&id)?.kind;
        Some((id, kind))
    }

    pub(crate) fn channel(&self, id: u32) -> Option<&Channel> {
        self.channels.get(&id)
    }

    /// Takes some of `data`; 0 when the channel takes nothing now.
    pub(crate) fn write(&mut self, id: u32, data: &[u8]) -> usize {
        let Some(channel) = self.channels.get_mut(&id) else { return 0 };
        let taken = channel.write(data);
        self.settle(id);
        taken
    }

    pub(crate) fn finish(&mut self, id: u32) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.finish();
        }
        self.settle(id);
    }

    /// The next bytes or datagram of a channel.
    pub(crate) fn read(&mut self, id: u32) -> Option<Bytes> {
        let channel = self.channels.get_mut(&id)?;
        let data = channel.read()?;
        if let Some(more) = channel.take_window() {
            self.outgoing.push(Record::new(Kind::Window, id, more.to_be_bytes().to_vec()));
        }
        Some(data)
    }

    /// The channel's pipe is gone.
    pub(crate) fn release(&mut self, id: u32) {
        if self.channels.get_mut(&id).is_some_and(Channel::release) {
            self.outgoing.push(Record::new(Kind::Stop, id, Bytes::new()));
        }
        self.settle(id);
    }

    /// A datagram as it goes out, and by which paths: the one in use, and another one where each is to take two.
    pub(crate) fn datagram(&mut self, id: u32, data: &[u8]) -> (Record, Vec<PathId>) {
        let mut ways: Vec<PathId> = self.active.into_iter().collect();
        let fits = data.len() + 8 <= MAX_PAYLOAD;
        if self.multipath == Multipath::Duplicate && fits {
            let others = self.paths.iter().filter(|(id, path)| self.active != Some(**id) && path.is_usable());
            ways.extend(others.min_by_key(|(_, path)| (path.standing, path.pulse.rtt())).map(|(id, _)| *id));
        }
        if ways.len() < 2 {
            return (Record::new(Kind::Datagram, id, Bytes::copy_from_slice(data)), ways);
        }
        let number = self.next_twin;
        self.next_twin += 1;
        (Record::new(Kind::Twin, id, [&number.to_be_bytes(), data].concat()), ways)
    }

    /// A datagram between the records of a path that has none of its own. False when it was dropped, since a datagram does not
    /// wait.
    pub(crate) fn send_datagram_in_order(&mut self, way: PathId, record: Record) -> bool {
        let full = self.outgoing.waiting() >= AHEAD;
        match self.paths.get_mut(&way) {
            Some(path) if !full => path.say(record),
            _ => return false,
        }
        true
    }

    /// Puts a channel in line when it has something to say, and forgets one that is over.
    fn settle(&mut self, id: u32) {
        let Some(channel) = self.channels.get(&id) else { return };
        if channel.is_over() {
            self.channels.remove(&id);
        } else if channel.has_something_to_say() && !self.ready.contains(&id) {
            self.ready.push_back(id);
        }
    }

    // ---- output

    /// Before a batch of [`poll_transmit`](Self::poll_transmit): what was received is acknowledged with it.
    pub(crate) fn begin_batch(&mut self, now: Instant) {
        self.ack_now = true;
        self.batch = now;
    }

    /// A datagram goes by this path, past the records.
    pub(crate) fn handle_datagram_sent(&mut self, way: PathId, now: Instant) {
        if let Some(path) = self.paths.get_mut(&way) {
            path.pulse.handle_busy(now, false);
        }
    }

    /// True when numbered records go on this path.
    fn carries(&self, id: PathId, path: &Path) -> bool {
        self.active == Some(id) || (self.spreads() && path.is_usable() && !path.awaiting && path.standing < RELAYED)
    }

    /// True when a batch would say something on this path; an acknowledgement alone waits for company,
    /// or for `ack_is_due`.
    pub(crate) fn has_output(&self, id: PathId) -> bool {
        let Some(path) = self.paths.get(&id) else { return false };
        let lane = || self.outgoing.waiting() > 0 || (!self.ready.is_empty() && !self.outgoing.is_full());
        path.has_control()
            || (self.carries(id, path) && lane())
            || (self.active == Some(id) && (self.incoming.ack_is_due() || self.must_say_close()))
    }

    /// True when received records wait for an acknowledgement.
    pub(crate) fn owes_ack(&self) -> bool {
        self.incoming.owes_ack()
    }

    /// The next record for this path.
    pub(crate) fn poll_transmit(&mut self, id: PathId) -> Option<Record> {
        let path = self.paths.get_mut(&id)?;
        if let Some(record) = path.poll_control() {
            return Some(record);
        }
        let path = self.paths.get(&id)?;
        if !self.carries(id, path) {
            return None;
        }
        if self.active == Some(id)
            && std::mem::take(&mut self.ack_now)
            && let Some(expected) = self.incoming.take_ack()
        {
            return Some(Record::new(Kind::Ack, 0, expected.to_be_bytes().to_vec()));
        }
        self.fill_lane();
        if self.outgoing.waiting() == 0 {
            return None;
        }
        let (number, spreads, path) = (self.outgoing.next_number(), self.spreads(), self.paths.get_mut(&id)?);
        path.pulse.handle_busy(self.batch, true);
        path.is_used = true;
        if spreads && path.out != Some(number) {
            path.out = Some(number);
            return Some(Record::new(Kind::At, 0, number.to_be_bytes().to_vec()));
        }
        path.out = Some(number + 1);
        self.outgoing.poll_transmit()
    }

    /// Lets the channels that are ready say something in turn, one record each.
    fn fill_lane(&mut self) {
        while self.outgoing.waiting() < AHEAD && !self.outgoing.is_full() {
            let Some(id) = self.ready.pop_front() else { break };
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            match channel.next() {
                Next::Data(data) => {
                    self.outgoing.push(Record::new(Kind::Data, id, data));
                    if channel.has_room() {
                        self.events.push_back(Event::Writable(id));
                    }
                }
                Next::Finish => self.outgoing.push(Record::new(Kind::Finish, id, Bytes::new())),
                Next::Nothing => {}
            }
            self.settle(id);
        }
        if self.must_say_close() {
            self.close_said = true;
            self.outgoing.push(Record::new(Kind::Close, 0, Bytes::new()));
        }
    }

    fn must_say_close(&self) -> bool {
        self.closing && !self.close_said && self.ready.is_empty() && !self.channels.values().any(Channel::has_unsent)
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    // ---- time and end

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.paths.values().map(|path| path.pulse.poll_timeout()).min()
    }

    /// Asks quiet paths, doubts silent ones, and gives up dead ones.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let since = self.since;
        let (mut dead, mut doubted, mut lost) = (Vec::new(), false, false);
        for (id, path) in &mut self.paths {
            if path.pulse.is_dead(now) {
                dead.push(*id);
                continue;
            }
            let begins = path.pulse.handle_doubt(now);
            doubted |= begins && self.active == Some(*id);
            // What it was given goes by the others.
            lost |= begins && std::mem::take(&mut path.is_used);
            if path.pulse.wants_asking(now) {
                path.ask(now, since);
                // Whoever is asked in vain is not the only one to be asked.
                doubted |= self.active == Some(*id) && path.pulse.is_doubted();
            }
        }
        if lost && self.spreads() {
            self.outgoing.again();
        }
        for id in dead {
            self.detach(id, now);
            self.events.push_back(Event::Over(id));
        }
        if doubted {
            self.handle_ailing(now);
        }
        self.reconsider(now);
    }

    /// The path in use says nothing: the others are asked, and one that answers is gone to.
    fn handle_ailing(&mut self, now: Instant) {
        for (id, path) in &mut self.paths {
            if self.active != Some(*id) && !path.pulse.is_doubted() {
                path.ask(now, self.since);
            }
        }
        self.events.push_back(Event::Ailing);
    }

    /// Says everything that is yet to be said, and then goodbye.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        let ids: Vec<u32> = self.channels.keys().copied().collect();
        ids.into_iter().for_each(|id| self.release(id));
    }

    /// True when both ends know that it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.close_heard || (self.close_said && self.outgoing.is_empty())
    }

    /// True once the other end has greeted, on whichever path: it takes part.
    pub(crate) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Appends a record to a buffer as it stands on the path.
    pub(crate) fn write_record(record: &Record, to: &mut BytesMut) {
        to.put_slice(&record.header());
        to.put_slice(&record.payload);
    }
}
