//! Decides: the seed's Unix socket framing: MessagePack values, each followed by eight bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::lengths::TooLong;
use crate::frame::msgpack::Scanner;

/// What follows each value.
const DELIMITER: [u8; 8] = [0x64, 0xff, 0xcf, 0x43, 0x4f, 0x29, 0xfe, 0x3d];

/// Why a stream can not be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    TooLong(TooLong),
    #[error("a value is no MessagePack, or not followed by the delimiter")]
    Malformed,
}

pub(super) fn encode(value: &[u8], out: &mut BytesMut) {
    out.reserve(value.len() + DELIMITER.len());
    out.put_slice(value);
    out.put_slice(&DELIMITER);
}

/// The next value, taken from the front of what has come. A value ends where MessagePack says, not where the
/// delimiter's bytes happen to stand in it. `scanner` knows how far the front was looked at.
pub(super) fn poll_value(bytes: &mut BytesMut, scanner: &mut Scanner, limit: usize) -> Result<Option<Bytes>, Broken> {
    let end = scanner.end(bytes).map_err(|_| Broken::Malformed)?;
    let length = end.unwrap_or(bytes.len());
    if length > limit {
        return Err(Broken::TooLong(TooLong { length, limit }));
    }
    let Some(end) = end else { return Ok(None) };
    let Some(after) = bytes.get(end..end + DELIMITER.len()) else { return Ok(None) };
    if after != DELIMITER {
        return Err(Broken::Malformed);
    }
    let value = bytes.split_to(end).freeze();
    *scanner = Scanner::default();
    bytes.advance(DELIMITER.len());
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_whole_wherever_the_stream_is_cut_even_with_the_delimiter_inside() {
        let inside = [&[0xc4, 10, 1][..], &DELIMITER, &[2]].concat();
        let mut stream = BytesMut::new();
        encode(b"\xa2hi", &mut stream);
        encode(&inside, &mut stream);
        for cut in 1..stream.len() {
            let (mut buffer, mut scanner, mut out) = (BytesMut::new(), Scanner::default(), Vec::new());
            for part in stream.chunks(cut) {
                buffer.extend_from_slice(part);
                while let Some(value) = poll_value(&mut buffer, &mut scanner, 100).unwrap() {
                    out.push(value);
                }
            }
            assert_eq!(out, [&b"\xa2hi"[..], &inside], "cut at {cut}");
        }
    }

    #[test]
    fn a_stream_that_is_none_is_refused() {
        let read = |bytes: &[u8]| poll_value(&mut BytesMut::from(bytes), &mut Scanner::default(), 9);
        assert!(matches!(read(b"\x01notthemark"), Err(Broken::Malformed)));
        assert!(matches!(read(b"\xc1"), Err(Broken::Malformed)));
        assert!(matches!(read(b"\xc6\xff\xff\xff\xff0123456789"), Err(Broken::TooLong(_))));
    }
}
