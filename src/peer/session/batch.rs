//! Decides: how records are written into a stream: long ones from where they are, short ones together.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::record::Record;

/// Payloads of at least so many bytes are written from where they are; shorter ones are put together.
const WHOLE: usize = 4 << 10;

/// Records on their way into a stream.
#[derive(Debug, Default)]
pub(super) struct Batch {
    parts: VecDeque<Bytes>,
    small: BytesMut,
    len: usize,
}

impl Batch {
    pub(super) fn push(&mut self, record: Record) {
        self.len += record.len();
        self.small.put_slice(&record.header());
        if record.payload.len() < WHOLE {
            self.small.put_slice(&record.payload);
            return;
        }
        self.close();
        self.parts.push_back(record.payload);
    }

    /// Nothing more is pushed before everything is written.
    pub(super) fn close(&mut self) {
        if !self.small.is_empty() {
            self.parts.push_back(self.small.split().freeze());
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, to: &mut [IoSlice<'a>]) -> usize {
        let slots = to.iter_mut().zip(&self.parts);
        slots.map(|(slot, part)| *slot = IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while count > 0 {
            let Some(front) = self.parts.front_mut() else { return };
            let taken = count.min(front.len());
            front.advance(taken);
            count -= taken;
            if front.is_empty() {
                self.parts.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Kind, MAX_PAYLOAD};
    use super::*;

    fn records() -> Vec<Record> {
        let of = |channel: u32, len: usize| Record::new(Kind::Data, channel, vec![channel as u8; len]);
        vec![of(1, 3), of(2, 0), of(3, WHOLE), of(4, 10), of(5, MAX_PAYLOAD), of(6, MAX_PAYLOAD), of(7, WHOLE - 1)]
    }

    #[test]
    fn records_are_written_as_they_stand_in_order_however_little_is_taken_at_a_time() {
        let mut plain = Vec::new();
        records().iter().for_each(|record| plain.extend([&record.header()[..], &record.payload].concat()));
        for step in [1, 7, 5000, usize::MAX] {
            let mut batch = Batch::default();
            records().into_iter().for_each(|record| batch.push(record));
            batch.close();
            let mut written = Vec::new();
            while batch.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = batch.chunks_vectored(&mut slices);
                let taken: Vec<u8> =
                    slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(step).collect();
                assert!(!taken.is_empty());
                written.extend_from_slice(&taken);
                batch.advance(taken.len());
            }
            assert!(written == plain, "{step}");
        }
    }
}
