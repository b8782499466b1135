//! Decides: frames out of a byte stream, however it is cut: a length of 32 bits, then that many bytes.

use bytes::{Bytes, BytesMut};

use super::run::Run;

const LENGTH: usize = 4;
/// Room made before bytes have come, at most: a peer that only announces a length costs no more.
const ON_TRUST: usize = 1 << 18;
/// Room for small frames, many to one read.
const ROOM: usize = 64 << 10;
/// Room behind a large frame: the head of the next one comes with it.
const BEHIND: usize = 21;
/// After a read of so much, the next one gets a buffer beforehand.
const BULK: usize = 16 << 10;

/// A frame was announced that is longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {announced} bytes; {limit} are the most")]
pub struct TooLong {
    /// The length that the peer announced.
    pub announced: usize,
    /// The most that is taken.
    pub limit: usize,
}

/// Takes what is read, gives frames, which share its memory. A large frame is read straight into
/// memory of its own size.
#[derive(Debug)]
pub struct Frames {
    limit: usize,
    buffer: BytesMut,
    bulk: bool,
}

impl Frames {
    /// Frames of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, buffer: BytesMut::new(), bulk: false }
    }

    /// The limit from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes what was read elsewhere.
    pub fn push(&mut self, read: Bytes) {
        self.handle_read(read.len());
        if self.buffer.is_empty() {
            self.buffer = read.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        } else {
            self.buffer.extend_from_slice(&read);
        }
    }

    /// True when the next read should go straight into [`buffer`](Self::buffer): a frame is begun, or
    /// much comes. A connection that waits for a word otherwise holds no memory.
    pub fn wants_buffer(&self) -> bool {
        self.bulk || !self.buffer.is_empty()
    }

    /// Where to append what is read: it has room for the rest of the frame that is begun.
    pub fn buffer(&mut self) -> &mut BytesMut {
        let (len, room) = (self.buffer.len(), self.buffer.capacity() - self.buffer.len());
        let wanted = match self.whole() {
            Ok(Some(whole)) if whole > ROOM / 2 => (whole + BEHIND).min(ON_TRUST.max(2 * len)),
            _ => ROOM,
        };
        let suffices = match self.whole() {
            Ok(Some(whole)) => whole <= len + room,
            _ => room >= ROOM / 4,
        };
        if !suffices {
            self.buffer.reserve(wanted.saturating_sub(len));
        } else if room == 0 {
            self.buffer.reserve(ROOM);
        }
        &mut self.buffer
    }

    /// So much was read into the buffer.
    pub fn handle_read(&mut self, bytes: usize) {
        self.bulk = bytes >= BULK;
    }

    /// The size of the frame that the buffer begins with, its length included.
    fn whole(&self) -> Result<Option<usize>, TooLong> {
        let Some(head) = self.buffer.first_chunk::<LENGTH>() else { return Ok(None) };
        let announced = u32::from_be_bytes(*head) as usize;
        if announced > self.limit {
            Err(TooLong { announced, limit: self.limit })
        } else {
            Ok(Some(LENGTH + announced))
        }
    }

    /// The whole messages that come next, if any do, as they stand in what was read. For
    /// everything else there is [`next`](Self::next).
    pub fn run(&mut self) -> Option<Run> {
        Run::split(&mut self.buffer, self.limit)
    }

    /// The next frame, without its length.
    ///
    /// # Errors
    /// [`TooLong`]; the stream can not be read on after it.
    #[allow(clippy::should_implement_trait, reason = "an iterator would end where this goes on after the next read")]
    pub fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        let Some(whole) = self.whole()?.filter(|whole| *whole <= self.buffer.len()) else { return Ok(None) };
        let mut frame = self.buffer.split_to(whole).freeze();
        Ok(Some(frame.split_off(LENGTH)))
    }

    /// Lets go of the memory when nothing is in it and little comes.
    pub fn rest(&mut self) {
        if !self.wants_buffer() {
            self.buffer = BytesMut::new();
        }
    }

    /// Bytes held of a frame that is not complete.
    pub fn held(&self) -> usize {
        self.buffer.len()
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
        assert!(frames.buffer().capacity() <= ON_TRUST, "{}", frames.buffer().capacity());
    }
}
