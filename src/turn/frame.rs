//! Decides: channel data (RFC 8656 section 12.4), and where one message ends and the next begins on a stream.

use crate::stun::{FrameError, next_message};

/// The numbers that channels have (RFC 8656 section 12).
pub(super) const FIRST_CHANNEL: u16 = 0x4000;
pub(super) const LAST_CHANNEL: u16 = 0x4FFF;

const HEADER: usize = 4;

/// What a server has sent in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    /// A datagram through a channel.
    Channel {
        /// Its number.
        number: u16,
        /// The datagram.
        data: &'a [u8],
    },
    /// A STUN message.
    Message(&'a [u8]),
}

/// True for the first byte of channel data: its first two bits are 01.
pub(super) fn is_channel(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| (0x40..=0x4F).contains(first))
}

/// What a datagram from the server is; `None` for what is neither.
pub(super) fn datagram(bytes: &[u8]) -> Option<Cut<'_>> {
    if !is_channel(bytes) {
        return Some(Cut::Message(bytes));
    }
    let (head, rest) = bytes.split_first_chunk::<HEADER>()?;
    // Padding may follow.
    let data = rest.get(..usize::from(u16::from_be_bytes([head[2], head[3]])))?;
    Some(Cut::Channel { number: u16::from_be_bytes([head[0], head[1]]), data })
}

/// The first message of a stream's bytes, and how many bytes it and its padding take: `None` while some are missing.
///
/// # Errors
/// [`FrameError`] when the stream carries no TURN, or a message longer than `limit`: it is to be closed.
pub fn cut(buffered: &[u8], limit: usize) -> Result<Option<(Cut<'_>, usize)>, FrameError> {
    if !is_channel(buffered) {
        let len = next_message(buffered, limit)?;
        return Ok(len.and_then(|len| Some((Cut::Message(buffered.get(..len)?), len))));
    }
    let Some(head) = buffered.first_chunk::<HEADER>() else { return Ok(None) };
    let len = HEADER + usize::from(u16::from_be_bytes([head[2], head[3]]));
    // Over TCP and TLS to a multiple of four (RFC 8656 section 12.5).
    let padded = len.next_multiple_of(4);
    if padded > limit {
        return Err(FrameError::TooLong { len: padded, limit });
    }
    if buffered.len() < padded {
        return Ok(None);
    }
    let number = u16::from_be_bytes([head[0], head[1]]);
    Ok(Some((Cut::Channel { number, data: &buffered[HEADER..len] }, padded)))
}

/// Channel data as it is sent: padded on a stream. `None` when the data is longer than a datagram can be.
pub fn channel_data(number: u16, data: &[u8], stream: bool) -> Option<Vec<u8>> {
    let len = u16::try_from(data.len()).ok()?;
    let mut bytes = Vec::with_capacity(HEADER + data.len() + 3);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(data);
    if stream {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Some(bytes)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn channel_data_is_read_as_it_was_written_whole_or_byte_by_byte() {
        for len in [0_usize, 1, 3, 4, 1200] {
            let data = vec![9; len];
            let expected = Cut::Channel { number: 0x4001, data: &data };
            assert_eq!(datagram(&channel_data(0x4001, &data, false).unwrap()), Some(expected));
            let mut stream = channel_data(0x4001, &data, true).unwrap();
            assert_eq!(stream.len() % 4, 0);
            let whole = stream.len();
            for part in 0..whole {
                assert_eq!(cut(&stream[..part], 4096), Ok(None), "{part} of {whole}");
            }
            stream.extend_from_slice(&[0, 1, 0]);
            assert_eq!(cut(&stream, 4096), Ok(Some((expected, whole))));
        }
    }

    #[test]
    fn lengths_that_are_wrong_are_no_data_and_long_ones_are_refused_before_they_are_there() {
        assert_eq!(datagram(&[0x40, 0, 0, 9, 1]), None);
        assert_eq!(datagram(&[0x40, 0]), None);
        assert_eq!(cut(&[0x40, 0, 0xFF, 0xFF], 4096), Err(FrameError::TooLong { len: 65_540, limit: 4096 }));
        assert!(cut(b"HTTP/1.1", 4096).is_err());
        assert_eq!(channel_data(0x4000, &vec![0; 1 << 16], false), None);
    }
}
