//! The cases of the Autobahn test suite, by their numbers, played against our WebSocket as server and as client. The suite itself
//! runs on Python 2 only. Each case sends frames, whole and octet by octet, and says which frames come back.

use bytes::BytesMut;
use natpipe::frame::ws::{Conf, Message, Role, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, duplex};

use crate::in_time;

const CONT: u8 = 0;
const TEXT: u8 = 1;
const BIN: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;

/// A frame: its first byte, and its payload.
type Frame = (u8, Vec<u8>);

fn frame(first: u8, payload: impl AsRef<[u8]>) -> Frame {
    (first, payload.as_ref().to_vec())
}

fn whole(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    frame(FIN | opcode, payload)
}

fn part(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    frame(opcode, payload)
}

fn close(code: u16, reason: impl AsRef<[u8]>) -> Frame {
    whole(CLOSE, [&code.to_be_bytes()[..], reason.as_ref()].concat())
}

/// As it goes on the wire; a client masks.
fn wire(frames: &[Frame], from: Role) -> Vec<u8> {
    let mut out = Vec::new();
    for (first, payload) in frames {
        out.push(*first);
        let masked = if from == Role::Client { 0x80 } else { 0 };
        match payload.len() {
            n @ 0..=125 => out.push(masked | n as u8),
            n @ 126..=65535 => {
                out.push(masked | 126);
                out.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                out.push(masked | 127);
                out.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        if from == Role::Client {
            const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
            out.extend_from_slice(&MASK);
            out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        } else {
            out.extend_from_slice(payload);
        }
    }
    out
}

async fn read_frame(stream: &mut ReadHalf<DuplexStream>) -> Option<Frame> {
    let first = stream.read_u8().await.ok()?;
    let second = stream.read_u8().await.unwrap();
    let length = match second & 0x7f {
        126 => u64::from(stream.read_u16().await.unwrap()),
        127 => stream.read_u64().await.unwrap(),
        n => u64::from(n),
    };
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut mask).await.unwrap();
    }
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.unwrap();
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Some((first, payload))
}

