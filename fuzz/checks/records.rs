//! What must hold of any bytes on a path between two peers: records are whole, of a known kind and within the limit, and are
//! written again as the same bytes, however the stream is cut.

use bytes::BytesMut;
use natpipe::peer::read_record;

const HEADER: usize = 8;
const MAX_PAYLOAD: usize = 1 << 16;
const KINDS: u8 = 15;

/// The first byte of the input says how the rest is cut. Returns how many records there were.
pub fn records(input: &[u8]) -> usize {
    let Some((cut, bytes)) = input.split_first() else { return 0 };
    let (mut received, mut again, mut count, mut failed) = (BytesMut::new(), Vec::new(), 0, false);
    'all: for part in bytes.chunks(1 + usize::from(*cut) * 16) {
        received.extend_from_slice(part);
        loop {
            match read_record(&mut received) {
                Ok(Some((header, payload))) => {
                    again.extend_from_slice(&header);
                    again.extend_from_slice(&payload);
                    count += 1;
                }
                Ok(None) => break,
                Err(_) => {
                    failed = true;
                    break 'all;
                }
            }
        }
        assert!(received.len() < HEADER + MAX_PAYLOAD, "no more than one record is held");
    }
    assert_eq!((again.len(), count, failed), plain(bytes));
    assert!(bytes.starts_with(&again));
    count
}

/// Bytes of whole records, how many they are, and whether a fault follows.
fn plain(bytes: &[u8]) -> (usize, usize, bool) {
    let (mut at, mut count) = (0, 0);
    while let Some([kind, l2, l1, l0, ..]) = bytes.get(at..at + HEADER) {
        let len = usize::from(*l2) << 16 | usize::from(*l1) << 8 | usize::from(*l0);
        if *kind >= KINDS || len > MAX_PAYLOAD {
            return (at, count, true);
        }
        if bytes.len() < at + HEADER + len {
            break;
        }
        at += HEADER + len;
        count += 1;
    }
    (at, count, false)
}
