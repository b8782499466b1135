//! Members: how they come, are asked, go, and come again.

use std::time::Duration;

use natpipe::NetConf;
use natpipe::frame::ws::Refusal;
use natpipe::pipe::tls::{Identity, TlsClient, TlsServer};
use natpipe::pool::{AskError, Backoff, Context, Event, Packed, Pool, PoolConf, Router, Value, Visitor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{echo, in_time, socket_path};

/// How many answers a publish gets, all of them the message.
async fn published(pool: &Pool, msg: &str) -> usize {
    let mut answers = pool.publish(msg).answers().await.unwrap();
    let mut count = 0;
    while let Some(reply) = answers.next().await {
        assert_eq!(reply.unwrap().msg.get::<String>().unwrap(), msg);
        count += 1;
    }
    count
}

/// What the seed's own tests do: a listener and four clients, over TCP and Unix, each side asking all and one.
#[tokio::test]
async fn binds_and_clients_over_tcp_and_unix_are_one_pool() {
    let path = socket_path("mixed");
    let (worker, req) = (echo("worker"), echo("req"));
    let bound = worker.bind("127.0.0.1:0").await.unwrap();
    let _unix = worker.bind_unix(&path).await.unwrap();
    for _ in 0..4 {
        req.client(bound.url()).await.unwrap();
        req.client_unix(&path).await.unwrap();
    }
    in_time(worker.joined(8)).await;
    assert_eq!(published(&req, "to the workers").await, 8);
    assert_eq!(published(&worker, "to those who asked").await, 8);
    for pool in [&req, &worker] {
        assert_eq!(pool.rand("one").await.unwrap().get::<String>().unwrap(), "one");
        assert_eq!(pool.avail("one").await.unwrap().get::<String>().unwrap(), "one");
        let con = pool.members()[3].id();
        assert_eq!(pool.to(con, "him").await.unwrap().get::<String>().unwrap(), "him");
    }
    req.close().await;
    assert!(req.is_empty());
    let mut events = worker.events();
    while !worker.is_empty() {
        in_time(events.next()).await;
    }
}

#[tokio::test]
async fn the_seeds_framing_on_unix_sockets_serves_both_ways() {
    let path = socket_path("delimited");
    let (worker, req) = (echo("worker"), echo("req"));
    let _bound = worker.bind_unix(&path).await.unwrap();
    req.client_unix(&path).delimited().await.unwrap();
    assert_eq!(req.rand("hi").await.unwrap().get::<String>().unwrap(), "hi");
    assert_eq!(
        worker.rand(b"d\xff\xcfCO)\xfe=".to_vec()).await.unwrap().get::<Vec<u8>>().unwrap(),
        b"d\xff\xcfCO)\xfe="
    );
}

/// The seed's framing has no message for metadata alone: a stranger learns them with what it is sent first.
#[tokio::test]
async fn a_stranger_learns_metadata_from_whatever_is_sent_to_it() {
    let path = socket_path("strangers");
    let meta = [("role".to_owned(), Value::from("db"))].into();
    let router = Router::new(|_: Context, msg: Packed| async move { msg });
    let worker = Pool::with("worker", PoolConf::default().meta(meta), router);
    let req = echo("req");
    let _bound = worker.bind_unix(&path).await.unwrap();
    let con = req.client_unix(&path).delimited().await.unwrap().con().unwrap();
    in_time(worker.joined(1)).await;
    worker.members()[0].ask(1).await.unwrap();
    assert_eq!(con.meta().get("role"), Some(&Value::from("db")));
}

#[tokio::test]
async fn over_tls_the_hook_sees_who_the_client_is() {
    let (server, client) = (Identity::self_signed(&["localhost"]).unwrap(), Identity::self_signed(&["me"]).unwrap());
    let roots = server.root_pem();
    let tls = TlsServer::with_client_roots(server, &client.root_pem()).unwrap();
    let (told, mut shown) = tokio::sync::mpsc::channel(1);
    let worker = echo("worker");
    let bound = worker.bind("127.0.0.1:0").conf(NetConf::default().tls_server(tls));
    let bound = bound.authenticate(move |visitor: Visitor| {
        let told = told.clone();
        async move {
            let certificate = visitor.certificate.ok_or_else(|| Refusal::forbidden("no certificate"))?;
            told.send((certificate, visitor.request.headers()["x-who"].clone())).await.unwrap();
            Ok(())
        }
    });
    let bound = bound.await.unwrap();
    let port = bound.local_addr().port().unwrap();
    assert!(bound.url().starts_with("wss://"), "{}", bound.url());
    let req = echo("req");
    let trusting = NetConf::default().tls_client(TlsClient::trusting(&roots).unwrap().identity(client));
    let connecting = req.client(format!("wss://localhost:{port}/ws")).conf(trusting);
    in_time(connecting.header("x-who".parse().unwrap(), "me".parse().unwrap()).into_future()).await.unwrap();
    let (certificate, who) = shown.recv().await.unwrap();
    assert!(certificate.len() > 100 && who == "me");
    assert_eq!(req.rand(1).await.unwrap().get::<u8>().unwrap(), 1);
    assert_eq!(worker.rand(2).await.unwrap().get::<u8>().unwrap(), 2);
}

#[tokio::test]
async fn a_client_connects_again_and_loses_nothing_that_comes_after() {
    let req = echo("req");
    let first = echo("first");
    let bound = first.bind("127.0.0.1:0").await.unwrap();
    let addr = bound.local_addr().ip().unwrap();
    let quick = Backoff::default().first(Duration::from_millis(5)).longest(Duration::from_millis(50));
    let client = req.client(bound.url()).backoff(quick).await.unwrap();
    let mut events = req.events();
    first.close().await;
    loop {
        match in_time(events.next()).await.unwrap() {
            Event::Retrying { dest, why } => break assert!(dest.contains(&addr.to_string()) && !why.is_empty()),
            _ => assert!(req.is_empty() || client.con().is_some()),
        }
    }
    assert!(matches!(req.rand(1).await, Err(AskError::NoMember { .. })));
    let second = echo("second");
    let _bound = second.bind(addr).await.unwrap();
    in_time(client.connected()).await.unwrap();
    for n in 0..50 {
        assert_eq!(req.rand(n).await.unwrap().get::<u32>().unwrap(), n);
    }
    client.stop().await;
    assert!(req.is_empty() && client.con().is_none());
    in_time(async {
        let mut left = second.events();
        while !second.is_empty() {
            left.next().await;
        }
    })
    .await;
}

#[tokio::test]
async fn paths_headers_and_a_proxy_in_front_work() {
    let worker = echo("worker");
    let bound = worker.bind("127.0.0.1:0").path("/deep/pool").await.unwrap();
    let behind = bound.local_addr().ip().unwrap();
    // A proxy that passes bytes on, as a load balancer for TCP does.
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = proxy.local_addr().unwrap();
    let passing = tokio::spawn(async move {
        let (mut near, _) = proxy.accept().await.unwrap();
        let mut far = TcpStream::connect(behind).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    let req = echo("req");
    let connecting = req.client(format!("ws://{front}/deep/pool?x=1"));
    in_time(connecting.header("host".parse().unwrap(), "pool.example".parse().unwrap()).into_future()).await.unwrap();
    assert_eq!(req.rand("through").await.unwrap().get::<String>().unwrap(), "through");
    assert_eq!(worker.members()[0].path(), "/deep/pool");

    let elsewhere = req.client(format!("ws://{behind}/ws"));
    let mut events = req.events();
    let client = elsewhere.start().unwrap();
    loop {
        if let Event::Retrying { why, .. } = in_time(events.next()).await.unwrap() {
            break assert!(why.contains("404"), "{why}");
        }
    }
    client.stop().await;
    passing.abort();
}

#[tokio::test]
async fn a_silent_member_is_found_dead_and_a_quiet_one_is_not() {
    let conf = PoolConf::default().ping(Duration::from_millis(50)).dead(Duration::from_millis(150));
    let worker = Pool::with("worker", conf, Router::new(|_: Context, msg: Packed| async move { msg }));
    let bound = worker.bind("127.0.0.1:0").await.unwrap();
    let mut events = worker.events();
    let quiet = echo("quiet");
    quiet.client(bound.url()).await.unwrap();
    let alive = match in_time(events.next()).await.unwrap() {
        Event::Joined(con) => con,
        other => panic!("{other:?}"),
    };
    // It upgrades, and never says a word again, not even to a ping.
    let mut dead = TcpStream::connect(bound.local_addr().ip().unwrap()).await.unwrap();
    dead.write_all(UPGRADE).await.unwrap();
    let left = loop {
        if let Event::Left(con, left) = in_time(events.next()).await.unwrap() {
            assert_ne!(con, alive);
            break left;
        }
    };
    assert_eq!(left, natpipe::pool::Left::Dead);
    assert_eq!(worker.members(), [alive]);
    let mut rest = Vec::new();
    dead.read_to_end(&mut rest).await.unwrap();
}

pub const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn a_full_pool_says_so_and_takes_the_next_when_there_is_room() {
    let conf = PoolConf::default().max_members(1);
    let worker = Pool::with("worker", conf, Router::new(|_: Context, msg: Value| async move { msg }));
    let bound = worker.bind("127.0.0.1:0").await.unwrap();
    let req = echo("req");
    let first = req.client(bound.url()).await.unwrap();
    let mut events = req.events();
    let quick = Backoff::default().first(Duration::from_millis(5)).longest(Duration::from_millis(50));
    let second = req.client(bound.url()).backoff(quick).start().unwrap();
    loop {
        if let Event::Retrying { why, .. } = in_time(events.next()).await.unwrap() {
            break assert!(why.contains("503"), "{why}");
        }
    }
    first.stop().await;
    in_time(second.connected()).await.unwrap();
}

#[tokio::test]
async fn a_listener_that_is_closed_keeps_its_members_and_takes_no_more() {
    let worker = echo("worker");
    let bound = worker.bind("127.0.0.1:0").await.unwrap();
    let (url, addr) = (bound.url().to_owned(), bound.local_addr().ip().unwrap());
    let req = echo("req");
    req.client(url).await.unwrap();
    in_time(bound.close()).await;
    assert!(TcpStream::connect(addr).await.is_err());
    assert_eq!(req.rand("still").await.unwrap().get::<String>().unwrap(), "still");
    worker.close().await;
    assert!(worker.bind("127.0.0.1:0").await.is_err() && worker.client("127.0.0.1:9").start().is_err());
}
