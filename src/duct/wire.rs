//! Decides: where messages begin and end: `54`, a length in four bytes (big-endian), the payload.
//!
//! [`Incoming`] is given bytes and yields payloads; [`Outgoing`] is given messages and yields bytes.

use std::error::Error;
use std::io;

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The first byte of each message.
pub(crate) const MAGIC: u8 = 0x54;
/// The magic byte and the length.
pub(crate) const HEADER: usize = 5;
/// Room for a read on a quiet duct.
const LEAST: usize = 16 << 10;
/// Room for a read on a busy duct: a read that fills its room doubles the next one's up to here.
const MOST: usize = 64 << 10;
/// A read has room for a message as long as the last one, unless that was longer than this.
const ALIKE: usize = 256 << 10;
/// What is missing of a message is read alone from here on, so that the next one begins in an empty buffer.
const ALONE: usize = 4 << 10;
/// What a buffer may keep once a giant message has gone through it.
const KEPT: usize = 1 << 20;
/// Written bytes that may stand in front of those that are yet to be written.
const SLACK: usize = 64 << 10;

/// Why nothing more can be received. It stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A message began with another byte than the magic one: nobody knows where the next one begins.
    Magic(u8),
    /// A message is announced that is longer than the limit.
    TooLong(usize),
    /// The other end is gone; `inside`: in the middle of a message.
    Ended { inside: bool },
    /// The system's word.
    Broken(io::ErrorKind),
}

/// Bytes that came in and are not yet taken as messages.
#[derive(Debug)]
pub(crate) struct Incoming {
    buf: BytesMut,
    limit: usize,
    room: usize,
    /// The length of the last message, as far as the next is likely to be alike.
    last: usize,
    fault: Option<Fault>,
    /// How many bytes were taken since the beginning.
    taken: u64,
}

impl Incoming {
    pub(crate) fn new(limit: usize) -> Self {
        Self { buf: BytesMut::new(), limit, room: LEAST, last: 0, fault: None, taken: 0 }
    }

    /// Where a read goes. A message gets room as it comes, whatever length it announces.
    pub(crate) fn room(&mut self) -> Limit<&mut BytesMut> {
        let missing = self.announced().map_or(0, |len| (HEADER + len).saturating_sub(self.buf.len()));
        let room = match missing {
            ALONE.. => missing.min(self.buf.len().max(self.room)),
            _ => self.room.max(self.last),
        };
        if self.buf.is_empty() && self.buf.capacity() > KEPT {
            self.buf = BytesMut::new();
        }
        self.buf.reserve(room);
        (&mut self.buf).limit(room)
    }

    /// A read has put `n` bytes where it had room for `room`.
    pub(crate) fn handle_read(&mut self, n: usize, room: usize) {
        match n {
            0 => self.handle_fault(Fault::Ended { inside: false }),
            _ if n >= room => self.room = (self.room * 2).min(MOST),
            _ => {}
        }
    }

    /// Nothing more will come. What came stands and is received first; the first fault is the one that is told.
    pub(crate) fn handle_fault(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// The length of the payload that is whole, or why none will ever be.
    pub(crate) fn poll_message(&mut self) -> Result<Option<usize>, Fault> {
        match self.buf.first() {
            Some(&MAGIC) | None => {}
            Some(&other) => return Err(*self.fault.insert(Fault::Magic(other))),
        }
        match self.announced() {
            Some(len) if len > self.limit => Err(*self.fault.insert(Fault::TooLong(len))),
            Some(len) if self.buf.len() >= HEADER + len => Ok(Some(len)),
            _ => self.fault.map_or(Ok(None), |fault| Err(self.told(fault))),
        }
    }

    /// The end is in the middle of a message when a part of one is left.
    fn told(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Ended { .. } => Fault::Ended { inside: !self.buf.is_empty() },
            other => other,
        }
    }

    /// The first message, whole according to [`poll_message`](Self::poll_message). It is gone when this is dropped.
    pub(crate) fn first(&mut self, len: usize) -> First<'_> {
        First { incoming: self, len }
    }

    /// Takes the first payload out, without a copy.
    pub(crate) fn take(&mut self, len: usize) -> Bytes {
        self.handle_taken(len);
        self.buf.advance(HEADER);
        self.buf.split_to(len).freeze()
    }

    fn handle_taken(&mut self, len: usize) {
        self.taken += (HEADER + len) as u64;
        self.last = if len > ALIKE { 0 } else { HEADER + len };
    }

    /// How many bytes were taken as messages.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// How many bytes have come.
    pub(crate) fn come(&self) -> u64 {
        self.taken + self.buf.len() as u64
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    fn announced(&self) -> Option<usize> {
        let len = self.buf.get(1..HEADER)?;
        Some(u32::from_be_bytes(len.try_into().ok()?) as usize)
    }
}

