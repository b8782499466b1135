//! Decides: what a session knows of one of its paths: its greeting and its count.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ProtocolError;
use super::flow::Flow;
use super::pulse::Pulse;
use super::record::{Kind, Record};

/// Words that wait for the path to take them; a peer that asks faster gets no more answers.
const CONTROL: usize = 96;

/// Datagrams wait only behind fewer, so that there is always room for the path's own words.
const DATAGRAMS: usize = 64;

/// Bytes that come on a path before the other end is told, where it wants to be.
const TELL_AFTER: usize = 32 << 10;

const VERSION: u8 = 1;

/// What an end can do beyond version 1, in the place of a greeting's channel, which older ends leave at zero and do not look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Can(pub(crate) u32);

impl Can {
    /// It takes records with their numbers in any order, and says what came on a path.
    pub(crate) const TELL: u32 = 1;
    /// It wants bytes to take several paths at once, both ways.
    pub(crate) const SPREAD: u32 = 2;

    pub(crate) fn tell(self) -> bool {
        self.0 & Self::TELL > 0
    }

    pub(crate) fn spread(self) -> bool {
        self.0 & Self::SPREAD > 0 && self.tell()
    }
}

/// The name of a path within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PathId(pub(crate) u64);

/// Names a session at both ends, whatever path its records come on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) [u8; 16]);

/// The first record on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) session: SessionId,
    /// Counts the paths that the caller wants to use, so that the last word is known at both ends.
    pub(crate) epoch: u32,
    /// The number of the record that is expected next.
    pub(crate) expected: u64,
    /// The number of the first record that comes on this path. It is later than the one that the other end expected when it
    /// greeted, where acknowledgements on another path were faster than the greeting.
    pub(crate) from: u64,
    pub(crate) can: Can,
}

impl Hello {
    pub(crate) fn to_record(self) -> Record {
        let mut payload = Vec::with_capacity(37);
        payload.push(VERSION);
        payload.extend_from_slice(&self.session.0);
        payload.extend_from_slice(&self.epoch.to_be_bytes());
        payload.extend_from_slice(&self.expected.to_be_bytes());
        payload.extend_from_slice(&self.from.to_be_bytes());
        Record::new(Kind::Hello, self.can.0, payload)
    }

    pub(crate) fn from_record(record: &Record) -> Result<Self, ProtocolError> {
        if record.kind != Kind::Hello {
            return Err(ProtocolError::OutOfPlace(record.kind));
        }
        let (version, rest) = record.payload.split_first().ok_or(ProtocolError::Greeting)?;
        let (session, rest) = rest.split_first_chunk::<16>().ok_or(ProtocolError::Greeting)?;
        let (epoch, rest) = rest.split_first_chunk::<4>().ok_or(ProtocolError::Greeting)?;
        let (expected, rest) = rest.split_first_chunk::<8>().ok_or(ProtocolError::Greeting)?;
        let from = <[u8; 8]>::try_from(rest).map_err(|_| ProtocolError::Greeting)?;
        if *version != VERSION {
            return Err(ProtocolError::Greeting);
        }
        Ok(Self {
            session: SessionId(*session),
            epoch: u32::from_be_bytes(*epoch),
            expected: u64::from_be_bytes(*expected),
            from: u64::from_be_bytes(from),
            can: Can(record.channel),
        })
    }
}

#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) epoch: u32,
    /// The number of the next numbered record that comes on this path.
    pub(crate) number: u64,
    pub(crate) greeted: bool,
    /// Our greeting was not answered yet.
    pub(crate) awaiting: bool,
    /// The number that the other end gives to the next numbered record that goes on this path, where it is known.
    pub(crate) out: Option<u64>,
    /// The other end wants to know what comes here.
    pub(crate) is_told: bool,
    /// We have said that we want to.
    pub(crate) wants_telling: bool,
    /// Bytes of numbered records that came.
    came: u64,
    /// Those of them that the other end was not told of.
    unsaid: usize,
    /// Bytes of numbered records that went, and how many may follow.
    pub(crate) flow: Flow,
    /// The numbers of those that have not come yet, each with where its bytes end; only where several paths are used alike.
    on: VecDeque<(u64, u64)>,
    /// How good it is beside others; smaller is better.
    pub(crate) standing: u8,
    pub(crate) pulse: Pulse,
    control: VecDeque<Record>,
}

