//! What peers do that break the protocol: they lose their connection, and nobody else notices.

use std::net::SocketAddr;
use std::time::Duration;

use natpipe::smart::protocol::Envelope;
use natpipe::smart::{Cause, Event, Events, Identity, SmartSocket, Timing};

use crate::{Raw, event, peers, socket, soon, text, until};

async fn bound(socket: &SmartSocket) -> SocketAddr {
    socket.bind("127.0.0.1:0").await.unwrap().ip().unwrap()
}

async fn refused(events: &mut Events) -> Cause {
    event(events, |event| match event {
        Event::Refused { cause, .. } | Event::Disconnected { cause, .. } => Some(cause),
        _ => None,
    })
    .await
}

/// A peer that behaves is still served.
async fn still_serves(socket: &SmartSocket, addr: SocketAddr) {
    let mut peer = Raw::greeted(addr, 200).await;
    peer.say(&Envelope::Data("well-behaved".into())).await;
    assert_eq!(text(socket).await, "well-behaved");
    drop(peer);
    until("its end", || socket.peers().iter().all(|peer| peer.identity != Identity::from([200; 16]))).await;
}

#[tokio::test]
async fn each_breach_closes_its_connection_with_a_cause() {
    let server = socket();
    let mut events = server.events();
    let addr = bound(&server).await;
    let mut hello = Vec::new();
    Envelope::Hello { version: 1, identity: Identity::from([1; 16]) }.encode(&mut hello);
    let twice = [hello.clone(), hello.clone()].concat();
    let oversized = [&hello[..], b"\xFF\xFF\xFF\xFF"].concat();
    for (bytes, part) in [
        (&b"\0\0\0\x03\x03hi"[..], "first frame is no HELLO"),
        (b"\0\0\0\x01\x02", "first frame is no HELLO"),
        (b"\0\0\0\0", "first frame is no HELLO"),
        (b"\0\0\0\x12\x01\x02................", "version 2"),
        (b"\0\0\0\x05\x01\x01abc", "HELLO of 4 bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "are the most"),
        (b"\xFF\xFF\xFF\xFFaaaa", "are the most"),
        (b"\0\x01\0\0", "are the most"),
        (&twice, "greeted twice"),
        (&oversized, "are the most"),
    ] {
        let mut raw = Raw::connect(addr).await;
        raw.write(bytes).await;
        raw.closed().await;
        let cause = refused(&mut events).await.to_string();
        assert!(cause.contains(part), "{bytes:?}: {cause}");
    }
    still_serves(&server, addr).await;
}

#[tokio::test]
async fn a_double_identity_is_refused_and_the_first_one_goes_on() {
    let server = socket();
    let mut events = server.events();
    let addr = bound(&server).await;
    let mut first = Raw::greeted(addr, 7).await;
    peers(&server, 1).await;
    let mut second = Raw::greeted(addr, 7).await;
    second.closed().await;
    assert_eq!(refused(&mut events).await, Cause::Double(Identity::from([7; 16])));
    server.send("for the first").await.unwrap();
    assert_eq!(first.hear().await, Some(Envelope::Data("for the first".into())));
}

#[tokio::test]
async fn what_is_unknown_or_malformed_after_hello_is_skipped() {
    let server = socket();
    let addr = bound(&server).await;
    let mut raw = Raw::greeted(addr, 1).await;
    // Nothing, an unknown type, an id that is too short, ACKs for nothing.
    raw.write(b"\0\0\0\0\0\0\0\x03\x99ab\0\0\0\x03\x04ab\0\0\0\x02\x05a").await;
    for n in 0..10_000u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        raw.say(&Envelope::Ack(id)).await;
    }
    raw.say(&Envelope::Data("after it".into())).await;
    assert_eq!(text(&server).await, "after it");
}

