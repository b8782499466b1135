//! Decides: frames out of a byte stream, however it is cut: a length of 32 bits, then that many bytes.

use bytes::{Bytes, BytesMut};

use super::envelope::Head;
use super::run::Run;

const LENGTH: usize = 4;
/// Room made before bytes have come, at most: a peer that only announces a length costs no more.
const ON_TRUST: usize = 1 << 18;

/// A frame was announced that is longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {announced} bytes; {limit} are the most")]
pub struct TooLong {
    /// The length that the peer announced.
    pub announced: usize,
    /// The most that is taken.
    pub limit: usize,
}

/// Takes reads, gives frames. A frame that lies within one read shares its memory.
#[derive(Debug)]
pub struct Frames {
    limit: usize,
    /// What was read and not looked at yet.
    rest: Bytes,
    /// The beginning of a frame that ends in a later read.
    begun: BytesMut,
}

impl Frames {
    /// Frames of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, rest: Bytes::new(), begun: BytesMut::new() }
    }

    /// The limit from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The whole messages that come next, if any do, as they stand in what was read. For
    /// everything else there is [`next`](Self::next).
    pub fn run(&mut self) -> Option<Run> {
        if self.begun.is_empty() {
            return Run::split(&mut self.rest, self.limit);
        }
        // What is wrong here is told by `next`.
        if !self.fill().unwrap_or(false) || Head::measure(&self.begun).is_none() {
            return None;
        }
        Run::split(&mut std::mem::take(&mut self.begun).freeze(), self.limit)
    }

    /// Takes what was read. Everything that was read before must have been asked for.
    pub fn push(&mut self, read: Bytes) {
        debug_assert!(self.rest.is_empty(), "frames are asked for until there is none");
        self.rest = read;
    }

    /// The next frame, without its length.
    ///
    /// # Errors
    /// [`TooLong`]; the stream can not be read on after it.
    #[allow(clippy::should_implement_trait, reason = "an iterator would end where this goes on after the next read")]
    pub fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        if !self.begun.is_empty() {
            return self.complete();
        }
        let Some(head) = self.rest.first_chunk::<LENGTH>() else { return Ok(self.begin(0)) };
        let len = self.check(u32::from_be_bytes(*head))?;
        if self.rest.len() < LENGTH + len {
            return Ok(self.begin(len));
        }
        let mut frame = self.rest.split_to(LENGTH + len);
        Ok(Some(frame.split_off(LENGTH)))
    }

    /// Bytes held of a frame that is not complete.
    pub fn held(&self) -> usize {
        self.begun.len() + self.rest.len()
    }

    fn check(&self, len: u32) -> Result<usize, TooLong> {
        let announced = len as usize;
        if announced > self.limit { Err(TooLong { announced, limit: self.limit }) } else { Ok(announced) }
    }

    /// Keeps what is left for the read that completes it.
    fn begin(&mut self, len: usize) -> Option<Bytes> {
        if !self.rest.is_empty() {
            self.begun.reserve((LENGTH + len).min(ON_TRUST.max(self.rest.len())));
            self.begun.extend_from_slice(&std::mem::take(&mut self.rest));
        }
        None
    }

    /// Takes what belongs to the frame that is begun. True when it is whole.
    fn fill(&mut self) -> Result<bool, TooLong> {
        self.take(LENGTH);
        let Some(head) = self.begun.first_chunk::<LENGTH>() else { return Ok(false) };
        let len = self.check(u32::from_be_bytes(*head))?;
        self.take(LENGTH + len);
        Ok(self.begun.len() == LENGTH + len)
    }

    fn complete(&mut self) -> Result<Option<Bytes>, TooLong> {
        if !self.fill()? {
            return Ok(None);
        }
        let mut frame = std::mem::take(&mut self.begun).freeze();
        Ok(Some(frame.split_off(LENGTH)))
    }

    /// Takes from what was read until `whole` bytes are there.
    fn take(&mut self, whole: usize) {
        let missing = whole.saturating_sub(self.begun.len()).min(self.rest.len());
        if self.begun.capacity() < whole {
            let room = whole.min(ON_TRUST.max(2 * (self.begun.len() + missing)));
            self.begun.reserve(room.saturating_sub(self.begun.len()));
        }
        self.begun.extend_from_slice(&self.rest.split_to(missing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(frames: &[&[u8]]) -> Vec<u8> {
        frames.iter().flat_map(|frame| [&(frame.len() as u32).to_be_bytes()[..], frame].concat()).collect()
    }

    fn read_in_pieces(bytes: &[u8], piece: usize) -> Vec<Bytes> {
        let (mut frames, mut got) = (Frames::new(1 << 20), Vec::new());
        for piece in bytes.chunks(piece) {
            frames.push(Bytes::copy_from_slice(piece));
            while let Some(frame) = frames.next().unwrap() {
                got.push(frame);
            }
        }
        assert_eq!(frames.held(), 0);
        got
    }

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let long = vec![7; 3000];
        let bytes = stream(&[b"one", b"", b"three", &long, b"x"]);
        for piece in [1, 2, 3, 5, 7, 64, 1000, 10_000] {
            assert_eq!(
                read_in_pieces(&bytes, piece),
                [&b"one"[..], b"", b"three", &long, b"x"],
                "in pieces of {piece}"
            );
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
        let mut frames = Frames::new(10);
        frames.push(Bytes::from_static(b"\xFF\xFF\xFF\xFF"));
        assert_eq!(frames.next(), Err(TooLong { announced: 0xFFFF_FFFF, limit: 10 }));
        let mut frames = Frames::new(10);
        frames.push(Bytes::from_static(b"\0\0"));
        assert_eq!(frames.next(), Ok(None));
        frames.push(Bytes::from_static(b"\0\x0B"));
        assert_eq!(frames.next(), Err(TooLong { announced: 11, limit: 10 }));
    }

    #[test]
    fn an_announced_length_costs_no_memory_before_bytes_come() {
        let mut frames = Frames::new(1 << 30);
        frames.push(Bytes::from_static(b"\x30\0\0\0x"));
        assert_eq!(frames.next(), Ok(None));
        assert!(frames.begun.capacity() <= ON_TRUST, "{}", frames.begun.capacity());
    }
}