impl Path {
    pub(crate) fn new(standing: u8, now: Instant) -> Self {
        Self {
            epoch: 0,
            number: 0,
            greeted: false,
            awaiting: false,
            out: None,
            is_told: false,
            wants_telling: false,
            came: 0,
            unsaid: 0,
            flow: Flow::default(),
            on: VecDeque::new(),
            standing,
            pulse: Pulse::new(now),
            control: VecDeque::new(),
        }
    }

    /// Queues what concerns this path only.
    pub(crate) fn say(&mut self, record: Record) {
        if self.control.len() < CONTROL {
            self.control.push_back(record);
        }
    }

    /// Queues a datagram; false when too much waits.
    pub(crate) fn say_datagram(&mut self, record: Record) -> bool {
        let has_room = self.control.len() < DATAGRAMS;
        if has_room {
            self.control.push_back(record);
        }
        has_room
    }

    pub(crate) fn has_control(&self) -> bool {
        !self.control.is_empty() || self.is_to_be_told()
    }

    pub(crate) fn poll_control(&mut self) -> Option<Record> {
        if self.control.is_empty() && self.is_to_be_told() {
            self.unsaid = 0;
            return Some(Record::new(Kind::Came, 0, self.came.to_be_bytes().to_vec()));
        }
        self.control.pop_front()
    }

    /// The other end waits for word of what came here.
    fn is_to_be_told(&self) -> bool {
        self.is_told && self.unsaid >= TELL_AFTER
    }

    /// A numbered record came.
    pub(crate) fn handle_numbered(&mut self, bytes: usize) {
        // The other end may say any number.
        self.number = self.number.wrapping_add(1);
        self.came += bytes as u64;
        self.unsaid = self.unsaid.saturating_add(bytes);
    }

    /// A numbered record goes; with `remember` it is known to be on this path until it came.
    pub(crate) fn handle_sent(&mut self, number: u64, bytes: usize, remember: bool, now: Instant) {
        self.out = Some(number + 1);
        self.flow.handle_sent(bytes, now);
        if remember {
            self.on.push_back((number, self.flow.sent()));
        }
    }

    /// The other end says how much has come.
    pub(crate) fn handle_came(&mut self, record: &Record, now: Instant) -> Result<(), ProtocolError> {
        let came = record.number()?;
        if !self.flow.handle_came(came, self.pulse.least(), now) {
            return Err(ProtocolError::Ack { expected: came, sent: self.flow.sent() });
        }
        while self.on.front().is_some_and(|(_, end)| *end <= came) {
            self.on.pop_front();
        }
        Ok(())
    }

    /// What is on the way here can not be counted on any more: its numbers.
    pub(crate) fn take_lost(&mut self) -> impl Iterator<Item = u64> + use<> {
        std::mem::take(&mut self.on).into_iter().map(|(number, _)| number)
    }

    /// A question of the other end.
    pub(crate) fn handle_ping(&mut self, payload: Bytes) {
        self.say(Record::new(Kind::Pong, 0, payload));
    }

    /// An answer to ours. `since` is what the times on the wire count from.
    pub(crate) fn handle_pong(&mut self, record: &Record, now: Instant, since: Instant) -> Result<(), ProtocolError> {
        let asked = Duration::from_micros(record.number()?);
        self.pulse.handle_rtt(now.saturating_duration_since(since).saturating_sub(asked));
        Ok(())
    }

    pub(crate) fn ask(&mut self, now: Instant, since: Instant) {
        self.pulse.handle_asked(now);
        let micros = u64::try_from(now.saturating_duration_since(since).as_micros()).unwrap_or(u64::MAX);
        self.say(Record::new(Kind::Ping, 0, micros.to_be_bytes().to_vec()));
    }

    /// True when everything could go this way.
    pub(crate) fn is_usable(&self) -> bool {
        self.greeted && !self.pulse.is_doubted()
    }
}
