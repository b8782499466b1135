//! Decides: where a MessagePack value ends, without building it.

/// How deep arrays and maps may nest.
pub const MAX_DEPTH: usize = 64;

/// Bytes that are no MessagePack, or nest deeper than [`MAX_DEPTH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no MessagePack value, or it nests deeper than {MAX_DEPTH}")]
pub struct Malformed;

/// The length of the value that `bytes` begin with; `None` when more bytes are needed. It takes no memory, however large
/// the lengths that are announced.
///
/// ```
/// use natpipe::frame::msgpack::end;
///
/// assert_eq!(end(b"\x93\x01\xa2hi\xc0rest"), Ok(Some(6)));
/// assert_eq!(end(b"\x93\x01\xa2h"), Ok(None));
/// assert!(end(b"\xc1").is_err());
/// ```
///
/// # Errors
/// [`Malformed`].
pub fn end(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    // Values that are yet to come, in each array and map that is open.
    let mut open = [0u64; MAX_DEPTH];
    let mut depth = 0;
    let mut at = 0usize;
    loop {
        let Some(step) = step(bytes, at)? else { return Ok(None) };
        at = match at.checked_add(step.bytes) {
            Some(next) if next <= bytes.len() => next,
            _ => return Ok(None),
        };
        if step.values > 0 {
            *open.get_mut(depth).ok_or(Malformed)? = step.values;
            depth += 1;
            continue;
        }
        loop {
            if depth == 0 {
                return Ok(Some(at));
            }
            open[depth - 1] -= 1;
            if open[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
    }
}

/// What stands at a place: its bytes, and how many values follow inside it.
struct Step {
    bytes: usize,
    values: u64,
}

fn step(bytes: &[u8], at: usize) -> Result<Option<Step>, Malformed> {
    let Some(&marker) = bytes.get(at) else { return Ok(None) };
    // A length of `width` bytes behind the marker, where there is one.
    let length = |width: usize| {
        let field = bytes.get(at + 1..at + 1 + width)?;
        Some(field.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let plain = |bytes| Some(Step { bytes, values: 0 });
    let sized = |width, extra| length(width).map(|n| Step { bytes: 1 + width + extra + n as usize, values: 0 });
    let filled = |width, each| length(width).map(|n| Step { bytes: 1 + width, values: n * each });
    Ok(match marker {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => plain(1),
        0x80..=0x8f => Some(Step { bytes: 1, values: u64::from(marker & 0x0f) * 2 }),
        0x90..=0x9f => Some(Step { bytes: 1, values: u64::from(marker & 0x0f) }),
        0xa0..=0xbf => plain(1 + usize::from(marker & 0x1f)),
        0xc1 => return Err(Malformed),
        0xc4 | 0xd9 => sized(1, 0),
        0xc5 | 0xda => sized(2, 0),
        0xc6 | 0xdb => sized(4, 0),
        0xc7 => sized(1, 1),
        0xc8 => sized(2, 1),
        0xc9 => sized(4, 1),
        0xcc | 0xd0 => plain(2),
        0xcd | 0xd1 => plain(3),
        0xca | 0xce | 0xd2 => plain(5),
        0xcb | 0xcf | 0xd3 => plain(9),
        0xd4 => plain(3),
        0xd5 => plain(4),
        0xd6 => plain(6),
        0xd7 => plain(10),
        0xd8 => plain(18),
        0xdc => filled(2, 1),
        0xdd => filled(4, 1),
        0xde => filled(2, 2),
        0xdf => filled(4, 2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind, from the specification of MessagePack.
    const EACH: [&[u8]; 24] = [
        b"\x00",
        b"\xff",
        b"\xc0",
        b"\xc3",
        b"\xcc\x01",
        b"\xd1\0\x01",
        b"\xce\0\0\0\x01",
        b"\xcf\0\0\0\0\0\0\0\x01",
        b"\xca\0\0\0\0",
        b"\xcb\0\0\0\0\0\0\0\0",
        b"\xa3abc",
        b"\xd9\x03abc",
        b"\xda\0\x03abc",
        b"\xdb\0\0\0\x03abc",
        b"\xc4\x02ab",
        b"\xc5\0\x02ab",
        b"\xc6\0\0\0\x02ab",
        b"\xd4\x01a",
        b"\xd8\x010123456789abcdef",
        b"\xc7\x02\x01ab",
        b"\x92\x01\x02",
        b"\xdc\0\x02\x01\x02",
        b"\x81\xa1a\x90",
        b"\xdf\0\0\0\x01\xa1a\x80",
    ];

    #[test]
    fn each_kind_of_value_ends_where_it_ends_and_not_before() {
        for value in EACH {
            for cut in 0..value.len() {
                assert_eq!(end(&value[..cut]), Ok(None), "{value:x?} cut at {cut}");
            }
            assert_eq!(end(&[value, b"rest"].concat()), Ok(Some(value.len())), "{value:x?}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_what_is_allowed_is_not() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        assert_eq!(end(&nested(MAX_DEPTH)), Ok(Some(MAX_DEPTH + 1)));
        assert_eq!(end(&nested(MAX_DEPTH + 1)), Err(Malformed));
        assert_eq!(end(&nested(1_000_000)), Err(Malformed));
    }

    #[test]
    fn an_announced_length_is_not_believed() {
        assert_eq!(end(b"\xc6\xff\xff\xff\xffabc"), Ok(None));
        assert_eq!(end(b"\xdf\xff\xff\xff\xff\x01"), Ok(None));
    }
}
