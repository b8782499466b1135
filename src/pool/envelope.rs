//! Decides: the maps that members exchange (PROTOCOLS, seed 000): requests, replies, metadata, cancellations.
//!
//! ```text
//! request    {msg, done: true, stag: 16 bytes}         without stag: no answer is wanted
//! reply      {msg, done, rtag: the stag, count: n}     the last of a stream has eof: true and no message
//! failure    a last reply with err: why                the seed's system sees the end of the answers
//! metadata   a map with the key meta, alone or with a request
//! cancel     {ctag: the stag}                          only to natpipe
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::msgpack;

/// What names an ask, on the wire 16 random bytes.
pub type Tag = [u8; 16];

/// Why bytes are no map of a pool.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    #[error("a message is no MessagePack map")]
    NoMap,
    #[error("a map has neither msg, rtag, meta nor ctag")]
    NoKeys,
}

/// A map that came in; values are as they stand on the wire.
#[doc(hidden)]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    pub msg: Option<Bytes>,
    pub meta: Option<Bytes>,
    /// Whatever the asker chose: it is sent back as it is.
    pub stag: Option<Bytes>,
    /// There is one: it is a reply. Inside: the tag, where it is one of ours.
    pub rtag: Option<Option<Tag>>,
    pub ctag: Option<Bytes>,
    /// Missing in the seed's first version, where each reply is the only one.
    pub done: Option<bool>,
    pub count: Option<u64>,
    pub eof: bool,
    pub err: Option<String>,
}

/// Reads a map. The fuzz target sees it as well.
#[doc(hidden)]
pub fn parse(data: &Bytes) -> Result<Envelope, Bad> {
    if msgpack::end(data) != Ok(Some(data.len())) {
        return Err(Bad::NoMap);
    }
    let (pairs, mut at) = pairs(data).ok_or(Bad::NoMap)?;
    let mut envelope = Envelope::default();
    for _ in 0..pairs {
        let key_end = value_end(data, at).ok_or(Bad::NoMap)?;
        let end = value_end(data, key_end).ok_or(Bad::NoMap)?;
        envelope.take(text(&data[at..key_end]), data, key_end..end);
        at = end;
    }
    if envelope.msg.is_none() && envelope.meta.is_none() && envelope.rtag.is_none() && envelope.ctag.is_none() {
        return Err(Bad::NoKeys);
    }
    Ok(envelope)
}

impl Envelope {
    fn take(&mut self, key: Option<&[u8]>, data: &Bytes, at: std::ops::Range<usize>) {
        let value = &data[at.clone()];
        match key {
            Some(b"msg") => self.msg = Some(data.slice(at)),
            Some(b"meta") => self.meta = Some(data.slice(at)),
            Some(b"stag") => self.stag = Some(data.slice(at)),
            Some(b"ctag") => self.ctag = Some(data.slice(at)),
            Some(b"rtag") => self.rtag = Some(tag(value)),
            Some(b"done") => self.done = truth(value),
            Some(b"eof") => self.eof = truth(value) == Some(true),
            Some(b"count") => self.count = number(value),
            Some(b"err") => self.err = text(value).map(|text| String::from_utf8_lossy(text).into_owned()),
            _ => {}
        }
    }
}

/// How many pairs a map has, and where the first begins.
fn pairs(data: &[u8]) -> Option<(usize, usize)> {
    match *data.first()? {
        marker @ 0x80..=0x8f => Some((usize::from(marker & 0x0f), 1)),
        0xde => Some((usize::from(u16::from_be_bytes(data.get(1..3)?.try_into().ok()?)), 3)),
        0xdf => Some((u32::from_be_bytes(data.get(1..5)?.try_into().ok()?) as usize, 5)),
        _ => None,
    }
}

fn value_end(data: &[u8], at: usize) -> Option<usize> {
    msgpack::end(data.get(at..)?).ok().flatten().map(|length| at + length)
}

fn text(value: &[u8]) -> Option<&[u8]> {
    match *value.first()? {
        0xa0..=0xbf => value.get(1..),
        0xd9 => value.get(2..),
        0xda => value.get(3..),
        0xdb => value.get(5..),
        _ => None,
    }
}

