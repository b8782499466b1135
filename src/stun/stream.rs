//! Decides: where one message ends and the next begins on TCP and TLS (RFC 8489 section 6.2.2).

use super::attribute::{HEADER_LEN, MAX_MESSAGE_LEN};

/// The stream carries no STUN, or a message longer than allowed: close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first two bits of what should be a message are not zero, or its length is not in words.
    #[error("bytes {first:02x?} begin no STUN message")]
    NotStun {
        /// The first four bytes.
        first: [u8; 4],
    },
    /// A message is announced that is longer than `limit`.
    #[error("a message of {len} bytes is announced, {limit} are allowed")]
    TooLong {
        /// How long it would be.
        len: usize,
        /// How long it may be.
        limit: usize,
    },
}

/// How long the message is that `buffered` begins with: `Some(len)` once all of it is there, `None` while bytes are
/// missing. A reader takes `len` bytes off and asks again; it never needs to keep more than `limit` bytes.
///
/// # Errors
/// [`FrameError`] as soon as four bytes say that this will be no message, or one longer than `limit`.
pub fn next_message(buffered: &[u8], limit: usize) -> Result<Option<usize>, FrameError> {
    let Some(first) = buffered.first_chunk::<4>() else { return Ok(None) };
    let body = usize::from(u16::from_be_bytes([first[2], first[3]]));
    if first[0] & 0xC0 != 0 || body % 4 != 0 {
        return Err(FrameError::NotStun { first: *first });
    }
    let (len, limit) = (HEADER_LEN + body, limit.min(MAX_MESSAGE_LEN));
    if len > limit {
        return Err(FrameError::TooLong { len, limit });
    }
    Ok((buffered.len() >= len).then_some(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_cut_off_when_all_of_it_is_there() {
        let mut stream = vec![0, 1, 0, 4];
        stream.resize(HEADER_LEN + 3, 0);
        assert_eq!(next_message(&stream[..3], 100), Ok(None));
        assert_eq!(next_message(&stream, 100), Ok(None));
        stream.push(0);
        assert_eq!(next_message(&stream, 100), Ok(Some(24)));
        stream.push(0);
        assert_eq!(next_message(&stream, 100), Ok(Some(24)));
    }

    #[test]
    fn four_bytes_are_enough_to_refuse_a_long_message() {
        assert_eq!(next_message(&[0, 1, 0xFF, 0xFC], 2048), Err(FrameError::TooLong { len: 65552, limit: 2048 }));
    }

    #[test]
    fn another_protocol_is_refused() {
        assert!(matches!(next_message(b"\x16\x03\x01\x02", 2048), Err(FrameError::NotStun { .. })));
        assert!(matches!(next_message(b"GET ", 2048), Err(FrameError::NotStun { .. })));
    }
}
