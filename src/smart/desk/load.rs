//! Decides: what a connection has taken to write, and how far it has come.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use crate::smart::protocol::Head;

/// Whole frames.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// Small ones, one after another.
    Packed(Pack),
    /// One that others send as well.
    Shared(Bytes),
    /// A large one: its head, and the payload as it was given.
    Large(Head, Bytes),
}

/// Small frames in one buffer; those before `start` were dropped.
#[derive(Debug, Default)]
pub(crate) struct Pack {
    bytes: Vec<u8>,
    start: usize,
    messages: usize,
    /// Bytes of payload.
    payload: usize,
}

impl Pack {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Frames that carry no message.
    pub(super) fn of_control(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Bytes in it, those that were dropped counted.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Drops the first message. Returns its bytes of payload.
    pub(super) fn drop_first(&mut self) -> Option<usize> {
        let (whole, payload) = measure(self.left())?;
        self.start += whole;
        self.messages -= 1;
        self.payload -= payload;
        Some(payload)
    }

    fn left(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    pub(super) fn push(&mut self, head: Head, payload: &[u8]) {
        self.bytes.extend_from_slice(head.as_slice());
        self.bytes.extend_from_slice(payload);
        self.messages += 1;
        self.payload += payload.len();
    }
}

impl Chunk {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Packed(pack) => pack.left().len(),
            Self::Shared(frame) => frame.len(),
            Self::Large(head, payload) => head.as_slice().len() + payload.len(),
        }
    }

    /// Its bytes, in one or two parts.
    pub(crate) fn parts(&self) -> [&[u8]; 2] {
        match self {
            Self::Packed(pack) => [pack.left(), &[]],
            Self::Shared(frame) => [frame, &[]],
            Self::Large(head, payload) => [head.as_slice(), payload],
        }
    }

    /// Messages in it, and bytes of payload.
    pub(super) fn census(&self) -> (usize, usize) {
        match self {
            Self::Packed(pack) => (pack.messages, pack.payload),
            Self::Shared(frame) => (1, measure(frame).map_or(0, |(_, payload)| payload)),
            Self::Large(_, payload) => (1, payload.len()),
        }
    }

    /// Messages in it that nobody acknowledges.
    pub(super) fn unasked(&self) -> usize {
        let [mut left, _] = self.parts();
        if let Self::Large(..) = self {
            return usize::from(!Head::asks_ack(left));
        }
        let mut count = 0;
        while let Some((whole, _)) = measure(left) {
            count += usize::from(!Head::asks_ack(left));
            left = left.get(whole..).unwrap_or_default();
        }
        count
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Packed(pack) => Bytes::from(pack.bytes).slice(pack.start..),
            Self::Shared(frame) => frame,
            Self::Large(head, payload) => [head.as_slice(), &payload].concat().into(),
        }
    }
}

/// What a connection has taken to write, in order.
#[derive(Debug, Default)]
pub(crate) struct Load {
    chunks: VecDeque<Chunk>,
    /// The place of its first message.
    first: u64,
    /// Chunks that are written, and bytes of the next one.
    done: usize,
    part: usize,
}

impl Load {
    /// Begins anew, with the place of the first message.
    pub(super) fn begin(&mut self, first: u64) {
        *self = Self { chunks: std::mem::take(&mut self.chunks), first, done: 0, part: 0 };
        self.chunks.clear();
    }

    pub(super) fn push(&mut self, chunk: Chunk) {
        self.chunks.push_back(chunk);
    }

    /// What is written before all messages: HELLO.
    pub(crate) fn of_control(bytes: Vec<u8>) -> Self {
        Self { chunks: [Chunk::Packed(Pack::of_control(bytes))].into(), ..Self::default() }
    }

    pub(crate) fn is_written(&self) -> bool {
        self.done == self.chunks.len()
    }

    /// What is next, as much as one system call takes. Returns how many parts there are.
    pub(crate) fn parts<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let (mut at, mut skip) = (0, self.part);
        for chunk in self.chunks.iter().skip(self.done) {
            for part in chunk.parts() {
                let left = part.get(skip..).unwrap_or_default();
                skip = skip.saturating_sub(part.len());
                if left.is_empty() {
                    continue;
                }
                let Some(place) = into.get_mut(at) else { return at };
                *place = IoSlice::new(left);
                at += 1;
            }
        }
        at
    }

    /// So many bytes were written.
    pub(crate) fn handle_written(&mut self, bytes: usize) {
        self.part += bytes;
        while let Some(len) = self.chunks.get(self.done).map(Chunk::len).filter(|len| *len <= self.part) {
            self.part -= len;
            self.done += 1;
        }
    }

    /// The place of the first message, bytes that are written, and all chunks.
    pub(super) fn into_rest(self) -> (u64, usize, VecDeque<Chunk>) {
        let written = self.chunks.iter().take(self.done).map(Chunk::len).sum::<usize>() + self.part;
        (self.first, written, self.chunks)
    }
}

/// The size of the first frame, and of the payload in it.
pub(super) fn measure(frames: &[u8]) -> Option<(usize, usize)> {
    let len = u32::from_be_bytes(*frames.first_chunk()?) as usize;
    Some((4 + len, len - Head::extra(frames).min(len)))
}
