//! What must hold of any bytes that come as a pool's message: they are a map of its, or refused, and what is read of the
//! map is what another MessagePack reader finds in it.

use bytes::Bytes;
use natpipe::frame::msgpack;
use natpipe::pool::{BadEnvelope, Envelope, Value, parse_envelope};

/// Whether it was a pool's map.
pub fn envelope(input: &[u8]) -> bool {
    let data = Bytes::copy_from_slice(input);
    let whole = msgpack::end(input) == Ok(Some(input.len()));
    match parse_envelope(&data) {
        Ok(envelope) => {
            assert!(whole);
            compare(&envelope, &map(input));
            true
        }
        Err(BadEnvelope::NoKeys) => {
            let map = map(input);
            let none = ["msg", "meta", "rtag", "ctag"].iter().all(|name| last(&map, name).is_none());
            assert!(whole && none, "a map with keys");
            false
        }
        Err(BadEnvelope::NoMap) => {
            let begins = input.first().is_some_and(|marker| matches!(marker, 0x80..=0x8f | 0xde | 0xdf));
            assert!(!(whole && begins), "a whole map is refused");
            false
        }
    }
}

/// The map as rmpv reads it.
fn map(mut input: &[u8]) -> Vec<(Value, Value)> {
    let value = rmpv::decode::read_value(&mut input).expect("rmpv reads it too");
    assert!(input.is_empty(), "rmpv reads all of it");
    match value {
        Value::Map(pairs) => pairs,
        other => panic!("no map: {other}"),
    }
}

fn last<'a>(map: &'a [(Value, Value)], name: &str) -> Option<&'a Value> {
    let named = |key: &Value| matches!(key, Value::String(text) if text.as_bytes() == name.as_bytes());
    map.iter().rev().find(|(key, _)| named(key)).map(|(_, value)| value)
}

fn compare(envelope: &Envelope, map: &[(Value, Value)]) {
    for (name, slice) in
        [("msg", &envelope.msg), ("meta", &envelope.meta), ("stag", &envelope.stag), ("ctag", &envelope.ctag)]
    {
        let read = slice.as_ref().map(|slice| rmpv::decode::read_value(&mut &slice[..]).expect("it is a value"));
        assert_eq!(read.as_ref().map(bytes), last(map, name).map(bytes), "{name}");
    }
    let tag = |value: &Value| match value {
        Value::Binary(bytes) => bytes[..].try_into().ok(),
        _ => None,
    };
    if let Some(Some(ours)) = envelope.rtag {
        assert_eq!(last(map, "rtag").and_then(tag), Some(ours));
    }
    assert_eq!(envelope.rtag.is_some(), last(map, "rtag").is_some());
    assert_eq!(envelope.done, last(map, "done").and_then(Value::as_bool));
    assert_eq!(envelope.eof, last(map, "eof").and_then(Value::as_bool) == Some(true));
    assert_eq!(envelope.count, last(map, "count").and_then(Value::as_u64));
    let text = |value: &Value| match value {
        Value::String(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        _ => None,
    };
    assert_eq!(envelope.err, last(map, "err").and_then(text));
}

/// Written again: so that NaN is equal to itself.
fn bytes(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, value).expect("memory takes it");
    out
}
