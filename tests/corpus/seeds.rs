//! What the corpora are made of: good inputs of every kind, and those on which a reader could stumble.

use std::net::SocketAddr;

use natpipe::key::seal::{Conversation, Ephemeral};
use natpipe::key::{Carrier, ServerUrl, Ticket, TicketAddress};
use natpipe::smart::Identity;
use natpipe::smart::protocol::Envelope;

use crate::wire::keys;

type Seeds = Vec<(&'static str, Vec<u8>)>;

pub fn envelopes() -> Seeds {
    let tag = |name: &str| [&[0xa4][..], name.as_bytes(), b"\xc4\x100123456789abcdef"].concat();
    let map = |pairs: &[&[u8]]| [&[0x80 | pairs.len() as u8][..], &pairs.concat()].concat();
    let (stag, rtag, ctag) = (tag("stag"), tag("rtag"), tag("ctag"));
    let (msg, done, count): (&[u8], &[u8], &[u8]) = (b"\xa3msg\x93\x01\xa2hi\xc0", b"\xa4done\xc3", b"\xa5count\x01");
    vec![
        ("request", map(&[msg, done, &stag])),
        ("one_way", map(&[msg, done])),
        ("with_meta", map(&[msg, done, &stag, b"\xa4meta\x81\xa4role\xa4page"])),
        ("meta", map(&[b"\xa4meta\x80"])),
        ("reply", map(&[msg, done, &rtag, count])),
        ("part", map(&[msg, b"\xa4done\xc2", &rtag, b"\xa5count\xcd\x01\x00"])),
        ("end", map(&[b"\xa3msg\xa0", done, &rtag, b"\xa5count\xcf\0\0\0\0\0\0\x10\0", b"\xa3eof\xc3"])),
        ("failed", map(&[b"\xa3msg\xa0", done, &rtag, count, b"\xa3eof\xc3", b"\xa3err\xd9\x05sorry"])),
        ("cancel", map(&[&ctag])),
        ("stranger_tags", map(&[msg, b"\xa4stag\x07", b"\xa4rtag\xa1x"])),
        ("twice", map(&[msg, b"\xa3msg\xca\x7f\xc0\0\0", b"\xa4done\xc0", done])),
        ("map16", [b"\xde\0\x01", &b"\xa3msg\xd6\x01abcd"[..]].concat()),
        ("map32", [b"\xdf\0\0\0\x01", &b"\xd9\x03msg\xdc\0\x01\xcb\x3f\xf0\0\0\0\0\0\0"[..]].concat()),
        ("odd_keys", map(&[b"\x01\x02", b"\xc4\x03msg\x01", b"\x90\x90", msg])),
        ("no_keys", map(&[done])),
        ("negative_count", map(&[msg, &rtag, b"\xa5count\xd0\xff"])),
        ("deep", [&b"\x81\xa3msg"[..], &[0x91; 62], b"\xc0"].concat()),
        ("too_deep", [&b"\x81\xa3msg"[..], &[0x91; 70], b"\xc0"].concat()),
        ("promises", b"\xdf\xff\xff\xff\xff\xa3msg\x01".to_vec()),
        ("reserved", b"\x81\xa3msg\xc1".to_vec()),
    ]
}

pub fn smart() -> Seeds {
    let hello = Envelope::Hello { version: 1, identity: Identity::from([7; 16]) };
    let data = |n: usize| Envelope::Data(vec![n as u8; n].into());
    let sure = |n: u8| Envelope::DataReq([n; 16], vec![n; 20].into());
    let stream = |cut: u8, envelopes: &[Envelope]| {
        let mut bytes = vec![cut];
        envelopes.iter().for_each(|envelope| envelope.encode(&mut bytes));
        bytes
    };
    let of = |cut: u8, raw: &[u8]| [&[cut], raw].concat();
    vec![
        ("greeting", stream(255, std::slice::from_ref(&hello))),
        ("messages", stream(0, &[hello.clone(), data(0), data(3), sure(1), data(500), Envelope::Heartbeat, data(1)])),
        ("sure", stream(1, &[hello.clone(), sure(1), sure(2), Envelope::Ack([1; 16]), Envelope::Ack([9; 16])])),
        (
            "topics",
            stream(2, &[hello.clone(), Envelope::Subscribe("a".into()), data(9), Envelope::Unsubscribe("a".into())]),
        ),
        ("limit", stream(100, &[hello.clone(), data(4999), data(2)])),
        ("over_limit", stream(100, &[hello.clone(), data(2), data(5000), data(2)])),
        ("twice", stream(3, &[hello.clone(), data(1), hello.clone(), data(2)])),
        ("no_hello", stream(3, &[data(1), hello])),
        ("version_2", of(9, b"\0\0\0\x03\x01\x02x\0\0\0\x01\x02")),
        ("short_id", of(9, b"\0\0\0\x06\x04short\0\0\0\x02\x05x\0\0\0\x02\x03y")),
        ("empty_and_unknown", of(0, b"\0\0\0\0\0\0\0\x02\x99z\0\0\0\x01\x03")),
        ("announces", of(9, b"\xff\xff\xff\xff\x03")),
        ("cut", of(1, b"\0\0\0\x09\x03half")),
    ]
}

/// A client's frame, masked.
fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![head];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len => bytes.extend([&[0xfe][..], &(len as u16).to_be_bytes()].concat()),
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

pub fn websocket() -> Seeds {
    let stream = |how: u8, frames: &[Vec<u8>]| [&[how][..], &frames.concat()].concat();
    let bye = frame(0x88, b"\x03\xe8bye");
    let asking = |extra: &str| {
        format!(
            "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
        )
        .into_bytes()
    };
    vec![
        ("binary", stream(254, &[frame(0x82, b"hello"), frame(0x82, b""), bye.clone()])),
        ("text", stream(0, &[frame(0x81, "é…".as_bytes()), bye.clone()])),
        ("parts", stream(2, &[frame(2, b"a"), frame(0, b"b"), frame(0x89, b"ping"), frame(0x80, b"c"), bye.clone()])),
        ("text_in_parts", stream(2, &[frame(1, b"\xc3"), frame(0x8a, b""), frame(0x80, b"\xa9"), bye.clone()])),
        ("bad_text", stream(4, &[frame(1, b"\xff"), frame(0x89, b"late"), frame(0x80, b"x")])),
        ("long", stream(100, &[frame(0x82, &[7; 2999]), frame(0x89, &[1; 125]), bye.clone()])),
        ("too_long", stream(100, &[frame(0x82, &[7; 3001])])),
        ("too_long_in_parts", stream(100, &[frame(2, &[7; 2000]), frame(0, &[7; 2000]), frame(0x80, b"")])),
        ("long_ping", stream(4, &[frame(0x89, &[1; 126])])),
        ("cut_ping", stream(4, &[frame(0x09, b"x")])),
        ("compressed", stream(4, &[frame(0xc2, b"x")])),
        ("reserved", stream(4, &[frame(0x82, b"x"), frame(0x83, b"x")])),
        ("orphan", stream(4, &[frame(0x80, b"x")])),
        ("interrupted", stream(4, &[frame(2, b"x"), frame(0x82, b"y")])),
        ("unmasked", stream(4, &[b"\x82\x02hi".to_vec()])),
        ("server", stream(5, &[b"\x82\x02hi\x81\x01x\x89\0\x88\0".to_vec()])),
        ("masked_server", stream(5, &[frame(0x82, b"hi")])),
        ("huge", stream(4, &[b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()])),
        ("short_close", stream(4, &[frame(0x88, b"\x03")])),
        ("odd_close", stream(4, &[frame(0x88, b"\x03\xed"), frame(0x82, b"after")])),
        ("request", asking("")),
        ("request_more", asking("Origin: http://x\r\nSec-WebSocket-Extensions: permessage-deflate\r\nCookie: a=b\r\n")),
        ("request_old", asking("").split(|byte| *byte == b'\n').take(4).collect::<Vec<_>>().join(&b'\n')),
    ]
}

pub fn records() -> Seeds {
    let record = |kind: u8, channel: u32, payload: &[u8]| {
        [&[kind][..], &(payload.len() as u32).to_be_bytes()[1..], &channel.to_be_bytes(), payload].concat()
    };
    let stream = |cut: u8, records: &[Vec<u8>]| [&[cut][..], &records.concat()].concat();
    let number = |n: u64| n.to_be_bytes().to_vec();
    vec![
        ("greeting", stream(255, &[record(0, 0, &[1; 33]), record(1, 0, &number(1))])),
        (
            "channel",
            stream(0, &[record(6, 1, &[0]), record(7, 1, b"bytes"), record(10, 1, &number(65536)), record(8, 1, b"")]),
        ),
        ("every_kind", stream(3, &(0..12).map(|kind| record(kind, u32::from(kind), &[kind; 8])).collect::<Vec<_>>())),
        ("longest", stream(255, &[record(7, 1, &vec![7; 1 << 16]), record(11, 0, b"")])),
        ("too_long", stream(1, &[record(2, 0, &number(7)), vec![7, 1, 0, 1, 0, 0, 0, 1]])),
        ("unknown", stream(1, &[record(3, 0, &number(7)), record(12, 0, b"")])),
        ("cut", stream(1, &[record(7, 1, b"bytes"), vec![7, 0, 0, 9, 0, 0, 0, 1, 1]])),
    ]
}

fn ticket() -> Ticket {
    let [ann, bob] = keys::two();
    let url = |carrier, host, port| ServerUrl::new(carrier, host, port, bob.peer_id()).unwrap();
    let at = |text: &str, udp, tcp| TicketAddress { addr: text.parse::<SocketAddr>().unwrap(), udp, tcp };
    Ticket::new(ann.peer_id())
        .with_server(url(Carrier::Natpipe, "example.org", 443))
        .with_server(url(Carrier::Wss, "example.net", 443).with_path("/meet?a=b").unwrap())
        .with_broker("mqtts://broker.example:8883".parse().unwrap())
        .with_address(at("192.0.2.7:7000", true, true))
        .with_address(at("[2001:db8::7]:7000", false, true))
}

/// Sealed once: its fresh key is random.
fn sealed() -> Vec<u8> {
    let file = crate::dir("keys").join("sealed");
    if let Ok(bytes) = std::fs::read(&file) {
        return bytes[1..].to_vec();
    }
    let [ann, bob] = keys::two();
    let mut begun = Conversation::begin(&ann, bob.peer_id(), Ephemeral::random().unwrap()).unwrap();
    begun.seal(keys::SEALED).unwrap()
}

pub fn keys() -> Seeds {
    let [ann, bob] = keys::two();
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let text = |kind: u8, text: String| of(kind, text.as_bytes());
    let url = |form: &str| text(2, form.replace("KEY", &bob.peer_id().to_string()));
    let body = |entries: &[&[u8]]| of(1, &[ann.peer_id().as_bytes(), &entries.concat()[..]].concat());
    let plain = Ticket::new(ann.peer_id());
    vec![
        ("ticket", text(0, ticket().to_string())),
        ("ticket_plain", text(0, plain.to_string())),
        ("ticket_cut", text(0, plain.to_string()[..40].to_owned())),
        ("ticket_newer", text(0, "np2abcdef".to_owned())),
        ("body_plain", body(&[])),
        (
            "body_addresses",
            body(&[
                b"\x03\x07\x03\x1b\x58\xc0\0\x02\x07",
                b"\x03\x13\x01\0\x50\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07",
            ]),
        ),
        ("body_server", body(&[&[&b"\x02\x2a\x01\x01\xbb"[..], bob.peer_id().as_bytes(), b"host/ab"].concat()])),
        ("body_broker", body(&[b"\x04\x0bmqtt://host"])),
        ("body_secret", body(&[&[&[1, 16][..], &[9; 16]].concat()])),
        ("body_unknown", body(&[b"\x63\x03abc", b"\x03\x07\x03\x1b\x58\xc0\0\x02\x07"])),
        ("body_cut", body(&[b"\x03\x07\x03"])),
        ("url", url("natpipe://example.org:443/#KEY")),
        ("url_v6", url("ws://[2001:db8::1]/meet#KEY")),
        ("url_zone", url("natpipe://[fe80::1%eth0]:7000/#KEY")),
        ("url_query", url("WSS://example.org/meet/here?a=b#KEY")),
        ("url_none", url("natpipe://a\r\nX:443/#KEY")),
        ("sealed", of(3, &sealed())),
        ("sealed_nothing", of(3, &[1; 90])),
        ("altered", of(4, b"\x05\x02some text of some length")),
        ("altered_empty", of(4, b"\xff\x07")),
    ]
}
