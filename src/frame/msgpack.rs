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
    Scanner::default().end(bytes)
}

/// Looks for the end of one value whose bytes come in parts: what was looked at is not looked at again, so that bytes which
/// come one by one cost no more than all at once.
#[derive(Clone, Debug)]
pub(crate) struct Scanner {
    at: usize,
    /// Values that are yet to come, in each array and map that is open.
    open: [u64; MAX_DEPTH],
    depth: usize,
    ended: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { at: 0, open: [0; MAX_DEPTH], depth: 0, ended: false }
    }
}

impl Scanner {
    /// As [`end`]; `bytes` are those of the call before and what has come since.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        while !self.ended {
            let Some(step) = step(bytes, self.at)? else { return Ok(None) };
            match self.at.checked_add(step.bytes) {
                Some(next) if next <= bytes.len() => self.at = next,
                _ => return Ok(None),
            }
            self.pass(step.values)?;
        }
        Ok(Some(self.at))
    }

    /// Past a value, or into one that holds `values` others.
    fn pass(&mut self, values: u64) -> Result<(), Malformed> {
        if values > 0 {
            *self.open.get_mut(self.depth).ok_or(Malformed)? = values;
            self.depth += 1;
            return Ok(());
        }
        while self.depth > 0 {
            let left = &mut self.open[self.depth - 1];
            *left -= 1;
            if *left > 0 {
                return Ok(());
            }
            self.depth -= 1;
        }
        self.ended = true;
        Ok(())
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
    // What no memory of this machine can hold is never there whole.
    let payload = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let sized = |width: usize, extra: usize| {
        length(width).map(|n| Step { bytes: payload(n).saturating_add(1 + width + extra), values: 0 })
    };
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
    fn a_value_that_comes_in_parts_is_looked_at_once() {
        for value in EACH {
            let mut scanner = Scanner::default();
            for cut in 0..value.len() {
                assert_eq!(scanner.end(&value[..cut]), Ok(None), "{value:x?} cut at {cut}");
            }
            let whole = [value, b"rest"].concat();
            assert_eq!([scanner.end(&whole), scanner.end(&whole)], [Ok(Some(value.len())); 2], "{value:x?}");
        }
        let mut scanner = Scanner::default();
        assert_eq!(scanner.end(b"\x93\x01\x02"), Ok(None));
        // What it has seen it does not look at: these would be no value.
        assert_eq!(scanner.end(b"\xc1\xc1\xc1\x03"), Ok(Some(4)));
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