#[tokio::test]
async fn hello_and_messages_in_single_bytes_or_all_at_once_are_the_same() {
    let server = socket();
    let addr = bound(&server).await;
    let mut all = Vec::new();
    Envelope::Hello { version: 1, identity: Identity::from([1; 16]) }.encode(&mut all);
    Envelope::Data("one".into()).encode(&mut all);
    Envelope::Data("two".into()).encode(&mut all);
    let mut raw = Raw::connect(addr).await;
    raw.write(&all).await;
    assert_eq!([text(&server).await, text(&server).await], ["one", "two"]);
    drop(raw);
    peers(&server, 0).await;
    let mut raw = Raw::connect(addr).await;
    raw.stream.set_nodelay(true).unwrap();
    for byte in all {
        raw.write(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!([text(&server).await, text(&server).await], ["one", "two"]);
}

#[tokio::test]
async fn who_is_silent_is_disconnected_greeted_or_not() {
    let timing = Timing { heartbeat: Duration::from_millis(100), patience: Duration::from_millis(400) };
    let server = SmartSocket::builder().timing(timing).build().unwrap();
    let mut events = server.events();
    let addr = bound(&server).await;
    let mut silent = Raw::connect(addr).await;
    silent.closed().await;
    assert!(refused(&mut events).await.to_string().contains("nothing came"));
    // Half a frame, and then nothing.
    let mut half = Raw::greeted(addr, 1).await;
    half.write(b"\0\0\x10\0\x03half").await;
    let mut beats = 0;
    while let Some(heard) = half.hear().await {
        assert_eq!(heard, Envelope::Heartbeat);
        beats += 1;
    }
    assert!(beats > 0, "meanwhile it heard heartbeats");
    assert!(refused(&mut events).await.to_string().contains("nothing came"));
    still_serves(&server, addr).await;
}

#[tokio::test]
async fn two_sockets_that_say_nothing_stay_connected_by_heartbeats() {
    let timing = Timing { heartbeat: Duration::from_millis(50), patience: Duration::from_millis(1000) };
    let quiet = || SmartSocket::builder().timing(timing).build().unwrap();
    let (server, client) = crate::connected(quiet(), quiet()).await;
    let mut events = server.events();
    let lost = tokio::time::timeout(Duration::from_millis(2500), refused(&mut events)).await;
    assert!(lost.is_err(), "{lost:?}");
    client.send("still there").await.unwrap();
    assert_eq!(text(&server).await, "still there");
}

#[tokio::test]
async fn a_flood_of_silent_connections_keeps_nobody_out() {
    let server = SmartSocket::builder().max_greeting(50).build().unwrap();
    let addr = bound(&server).await;
    let mut flood = Vec::new();
    for _ in 0..400 {
        flood.push(Raw::connect(addr).await);
    }
    still_serves(&server, addr).await;
    // All but the last fifty were shown out.
    let mut open = 0;
    for mut raw in flood {
        let closed = tokio::time::timeout(Duration::from_millis(20), raw.closed()).await;
        open += usize::from(closed.is_err());
    }
    assert!(open <= 50, "{open}");
}

#[tokio::test]
async fn no_more_peers_than_allowed_are_connected() {
    let server = SmartSocket::builder().max_peers(2).build().unwrap();
    let mut events = server.events();
    let addr = bound(&server).await;
    let _peers = [Raw::greeted(addr, 1).await, Raw::greeted(addr, 2).await];
    peers(&server, 2).await;
    Raw::greeted(addr, 3).await.closed().await;
    assert_eq!(refused(&mut events).await, Cause::TooManyPeers(2));
}

#[tokio::test]
async fn a_reader_that_stops_in_the_middle_holds_up_only_itself() {
    let server =
        SmartSocket::builder().recv_limits(natpipe::smart::Limits { messages: 10, bytes: 1 << 16 }).build().unwrap();
    let addr = bound(&server).await;
    let mut raw = Raw::greeted(addr, 1).await;
    let flood = tokio::spawn(async move {
        for n in 0..100_000u32 {
            raw.say(&Envelope::Data(n.to_string().into())).await;
        }
        raw
    });
    until("the inbox", || server.peers().first().is_some_and(|peer| peer.counters.received > 0)).await;
    for n in 0..100_000u32 {
        assert_eq!(text(&server).await, n.to_string());
    }
    drop(soon("the flood", flood).await.unwrap());
}
