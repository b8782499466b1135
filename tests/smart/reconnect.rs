//! Connections that end and come again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use natpipe::smart::{Builder, Event, Reconnect, SmartSocket, Timing};
use tokio::net::TcpListener;

use crate::{event, peers, socket, soon, text};

fn quick() -> Builder {
    SmartSocket::builder().reconnect(Reconnect::exponential(Duration::from_millis(5), Duration::from_millis(50)))
}

#[tokio::test]
async fn a_bind_end_that_is_restarted_is_found_again_and_the_queue_outlives_it() {
    let client = quick().build().unwrap();
    let mut server = socket();
    let addr = server.bind("127.0.0.1:0").await.unwrap();
    client.connect(&addr).unwrap();
    for round in 0..5 {
        peers(&client, 1).await;
        client.send(format!("a{round}")).await.unwrap();
        assert_eq!(text(&server).await, format!("a{round}"));
        server.close().await.unwrap();
        peers(&client, 0).await;
        for n in 0..3 {
            client.send(format!("b{round}{n}")).await.unwrap();
        }
        server = socket();
        server.bind(&addr).await.unwrap();
        for n in 0..3 {
            assert_eq!(text(&server).await, format!("b{round}{n}"));
        }
    }
}

#[tokio::test]
async fn the_waits_are_asked_from_the_users_strategy_and_begin_anew_after_a_greeting() {
    // Bound and not listening: nobody else takes the port, and connecting is refused.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = nobody.local_addr().unwrap();
    drop(nobody);
    let asked = Arc::new(AtomicU32::new(0));
    let seen = asked.clone();
    let reconnect = Reconnect::by(move |failed| {
        seen.store(failed, Ordering::SeqCst);
        Duration::from_millis(5)
    });
    let client = SmartSocket::builder().reconnect(reconnect).build().unwrap();
    let mut events = client.events();
    client.connect(addr).unwrap();
    crate::until("five tries", || asked.load(Ordering::SeqCst) >= 5).await;
    let why = event(&mut events, |event| match event {
        Event::NotReached { why, to, .. } => Some((why, to)),
        _ => None,
    });
    let (why, to) = why.await;
    assert!(why.contains("refused") && to == addr.to_string(), "{why} {to}");
    let server = socket();
    server.bind(addr).await.unwrap();
    peers(&client, 1).await;
    server.close().await.unwrap();
    crate::until("the first wait", || asked.load(Ordering::SeqCst) <= 3).await;
}

#[tokio::test]
async fn a_server_that_accepts_and_closes_is_not_called_in_a_circle() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = SmartSocket::builder()
        .reconnect(Reconnect::exponential(Duration::from_millis(50), Duration::from_secs(5)))
        .build()
        .unwrap();
    client.connect(listener.local_addr().unwrap()).unwrap();
    let mut calls = 0;
    let counting = async {
        loop {
            drop(listener.accept().await);
            calls += 1;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(1), counting).await.is_err());
    assert!((2..20).contains(&calls), "{calls}");
}

#[tokio::test]
async fn a_message_to_a_peer_that_has_just_come_does_not_wait_for_a_heartbeat() {
    let timing = Timing { heartbeat: Duration::from_secs(3600), patience: Duration::from_secs(3600) };
    let server = SmartSocket::builder().timing(timing).build().unwrap();
    let addr = server.bind("127.0.0.1:0").await.unwrap();
    let mut events = server.events();
    for _ in 0..200 {
        let client = SmartSocket::builder().timing(timing).build().unwrap();
        client.connect(&addr).unwrap();
        let identity = event(&mut events, |event| match event {
            Event::Connected { identity, .. } => Some(identity),
            _ => None,
        });
        server.send_to(identity.await, "welcome").await.unwrap();
        assert_eq!(text(&client).await, "welcome");
    }
}

#[tokio::test]
async fn an_answer_to_one_that_comes_back_waits_for_it() {
    let (client, server) = (quick().build().unwrap(), socket());
    let addr = server.bind("127.0.0.1:0").await.unwrap();
    let identity = server.identity();
    client.connect(&addr).unwrap();
    peers(&client, 1).await;
    server.close().await.unwrap();
    peers(&client, 0).await;
    soon("taking it", client.send_to(identity, "for you alone")).await.unwrap();
    let stranger = socket();
    stranger.bind(&addr).await.unwrap();
    peers(&client, 1).await;
    assert_eq!(client.counters().waiting, 1);
    drop(stranger);
    let again = SmartSocket::builder().identity(identity).build().unwrap();
    soon("the port", async {
        while again.bind(&addr).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(text(&again).await, "for you alone");
}