/// Echoes as Autobahn wants it, until the end.
async fn echo(mut socket: WebSocket<DuplexStream>) {
    while let Some(Ok(message)) = socket.next().await {
        if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Plays frames against an echo, cut into chops of so many bytes, and gives what came back: frames up to the end, with 1,000 said
/// last if nothing else has ended it.
async fn play(frames: &[Frame], ours: Role, chop: usize) -> Vec<Frame> {
    let (near, far) = duplex(1 << 20);
    let conf = Conf::default().max_message(16 << 20);
    let socket = WebSocket::after_upgrade(far, BytesMut::new(), ours, &conf).await;
    let theirs = if ours == Role::Server { Role::Client } else { Role::Server };
    let echoing = tokio::spawn(echo(socket));
    let mut bytes = wire(frames, theirs);
    bytes.extend(wire(&[close(1000, "")], theirs));
    let (mut reading, mut writing) = tokio::io::split(near);
    let sending = tokio::spawn(async move {
        for chop in bytes.chunks(chop) {
            // The other end may have hung up already.
            if writing.write_all(chop).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        writing
    });
    let mut back = Vec::new();
    while let Some(frame) = in_time(read_frame(&mut reading)).await {
        back.push(frame);
    }
    echoing.await.unwrap();
    sending.await.unwrap();
    back
}

/// Each case as server and client, whole and in octets.
async fn case(number: &str, frames: &[Frame], expected: &[Frame]) {
    let long = frames.iter().any(|(_, payload)| payload.len() > 5000);
    for ours in [Role::Server, Role::Client] {
        for chop in if long { vec![usize::MAX, 997] } else { vec![usize::MAX, 1] } {
            let back = play(frames, ours, chop).await;
            assert!(same(&back, expected), "case {number} as {ours:?}: {back:x?}, expected {expected:x?}");
        }
    }
}

/// A close is the same whatever its reason says.
fn same(back: &[Frame], expected: &[Frame]) -> bool {
    let plain = |frame: &Frame| match frame {
        (0x88, payload) => (0x88, payload.get(..2).unwrap_or(payload).to_vec()),
        other => other.clone(),
    };
    back.iter().map(plain).eq(expected.iter().map(plain))
}

fn bye() -> Frame {
    close(1000, "")
}

fn failed() -> Frame {
    close(1002, "")
}

#[tokio::test]
async fn section_1_framing() {
    for (n, size) in [0, 125, 126, 127, 128, 65535, 65536].into_iter().enumerate() {
        let (text, bytes) = (vec![b'*'; size], vec![0xfe; size]);
        case(&format!("1.1.{}", n + 1), &[whole(TEXT, &text)], &[whole(TEXT, &text), bye()]).await;
        case(&format!("1.2.{}", n + 1), &[whole(BIN, &bytes)], &[whole(BIN, &bytes), bye()]).await;
    }
}

#[tokio::test]
async fn section_2_pings_and_pongs() {
    for (number, payload) in [
        ("2.1", &b""[..]),
        ("2.2", b"Hello, world!"),
        ("2.3", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),
        ("2.4", &[0xfe; 125]),
    ] {
        case(number, &[whole(PING, payload)], &[whole(PONG, payload), bye()]).await;
    }
    case("2.5", &[whole(PING, [0xfe; 126])], &[failed()]).await;
    case("2.7", &[whole(PONG, "")], &[bye()]).await;
    case("2.8", &[whole(PONG, "unsolicited")], &[bye()]).await;
    case("2.9", &[whole(PONG, "unsolicited"), whole(PING, "ping")], &[whole(PONG, "ping"), bye()]).await;
    let pings: Vec<_> = (0..10).map(|n| whole(PING, format!("payload-{n}"))).collect();
    let mut pongs: Vec<_> = (0..10).map(|n| whole(PONG, format!("payload-{n}"))).collect();
    pongs.push(bye());
    case("2.10", &pings, &pongs).await;
}

#[tokio::test]
async fn section_3_reserved_bits() {
    let hello = || whole(TEXT, "Hello, world!");
    let reserved = |rsv: u8, opcode: u8| frame(FIN | rsv << 4 | opcode, "Hello, world!");
    case("3.1", &[reserved(1, TEXT)], &[failed()]).await;
    for (number, rsv) in [("3.2", 2), ("3.3", 3), ("3.4", 4)] {
        case(number, &[hello(), reserved(rsv, TEXT), whole(PING, "")], &[hello(), failed()]).await;
    }
    case("3.5", &[reserved(5, BIN)], &[failed()]).await;
    case("3.6", &[reserved(6, PING)], &[failed()]).await;
    case("3.7", &[reserved(7, CLOSE)], &[failed()]).await;
}

#[tokio::test]
async fn section_4_reserved_opcodes() {
    let hello = || whole(TEXT, "Hello, world!");
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        case(&format!("4, opcode {opcode}"), &[whole(opcode, "")], &[failed()]).await;
        case(
            &format!("4, opcode {opcode} between"),
            &[hello(), whole(opcode, "reserved"), whole(PING, "")],
            &[hello(), failed()],
        )
        .await;
    }
}

#[tokio::test]
async fn section_5_fragmentation() {
    let two = || [part(TEXT, "fragment1"), whole(CONT, "fragment2")];
    let both = || whole(TEXT, "fragment1fragment2");
    case("5.1", &[part(PING, "fragment1"), whole(CONT, "fragment2")], &[failed()]).await;
    case("5.2", &[part(PONG, "fragment1"), whole(CONT, "fragment2")], &[failed()]).await;
    case("5.3", &two(), &[both(), bye()]).await;
    let [first, last] = two();
    case("5.6", &[first.clone(), whole(PING, "ping"), last.clone()], &[whole(PONG, "ping"), both(), bye()]).await;
    for first in [FIN | CONT, CONT] {
        let lone = frame(first, "non-continuation payload");
        case("5.9 to 5.14", &[lone, whole(TEXT, "Hello, world!")], &[failed()]).await;
    }
    let [one, two] = [part(TEXT, "fragment1"), whole(CONT, "fragment2")];
    case("5.15", &[one, two, part(CONT, "fragment3"), whole(TEXT, "fragment4")], &[both(), failed()]).await;
    case("5.16", &[part(CONT, "fragment1"), part(TEXT, "fragment2"), whole(CONT, "fragment3")], &[failed()]).await;
    case("5.18", &[part(TEXT, "fragment1"), whole(TEXT, "fragment2")], &[failed()]).await;
    let five = [
        part(TEXT, "fragment1"),
        part(CONT, "fragment2"),
        whole(PING, "pongme 1!"),
        part(CONT, "fragment3"),
        part(CONT, "fragment4"),
        whole(PING, "pongme 2!"),
        whole(CONT, "fragment5"),
    ];
    let expected = [
        whole(PONG, "pongme 1!"),
        whole(PONG, "pongme 2!"),
        whole(TEXT, "fragment1fragment2fragment3fragment4fragment5"),
        bye(),
    ];
    case("5.19", &five, &expected).await;
}

#[tokio::test]
async fn section_6_text_is_utf8() {
    case("6.1.1", &[whole(TEXT, "")], &[whole(TEXT, ""), bye()]).await;
    case("6.1.2", &[part(TEXT, ""), part(CONT, ""), whole(CONT, "")], &[whole(TEXT, ""), bye()]).await;
    case("6.1.3", &[part(TEXT, ""), part(CONT, "middle"), whole(CONT, "")], &[whole(TEXT, "middle"), bye()]).await;
    let valid = "Hello-µ@ßöäüàá-UTF-8!!";
    case("6.2.1", &[whole(TEXT, valid)], &[whole(TEXT, valid), bye()]).await;
    let mut octets: Vec<_> = valid.bytes().map(|byte| part(CONT, [byte])).collect();
    octets[0].0 = TEXT;
    octets.last_mut().unwrap().0 = FIN | CONT;
    case("6.2.3", &octets, &[whole(TEXT, valid), bye()]).await;
    let invalid = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited";
    case("6.3.1", &[whole(TEXT, invalid)], &[close(1007, "")]).await;
    case("6.3.2", &[part(TEXT, &invalid[..9]), whole(CONT, &invalid[9..])], &[close(1007, "")]).await;
    // 6.5 to 6.23: first, last and impossible sequences of each length, surrogates, overlong forms, lone continuations.
    for good in [
        "κόσμε",
        "\u{80}",
        "\u{800}",
        "\u{10000}",
        "\u{7f}",
        "\u{7ff}",
        "\u{ffff}",
        "\u{10ffff}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{fffd}",
        "\u{fffe}",
        "\0",
        "\u{1fffe}",
        "\u{fffff}",
    ] {
        case(&format!("6, valid {good:?}"), &[whole(TEXT, good)], &[whole(TEXT, good), bye()]).await;
    }
    for bad in [
        &b"\x80"[..],
        b"\xbf",
        b"\x80\xbf",
        b"\xc0\x20\xc1\x20",
        b"\xfc",
        b"\xfe",
        b"\xff",
        b"\xfe\xfe\xff\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xf8\x80\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xce",
        b"\xe1\xbd",
        b"\xf0\x90\x80",
    ] {
        case(&format!("6, invalid {bad:x?}"), &[whole(TEXT, bad)], &[close(1007, "")]).await;
    }
}

#[tokio::test]
async fn section_7_closing() {
    let hello = || whole(TEXT, "Hello World!");
    case("7.1.1", &[hello()], &[hello(), bye()]).await;
    case("7.1.2", &[bye(), bye()], &[bye()]).await;
    case("7.1.3", &[bye(), whole(PING, "")], &[bye()]).await;
    case("7.1.4", &[bye(), hello()], &[bye()]).await;
    case("7.1.5", &[part(TEXT, "fragment1"), bye(), whole(CONT, "fragment2")], &[bye()]).await;
    case(
        "7.1.6",
        &[whole(TEXT, vec![b'B'; 256 << 10]), hello(), bye(), whole(PING, "")],
        &[whole(TEXT, vec![b'B'; 256 << 10]), hello(), bye()],
    )
    .await;
    case("7.3.1", &[whole(CLOSE, "")], &[whole(CLOSE, "")]).await;
    case("7.3.2", &[whole(CLOSE, "a")], &[failed()]).await;
    case("7.3.4", &[close(1000, "Hello World!")], &[bye()]).await;
    case("7.3.5", &[close(1000, [b'*'; 123])], &[bye()]).await;
    case("7.3.6", &[close(1000, [b'*'; 124])], &[failed()]).await;
    case("7.5.1", &[close(1000, b"\xce\xba\xed\xa0\x80")], &[close(1007, "")]).await;
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        case(&format!("7.7, code {code}"), &[close(code, "")], &[close(code, "")]).await;
    }
    for code in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999] {
        case(&format!("7.9, code {code}"), &[close(code, "")], &[failed()]).await;
    }
}

#[tokio::test]
async fn sections_9_and_10_long_messages_whole_and_in_fragments() {
    for (number, size) in [("9.1.3", 1 << 20), ("9.1.5", 8 << 20)] {
        let long = vec![b'*'; size];
        let back = play(&[whole(TEXT, &long)], Role::Server, usize::MAX).await;
        assert!(same(&back, &[whole(TEXT, &long), bye()]), "case {number}");
    }
    for (number, each) in [("9.3", 4096), ("10.1.1", 1300)] {
        let long = vec![b'*'; 1 << 20];
        let mut parts: Vec<_> = long.chunks(each).map(|chunk| part(CONT, chunk)).collect();
        parts[0].0 = TEXT;
        parts.last_mut().unwrap().0 = FIN | CONT;
        let back = play(&parts, Role::Client, usize::MAX).await;
        assert!(same(&back, &[whole(TEXT, &long), bye()]), "case {number}");
    }
}
