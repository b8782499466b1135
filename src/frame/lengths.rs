//! Decides: messages as a big-endian `u32` length and so many bytes, however the stream is cut.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The bytes of a length.
pub const LENGTH_BYTES: usize = 4;
/// Memory that an empty decoder keeps; what a large message needed beyond it is given back.
const KEPT: usize = 16 << 10;

/// A length that may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a message of {length} bytes is over the limit of {limit}; the other end must send smaller ones, or the limit be raised"
)]
pub struct TooLong {
    /// The length that was announced, or given to [`encode`].
    pub length: usize,
    /// The most that is allowed.
    pub limit: usize,
}

impl From<TooLong> for std::io::Error {
    fn from(error: TooLong) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Appends `payload` with its length in front.
///
/// # Errors
/// [`TooLong`] when it is longer than `limit` or than a `u32` can say; nothing is appended then.
pub fn encode(payload: &[u8], limit: usize, out: &mut BytesMut) -> Result<(), TooLong> {
    out.reserve(LENGTH_BYTES + payload.len());
    out.put_u32(length(payload.len(), limit)?);
    out.put_slice(payload);
    Ok(())
}

/// The length as it stands on the wire.
///
/// # Errors
/// [`TooLong`] when it is longer than `limit` or than a `u32` can say.
pub fn length(length: usize, limit: usize) -> Result<u32, TooLong> {
    let limit = limit.min(u32::MAX as usize);
    if length > limit {
        return Err(TooLong { length, limit });
    }
    // It is no more than u32::MAX.
    Ok(length as u32)
}

/// Cuts a stream into messages. Memory follows the bytes that have come, not those that were announced.
///
/// ```
/// use natpipe::frame::lengths::Decoder;
///
/// let mut decoder = Decoder::new(100);
/// decoder.handle_bytes(b"\0\0\0\x02h");
/// assert_eq!(decoder.poll_message(), Ok(None));
/// decoder.handle_bytes(b"i\0\0\0\0");
/// assert_eq!(decoder.poll_message().unwrap().unwrap(), "hi");
/// assert_eq!(decoder.poll_message().unwrap().unwrap(), "");
/// ```
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    limit: usize,
}

impl Decoder {
    /// A decoder that takes payloads of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit }
    }

    /// Takes bytes of the stream.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message. To be called until it gives `None`, which means that more bytes are needed.
    ///
    /// # Errors
    /// [`TooLong`] when the next message is announced as longer than the limit; it stays so.
    pub fn poll_message(&mut self) -> Result<Option<Bytes>, TooLong> {
        let Some(header) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*header) as usize;
        if length > self.limit {
            return Err(TooLong { length, limit: self.limit });
        }
        if self.buffer.len() - LENGTH_BYTES < length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let message = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }

    /// True when the stream may end here: it is not within a message.
    pub fn is_between_messages(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Where bytes can be read to directly, instead of [`handle_bytes`](Self::handle_bytes).
    pub(crate) fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_wherever_the_stream_is_cut() {
        let messages: [&[u8]; 4] = [b"one", b"", b"three", &[7; 300]];
        let mut stream = BytesMut::new();
        messages.iter().for_each(|message| encode(message, 300, &mut stream).unwrap());
        for cut in 1..stream.len() {
            let mut decoder = Decoder::new(300);
            let mut out = Vec::new();
            for part in stream.chunks(cut) {
                decoder.handle_bytes(part);
                while let Some(message) = decoder.poll_message().unwrap() {
                    out.push(message);
                }
            }
            assert_eq!(out, messages, "cut at {cut}");
            assert!(decoder.is_between_messages());
        }
    }

    #[test]
    fn an_announced_length_over_the_limit_is_refused_before_its_bytes_come() {
        let mut decoder = Decoder::new(1000);
        decoder.handle_bytes(&1001u32.to_be_bytes());
        assert_eq!(decoder.poll_message(), Err(TooLong { length: 1001, limit: 1000 }));
        assert!(decoder.buffer.capacity() < 1000);
        let mut decoder = Decoder::new(usize::MAX);
        decoder.handle_bytes(&[0xFF; 4]);
        assert_eq!(decoder.poll_message(), Ok(None));
        assert!(decoder.buffer.capacity() < 1000, "what is announced takes no memory");
    }

    #[test]
    fn what_is_too_long_is_not_written() {
        let mut out = BytesMut::new();
        assert_eq!(encode(&[0; 11], 10, &mut out), Err(TooLong { length: 11, limit: 10 }));
        assert!(out.is_empty());
    }

    #[test]
    fn an_empty_decoder_gives_the_memory_of_a_large_message_back() {
        let mut decoder = Decoder::new(1 << 20);
        decoder.handle_bytes(&(1u32 << 20).to_be_bytes());
        decoder.handle_bytes(&vec![1; 1 << 20]);
        assert_eq!(decoder.poll_message().unwrap().map(|message| message.len()), Some(1 << 20));
        assert!(decoder.buffer.capacity() <= KEPT);
    }
}