/// The first of the messages that came.
pub(crate) struct First<'a> {
    incoming: &'a mut Incoming,
    len: usize,
}

impl First<'_> {
    pub(crate) fn payload(&self) -> &[u8] {
        &self.incoming.buf[HEADER..HEADER + self.len]
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        self.incoming.handle_taken(self.len);
        self.incoming.buf.advance(HEADER + self.len);
    }
}

/// Why a message was not taken for sending.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Its payload is longer than the limit.
    TooLong(usize),
    /// The codec's word.
    Encode(Box<dyn Error + Send + Sync>),
}

/// Bytes that are yet to be written.
#[derive(Debug)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    /// How many of them are written.
    at: usize,
    limit: usize,
    /// How many bytes were written since the beginning, and up to which one they are messages whose senders wait no more.
    written: u64,
    sent: u64,
}

impl Outgoing {
    /// The limit is in bytes of a payload; the wire itself can say no more than 4 GiB.
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), at: 0, limit: limit.min(u32::MAX as usize), written: 0, sent: 0 }
    }

    /// Puts a message behind the others; returns where it begins, for [`take_back`](Self::take_back).
    pub(crate) fn handle_message(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), Box<dyn Error + Send + Sync>>,
    ) -> Result<usize, Refused> {
        self.forget_written();
        let begun = Begun { start: self.bytes.len(), bytes: &mut self.bytes, whole: false };
        begun.bytes.extend_from_slice(&[MAGIC, 0, 0, 0, 0]);
        encode(begun.bytes).map_err(Refused::Encode)?;
        begun.complete(self.limit)
    }

    /// Puts only the header of a message behind the others, for a payload that is written from where it is.
    pub(crate) fn handle_header(&mut self, len: usize) -> Result<usize, Refused> {
        if len > self.limit {
            return Err(Refused::TooLong(len));
        }
        self.forget_written();
        let start = self.bytes.len();
        self.bytes.push(MAGIC);
        self.bytes.extend_from_slice(&(len as u32).to_be_bytes());
        Ok(start)
    }

    /// What was left of a payload behind its header.
    pub(crate) fn handle_rest(&mut self, rest: &[u8]) {
        self.bytes.extend_from_slice(rest);
    }

    /// The senders of all that is to be written are told that it is sent.
    pub(crate) fn handle_sent(&mut self) {
        self.sent = self.written + self.len() as u64;
    }

    /// Whether something is to be written whose sender was told so.
    pub(crate) fn owes(&self) -> bool {
        self.written < self.sent
    }

    /// What is to be written next.
    pub(crate) fn poll_transmit(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// How many bytes that is.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// `n` bytes of [`poll_transmit`](Self::poll_transmit) are written.
    pub(crate) fn handle_written(&mut self, n: usize) {
        self.at += n;
        self.written += n as u64;
        if self.is_empty() {
            self.at = 0;
            self.bytes.clear();
            self.bytes.shrink_to(KEPT);
        }
    }

    /// Takes back the last message, which begins at `start`, unless a part of it is written.
    pub(crate) fn take_back(&mut self, start: usize) -> bool {
        let whole = self.at <= start && start < self.bytes.len();
        if whole {
            self.bytes.truncate(start);
            self.handle_written(0);
        }
        whole
    }

    fn forget_written(&mut self) {
        if self.at > SLACK {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
    }
}

/// A message that is being encoded. It goes away again, also when the codec panics, unless it becomes whole.
struct Begun<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
    whole: bool,
}

impl Begun<'_> {
    fn complete(mut self, limit: usize) -> Result<usize, Refused> {
        let payload = self.start + HEADER;
        // A codec that took away what stood before it has broken its word.
        let len = self.bytes.len().checked_sub(payload).ok_or_else(|| Refused::Encode("no payload".into()))?;
        if len > limit {
            return Err(Refused::TooLong(len));
        }
        self.bytes[self.start + 1..payload].copy_from_slice(&(len as u32).to_be_bytes());
        self.whole = true;
        Ok(self.start)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.whole {
            self.bytes.truncate(self.start);
        }
    }
}

#[cfg(test)]
#[path = "tests/wire.rs"]
mod tests;
