//! Decides: a session: channels over numbered records over whichever path the caller chose last.
//!
//! Input goes in by `handle_*`, and by what the channels' owners do; output comes from `poll_transmit`
//! (bytes for one path), `poll_event` and `poll_timeout`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use super::ProtocolError;
use super::buffers::Buffers;
use super::channels::{Channel, ChannelKind, Next};
use super::lane::{Incoming, Outgoing};
use super::path::{Can, Hello, Path, PathId, SessionId};
use super::record::{Kind, MAX_PAYLOAD, Record};
use super::twins::Twins;

/// Channels that may be open at once, opened by either end.
const CHANNELS: usize = 512;

/// Bytes given to the lane ahead of the path: more would make a new channel wait behind them.
const AHEAD: usize = 256 << 10;

/// The standing of a path through a server; others are better.
pub(crate) const RELAYED: u8 = 2;

/// What several paths to one peer are used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Multipath {
    /// One path carries everything; others are kept to go to when it dies.
    #[default]
    Off,
    /// The bytes of streams take all paths that do not lead through a server, each as much as it takes without a queue. Both ends
    /// have to want it, since the receiving one holds what comes before its turn: up to 17 MiB. Datagrams take one path.
    Throughput,
    /// Each datagram takes two paths, and the first copy counts: the loss of one path, or on one, costs nothing. Streams take one.
    /// Each end decides for what it sends.
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

/// Which numbered records a path takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The next ones.
    Next,
    /// Those of a path that was in use before, and goes on while another one catches up.
    Before,
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
    pub(super) role: Role,
    pub(super) session: SessionId,
    pub(super) since: Instant,
    pub(super) epoch: u32,
    pub(super) paths: BTreeMap<PathId, Path>,
    pub(super) active: Option<PathId>,
    /// The path that goes on until the one in use has caught up with it, and until when at most. It may then be the only one that has
    /// some of what is on its way.
    pub(super) before: Option<(PathId, Instant)>,
    /// What the other end can do.
    pub(super) theirs: Can,
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    /// What is known to the other end only after an `Ack` goes out.
    ack_now: bool,
    pub(super) buffers: Buffers,
    /// When those that nobody wanted were given back.
    pub(super) rested: Instant,
    channels: BTreeMap<u32, Channel>,
    next_channel: u32,
    /// The highest channel that the other end has opened.
    highest_theirs: u32,
    opened: VecDeque<u32>,
    /// Channels that have something to say, in the order in which they may.
    ready: VecDeque<u32>,
    pub(super) events: VecDeque<Event>,
    closing: bool,
    close_said: bool,
    close_heard: bool,
    pub(super) greeted: bool,
    /// When the batch that goes out began.
    batch: Instant,
    pub(super) multipath: Multipath,
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
            before: None,
            theirs: Can::default(),
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            ack_now: false,
            buffers: Buffers::default(),
            rested: now,
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

    /// True when bytes take several paths alike, which both ends want.
    pub(super) fn spreads(&self) -> bool {
        self.multipath == Multipath::Throughput && self.theirs.spread()
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
            path.pulse.handle_busy(now, false);
            path.handle_numbered(record.len());
            self.incoming.hold(number, record)?;
            while let Some(record) = self.incoming.poll_due() {
                self.handle_numbered(record)?;
            }
            self.incoming.count(now);
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
            Kind::At => (path.number, path.is_told) = (record.number()?, record.channel == Kind::TELL),
            Kind::Came => path.handle_came(&record, now)?,
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
        // Each is answered, and the answers are kept.
        if self.outgoing.is_flooded() {
            return Err(ProtocolError::Unread);
        }
        if self.channels.len() >= CHANNELS || self.closing {
            self.outgoing.push(Record::new(Kind::Stop, id, Bytes::new()));
            self.outgoing.push(Record::new(Kind::Finish, id, Bytes::new()));
            return Ok(());
        }
        self.channels.insert(id, Channel::new(kind, self.buffers.clone()));
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
        self.channels.insert(id, Channel::new(kind, self.buffers.clone()));
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
        self.paths.get_mut(&way).is_some_and(|path| !full && path.say_datagram(record))
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

    /// Whether numbered records go on this path, and which.
    fn turn(&self, id: PathId, path: &Path) -> Option<Turn> {
        if self.outgoing.is_handing_over() && self.before.is_some_and(|(before, _)| before == id) {
            return Some(Turn::Before);
        }
        let one_of_several = || self.spreads() && path.is_usable() && !path.awaiting && path.standing < RELAYED;
        let carries = self.active == Some(id) || one_of_several();
        // What went before the other end was asked to tell what comes is yet to be told of.
        let is_full = self.is_measured() && path.wants_telling && path.flow.is_full();
        (carries && !is_full).then_some(Turn::Next)
    }

    /// True when a path is given only what it takes without a queue: another one takes the rest.
    fn is_measured(&self) -> bool {
        self.spreads() || self.outgoing.is_handing_over()
    }

    /// True when a batch would say something on this path; an acknowledgement alone waits for company, and not for long.
    pub(crate) fn has_output(&self, id: PathId) -> bool {
        let Some(path) = self.paths.get(&id) else { return false };
        let kept = |turn| match turn {
            Turn::Next => self.outgoing.next_number().is_some(),
            Turn::Before => self.outgoing.next_number_before().is_some(),
        };
        let lane = |turn| kept(turn) || (!self.ready.is_empty() && !self.outgoing.is_full());
        path.has_control()
            || self.turn(id, path).is_some_and(lane)
            || (self.active == Some(id) && (self.incoming.ack_is_due() || self.must_say_close()))
    }

    /// The next record for this path.
    pub(crate) fn poll_transmit(&mut self, id: PathId) -> Option<Record> {
        let path = self.paths.get_mut(&id)?;
        if let Some(record) = path.poll_control() {
            return Some(record);
        }
        if self.active == Some(id)
            && std::mem::take(&mut self.ack_now)
            && let Some(expected) = self.incoming.take_ack()
        {
            return Some(Record::new(Kind::Ack, 0, expected.to_be_bytes().to_vec()));
        }
        let turn = self.turn(id, self.paths.get(&id)?)?;
        self.fill_lane();
        let number = match turn {
            Turn::Next => self.outgoing.next_number()?,
            Turn::Before => self.outgoing.next_number_before()?,
        };
        let (wants, tells) = (turn == Turn::Next && self.is_measured(), self.theirs.tell());
        let remember = self.spreads() || (self.multipath == Multipath::Throughput && !self.greeted);
        let path = self.paths.get_mut(&id)?;
        path.pulse.handle_busy(self.batch, true);
        if tells && (path.out != Some(number) || path.wants_telling != wants) {
            (path.out, path.wants_telling) = (Some(number), wants);
            let told = if wants { Kind::TELL } else { 0 };
            return Some(Record::new(Kind::At, told, number.to_be_bytes().to_vec()));
        }
        let record = match turn {
            Turn::Next => self.outgoing.poll_transmit()?,
            Turn::Before => self.outgoing.poll_transmit_before()?,
        };
        path.handle_sent(number, record.len(), remember, self.batch);
        Some(record)
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

    // ---- end

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
