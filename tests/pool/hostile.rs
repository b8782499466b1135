//! What hostile and broken members do: each gets the right answer, and harms only itself.

use std::time::Duration;

use natpipe::frame::ws::{self, Conf, Message, WebSocket};
use natpipe::pipe::PipeStream;
use natpipe::pool::{AskError, Bound, Context, Event, Left, Packed, Pool, PoolConf, Router, Value};
use natpipe::{Proto, pipe_open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::members::UPGRADE;
use crate::{echo, in_time};

async fn joined(bound: &Bound) -> WebSocket<PipeStream> {
    let pipe = pipe_open(Proto::Tcp).dest(bound.local_addr()).await.unwrap();
    let conf = Conf::default().max_message(64 << 20);
    ws::connect(pipe.into_stream().await, bound.url(), &conf).await.unwrap().socket
}

/// The code with which a member is closed that sends this.
async fn code_for(bound: &Bound, message: Message) -> u16 {
    let mut member = joined(bound).await;
    member.send(message).await.unwrap();
    loop {
        match in_time(member.next()).await.unwrap().unwrap() {
            Message::Close(close) => return close.code,
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn each_breach_is_closed_with_its_code_and_the_good_member_stays() {
    let conf = PoolConf::default().max_message(10_000).max_meta(100);
    let worker = Pool::with("worker", conf, Router::new(|_: Context, msg: Packed| async move { msg }));
    let bound = worker.bind("127.0.0.1:0").await.unwrap();
    let good = echo("good");
    good.client(bound.url()).await.unwrap();
    let meta = [&b"\x81\xa4meta\x81\xa1a\xda\x01\x00"[..], &[b'x'; 256]].concat();
    for (what, message, code) in [
        ("text", Message::text("hello"), 1003),
        ("no MessagePack", Message::binary(&b"\xc1"[..]), 1007),
        ("nothing", Message::binary(&b""[..]), 1007),
        ("MessagePack cut short", Message::binary(&b"\x81\xa3msg"[..]), 1007),
        ("nested too deeply", Message::binary(vec![0x91; 1000]), 1007),
        ("no map", Message::binary(&b"\x93\x01\x02\x03"[..]), 1007),
        ("no keys", Message::binary(&b"\x81\xa4done\xc3"[..]), 1008),
        ("too much metadata", Message::binary(meta), 1008),
        ("too long", Message::binary(vec![0; 20_000]), 1009),
    ] {
        assert_eq!(code_for(&bound, message).await, code, "{what}");
        assert_eq!(good.rand(what).await.unwrap().get::<String>().unwrap(), what);
    }
}

/// No crate in question does it (docs/pool.md): an offer is not taken up, and what is compressed all the same is a broken frame.
#[tokio::test]
async fn an_offer_of_compression_is_answered_without_it() {
    let worker = echo("worker");
    let bound = worker.bind("127.0.0.1:0").await.unwrap();
    let mut member = TcpStream::connect(bound.local_addr().ip().unwrap()).await.unwrap();
    let head = String::from_utf8(UPGRADE.to_vec()).unwrap();
    let offer = "\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-other\r\n\r\n";
    member.write_all(head.replace("\r\n\r\n", offer).as_bytes()).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        said.push(in_time(member.read_u8()).await.unwrap());
    }
    let said = String::from_utf8(said).unwrap().to_lowercase();
    assert!(said.starts_with("http/1.1 101 ") && !said.contains("extensions"), "{said}");
    // A ping that is not compressed is answered; a frame that says it is (RSV1, RFC 7692 section 6) closes with 1002.
    member.write_all(b"\x89\x82\0\0\0\0hi").await.unwrap();
    let mut pong = [0; 4];
    in_time(member.read_exact(&mut pong)).await.unwrap();
    assert_eq!(&pong, b"\x8a\x02hi");
    member.write_all(b"\xc2\x81\0\0\0\0x").await.unwrap();
    let mut close = [0; 4];
    in_time(member.read_exact(&mut close)).await.unwrap();
    assert_eq!((close[0], &close[2..]), (0x88, &1002u16.to_be_bytes()[..]));
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_dropped() {
    let worker = echo("worker");
    let bound = worker.bind("127.0.0.1:0").await.unwrap();
    let mut member = joined(&bound).await;
    let unasked = b"\x84\xa3msg\x01\xa4done\xc3\xa4rtag\xc4\x100123456789abcdef\xa5count\x01";
    member.feed(Message::binary(&unasked[..])).await.unwrap();
    member.feed(Message::binary(&b"\x82\xa3msg\x01\xa4rtag\xc0"[..])).await.unwrap();
    member.send(Message::binary(&b"\x82\xa3msg\x07\xa4stag\x05"[..])).await.unwrap();
    let Message::Binary(answer) = in_time(member.next()).await.unwrap().unwrap() else { panic!("no answer") };
    assert_eq!(answer, &b"\x84\xa3msg\x07\xa4done\xc3\xa4rtag\x05\xa5count\x01"[..], "the tag comes back as it was");
}

/// What is answered to these bytes.
async fn answered(bound: &Bound, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(bound.local_addr().ip().unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    in_time(stream.read_to_end(&mut said)).await.unwrap();
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn what_is_no_request_for_a_member_is_answered_with_its_status() {
    let worker = echo("worker");
    let bound = worker.bind("127.0.0.1:0").bearer("secret").await.unwrap();
    let upgrade = String::from_utf8(UPGRADE.to_vec()).unwrap();
    let with = |header: &str| upgrade.replacen("Host: x\r\n", &format!("Host: x\r\n{header}\r\n"), 1);
    for (what, bytes, status) in [
        ("no HTTP", "SSH-2.0-x\r\n\r\n".to_owned(), "400"),
        ("a page", "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "426"),
        ("an old version", upgrade.replace(": 13", ": 8"), "426"),
        ("another path", upgrade.replace("/ws", "/wss"), "404"),
        ("no token", upgrade.clone(), "401"),
        ("a wrong token", with("Authorization: Bearer secreT"), "401"),
        ("another page", with("Authorization: Bearer secret\r\nOrigin: http://evil.example"), "403"),
    ] {
        let said = answered(&bound, bytes.as_bytes()).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {said}");
    }
    assert!(worker.is_empty());
}

#[tokio::test]
async fn a_member_that_never_reads_is_dropped_and_holds_up_nobody() {
    let conf =
        PoolConf::default().ping(Duration::from_millis(100)).dead(Duration::from_millis(400)).max_qbytes(1 << 20);
    let worker = Pool::with("worker", conf, Router::new(|_: Context, msg: Value| async move { msg }));
    let bound = worker.bind("127.0.0.1:0").await.unwrap();
    let good = echo("good");
    good.client(bound.url()).await.unwrap();
    let mut deaf = TcpStream::connect(bound.local_addr().ip().unwrap()).await.unwrap();
    deaf.write_all(UPGRADE).await.unwrap();
    in_time(worker.joined(2)).await;
    let mut events = worker.events();
    // It is published to until its queue is full, and further; the good one answers all the while.
    let message = vec![7u8; 100_000];
    let mut full = false;
    for _ in 0..200 {
        let mut answers = worker.publish(&message).deadline(Duration::from_secs(30)).answers().await.unwrap();
        let mut good_ones = 0;
        while good_ones == 0 {
            match in_time(answers.next()).await.unwrap() {
                Ok(reply) => good_ones += usize::from(reply.msg.as_bytes().len() > 100_000),
                Err(AskError::Full { .. }) => full = true,
                Err(AskError::Gone { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        if worker.len() == 1 {
            break;
        }
    }
    assert!(full || worker.len() == 1);
    let left = loop {
        if let Event::Left(_, left) = in_time(events.next()).await.unwrap() {
            break left;
        }
    };
    assert!(matches!(left, Left::Stuck | Left::Dead), "{left:?}");
    assert_eq!(good.rand("still here").await.unwrap().get::<String>().unwrap(), "still here");
}

#[tokio::test]
async fn a_member_that_asks_without_reading_is_not_read_any_more() {
    let conf = PoolConf::default().max_qbytes(1 << 20).max_calls(10);
    let worker = Pool::with("worker", conf, Router::new(|_: Context, n: usize| async move { vec![1u8; n] }));
    let bound = worker.bind("127.0.0.1:0").await.unwrap();
    let mut greedy = joined(&bound).await;
    // 1,000 questions with an answer of 200,000 bytes each: they must not all be made at once.
    let question = b"\x82\xa3msg\xce\x00\x03\x0d\x40\xa4stag\x01";
    for _ in 0..1_000 {
        greedy.feed(Message::binary(&question[..])).await.unwrap();
    }
    greedy.flush().await.unwrap();
    let before = resident();
    for _ in 0..20 {
        in_time(greedy.next()).await.unwrap().unwrap();
    }
    assert!(resident() < before + (80 << 20), "answers are made as they are taken");
    let good = echo("good");
    good.client(bound.url()).await.unwrap();
    assert_eq!(good.rand(3).await.unwrap().get::<Vec<u8>>().unwrap(), [1, 1, 1]);
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