fn tag(value: &[u8]) -> Option<Tag> {
    let inside = value.strip_prefix(&[0xc4, 16])?;
    inside.try_into().ok()
}

fn truth(value: &[u8]) -> Option<bool> {
    match value {
        [0xc3] => Some(true),
        [0xc2] => Some(false),
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = match value {
        small @ [0..=0x7f] => small,
        [0xcc..=0xcf, digits @ ..] => digits,
        // Some packers write what is not negative as a signed number too.
        [0xd0..=0xd3, digits @ ..] if digits.first().is_some_and(|first| *first < 0x80) => digits,
        _ => return None,
    };
    Some(digits.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn put_text(text: &str, out: &mut BytesMut) {
    match text.len() {
        n @ 0..=31 => out.put_u8(0xa0 | n as u8),
        n @ 32..=255 => out.put_slice(&[0xd9, n as u8]),
        n => {
            out.put_u8(0xda);
            out.put_u16(n as u16);
        }
    }
    out.put_slice(text.as_bytes());
}

fn put_tag(tag: &Tag, out: &mut BytesMut) {
    out.put_slice(&[0xc4, 16]);
    out.put_slice(tag);
}

/// A request; without a tag no answer is wanted.
pub(super) fn request(msg: &[u8], tag: Option<&Tag>, meta: Option<&[u8]>) -> Bytes {
    let mut out = BytesMut::with_capacity(msg.len() + meta.map_or(0, |meta| meta.len() + 5) + 40);
    out.put_u8(0x82 + u8::from(tag.is_some()) + u8::from(meta.is_some()));
    out.put_slice(b"\xa3msg");
    out.put_slice(msg);
    out.put_slice(b"\xa4done\xc3");
    if let Some(tag) = tag {
        out.put_slice(b"\xa4stag");
        put_tag(tag, &mut out);
    }
    if let Some(meta) = meta {
        out.put_slice(b"\xa4meta");
        out.put_slice(meta);
    }
    out.freeze()
}

/// What a reply says.
pub(super) enum Part<'a> {
    /// The only answer.
    Only(&'a [u8]),
    /// One of a stream.
    Next(&'a [u8]),
    /// No more come.
    End,
    /// No more come, because of this.
    Failed(&'a str),
}

/// A reply, the `count`th to this tag.
pub(super) fn reply(part: &Part<'_>, rtag: &[u8], count: u64) -> Bytes {
    const EMPTY: &[u8] = b"\xa0";
    let (msg, done, eof) = match *part {
        Part::Only(msg) => (msg, true, false),
        Part::Next(msg) => (msg, false, false),
        Part::End | Part::Failed(_) => (EMPTY, true, true),
    };
    let mut out = BytesMut::with_capacity(msg.len() + rtag.len() + 64);
    out.put_u8(0x84 + u8::from(eof) + u8::from(matches!(part, Part::Failed(_))));
    out.put_slice(b"\xa3msg");
    out.put_slice(msg);
    out.put_slice(if done { b"\xa4done\xc3" } else { b"\xa4done\xc2" });
    out.put_slice(b"\xa4rtag");
    out.put_slice(rtag);
    out.put_slice(b"\xa5count");
    match count {
        0..=0x7f => out.put_u8(count as u8),
        _ => {
            out.put_u8(0xcf);
            out.put_u64(count);
        }
    }
    if eof {
        out.put_slice(b"\xa3eof\xc3");
    }
    if let Part::Failed(why) = part {
        out.put_slice(b"\xa3err");
        let end = (0..=why.len().min(1000)).rev().find(|&at| why.is_char_boundary(at)).unwrap_or(0);
        put_text(&why[..end], &mut out);
    }
    out.freeze()
}

/// Metadata alone.
pub(super) fn metadata(meta: &[u8]) -> Bytes {
    [b"\x81\xa4meta", meta].concat().into()
}

/// An ask whose answers nobody wants any more.
pub(super) fn cancel(tag: &Tag) -> Bytes {
    let mut out = BytesMut::from(&b"\x81\xa4ctag"[..]);
    put_tag(tag, &mut out);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: Tag = *b"0123456789abcdef";

    #[test]
    fn requests_and_replies_are_the_bytes_of_the_seeds_system() {
        let expected = b"\x83\xa3msg\xa2hi\xa4done\xc3\xa4stag\xc4\x100123456789abcdef";
        assert_eq!(request(b"\xa2hi", Some(&TAG), None), &expected[..]);
        let expected = b"\x84\xa3msg\xa2hi\xa4done\xc3\xa4rtag\xc4\x100123456789abcdef\xa5count\x01";
        assert_eq!(reply(&Part::Only(b"\xa2hi"), b"\xc4\x100123456789abcdef", 1), &expected[..]);
        let expected = b"\x85\xa3msg\xa0\xa4done\xc3\xa4rtag\x07\xa5count\x03\xa3eof\xc3";
        assert_eq!(reply(&Part::End, b"\x07", 3), &expected[..]);
    }

    #[test]
    fn what_is_written_is_read() {
        let read = parse(&request(b"\x91\x01", Some(&TAG), Some(b"\x81\xa1a\x01"))).unwrap();
        assert_eq!(read.msg.unwrap(), &b"\x91\x01"[..]);
        assert_eq!(read.meta.unwrap(), &b"\x81\xa1a\x01"[..]);
        assert_eq!(read.stag.unwrap(), [&[0xc4, 16][..], &TAG].concat());
        let read = parse(&reply(&Part::Failed(&"x".repeat(5000)), &[&[0xc4, 16][..], &TAG].concat(), 300)).unwrap();
        assert_eq!((read.rtag, read.count, read.eof, read.done), (Some(Some(TAG)), Some(300), true, Some(true)));
        assert_eq!(read.err.unwrap().len(), 1000);
        assert_eq!(parse(&metadata(b"\x80")).unwrap().meta.unwrap(), &b"\x80"[..]);
        assert_eq!(parse(&cancel(&TAG)).unwrap().ctag.unwrap()[2..], TAG);
        assert_eq!(parse(&request(b"\xc0", None, None)).unwrap().stag, None);
    }

    #[test]
    fn a_count_may_be_written_as_any_whole_number() {
        for count in [&b"\x07"[..], b"\xcc\x07", b"\xcd\0\x07", b"\xd0\x07", b"\xd1\0\x07", b"\xd3\0\0\0\0\0\0\0\x07"] {
            let map = [&b"\x82\xa3msg\xc0\xa5count"[..], count].concat();
            assert_eq!(parse(&Bytes::from(map)).unwrap().count, Some(7), "{count:x?}");
        }
        let negative = Bytes::from_static(b"\x82\xa3msg\xc0\xa5count\xd0\xff");
        assert_eq!(parse(&negative).unwrap().count, None);
    }

    #[test]
    fn what_is_no_map_of_a_pool_is_refused() {
        for bytes in [&b""[..], b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa3msg", b"\x81\xa3msg\x01\x02", b"hello"] {
            assert_eq!(parse(&Bytes::from_static(bytes)), Err(Bad::NoMap), "{bytes:x?}");
        }
        for bytes in [&b"\x80"[..], b"\x81\xa4done\xc3", b"\x81\x01\x02", b"\x81\xa4stag\x01"] {
            assert_eq!(parse(&Bytes::from_static(bytes)), Err(Bad::NoKeys), "{bytes:x?}");
        }
        // A key that is no text is skipped, as are keys that nobody knows.
        assert!(parse(&Bytes::from_static(b"\x83\x01\x02\xa3new\x03\xa3msg\xc0")).is_ok());
    }

    #[test]
    fn a_reply_with_a_strange_tag_is_a_reply_to_nobody() {
        let read = parse(&Bytes::from_static(b"\x82\xa3msg\xc0\xa4rtag\xc0")).unwrap();
        assert_eq!(read.rtag, Some(None));
    }
}
