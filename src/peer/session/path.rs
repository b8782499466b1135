//! Decides: what a session knows of one of its paths: its greeting and its count.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ProtocolError;
use super::pulse::Pulse;
use super::record::{Kind, Record};

/// Answers that wait for the path to take them; a peer that asks faster gets no more.
const CONTROL: usize = 64;

const VERSION: u8 = 1;

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
}

impl Hello {
    pub(crate) fn to_record(self) -> Record {
        let mut payload = Vec::with_capacity(37);
        payload.push(VERSION);
        payload.extend_from_slice(&self.session.0);
        payload.extend_from_slice(&self.epoch.to_be_bytes());
        payload.extend_from_slice(&self.expected.to_be_bytes());
        payload.extend_from_slice(&self.from.to_be_bytes());
        Record::new(Kind::Hello, 0, payload)
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
    /// The other end spreads its records over paths, this one among them.
    pub(crate) is_one_of_several: bool,
    /// Bytes of numbered records that came on it since something was said of them there.
    pub(crate) unsaid: usize,
    /// Numbered records went on it, and it was not given up since.
    pub(crate) is_used: bool,
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
            is_used: false,
            is_one_of_several: false,
            unsaid: 0,
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

    pub(crate) fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    pub(crate) fn poll_control(&mut self) -> Option<Record> {
        self.control.pop_front()
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
