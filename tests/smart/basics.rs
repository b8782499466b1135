//! Sending and receiving in every mode, over every kind of pipe.

use std::collections::BTreeSet;
use std::future::IntoFuture;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use natpipe::smart::{Endpoint, Event, Identity, Outgoing, Receiver, SendError, SendMode, SmartSocket};
use natpipe::{NetConf, Pipe, Proto, pipe_open};

use crate::{connected, event, peers, socket, soon, text, until};

fn publisher() -> SmartSocket {
    SmartSocket::builder().mode(SendMode::Publish).build().unwrap()
}

#[tokio::test]
async fn messages_go_both_ways_whole_and_in_order() {
    let (server, client) = connected(socket(), socket()).await;
    for len in [0, 1, 63, 8 << 10, (8 << 10) + 1, 100_000, 3_000_000] {
        client.send(vec![7; len]).await.unwrap();
        assert_eq!(soon("the message", server.recv()).await.unwrap(), vec![7; len]);
        server.send(vec![9; len]).await.unwrap();
        assert_eq!(soon("the answer", client.recv()).await.unwrap(), vec![9; len]);
    }
    let sender = tokio::spawn(async move {
        for n in 0..50_000u32 {
            let len = 4 + (n as usize * 7919) % 300;
            let mut message = n.to_be_bytes().to_vec();
            message.resize(len, 0);
            client.send(message).await.unwrap();
        }
        client
    });
    for n in 0..50_000u32 {
        let message = soon("the next", server.recv()).await.unwrap();
        assert_eq!(message[..4], n.to_be_bytes());
        assert_eq!(message.len(), 4 + (n as usize * 7919) % 300);
    }
    drop(sender.await.unwrap());
}

#[tokio::test]
async fn what_is_sent_before_anybody_is_there_arrives_in_order() {
    let client = socket();
    for n in 0..100 {
        client.send(n.to_string()).await.unwrap();
    }
    let server = socket();
    let addr = server.bind("127.0.0.1:0").await.unwrap();
    assert_eq!(client.counters().waiting, 100);
    client.connect(addr).unwrap();
    for n in 0..100 {
        assert_eq!(text(&server).await, n.to_string());
    }
}

#[tokio::test]
async fn round_robin_gives_each_peer_its_share() {
    let server = socket();
    let addr = server.bind("127.0.0.1:0").await.unwrap();
    let clients = [socket(), socket(), socket()];
    for (n, client) in clients.iter().enumerate() {
        client.connect(&addr).unwrap();
        peers(&server, n + 1).await;
    }
    for n in 0..9 {
        server.send(n.to_string()).await.unwrap();
    }
    for (at, client) in clients.iter().enumerate() {
        for n in 0..3 {
            assert_eq!(text(client).await, (at + 3 * n).to_string());
        }
    }
}

#[tokio::test]
async fn one_socket_binds_and_connects_as_often_as_it_likes() {
    let middle = publisher();
    let (first, second) = (middle.bind("127.0.0.1:0").await.unwrap(), middle.bind("[::1]:0").await.unwrap());
    let others = [socket(), socket(), socket(), socket()];
    others[0].connect(first).unwrap();
    others[1].connect(second).unwrap();
    for other in &others[2..] {
        let addr = other.bind("127.0.0.1:0").await.unwrap();
        middle.connect(addr).unwrap();
    }
    peers(&middle, 4).await;
    middle.send("to all").await.unwrap();
    for other in &others {
        assert_eq!(text(other).await, "to all");
        other.send("back").await.unwrap();
    }
    let mut from = BTreeSet::new();
    for _ in &others {
        let message = soon("an answer", middle.recv_from()).await.unwrap();
        from.insert(message.from);
        middle.send_to(message.from, "only you").await.unwrap();
    }
    assert_eq!(from, others.iter().map(SmartSocket::identity).collect());
    for other in &others {
        assert_eq!(text(other).await, "only you");
    }
}

#[tokio::test]
async fn by_identity_a_message_reaches_the_one_that_is_named() {
    let server = SmartSocket::builder().mode(SendMode::ByIdentity).build().unwrap();
    let addr = server.bind("127.0.0.1:0").await.unwrap();
    let clients = [socket(), socket()];
    for client in &clients {
        client.connect(&addr).unwrap();
    }
    peers(&server, 2).await;
    for client in &clients {
        server.send_to(client.identity(), client.identity().to_string()).await.unwrap();
        assert_eq!(text(client).await, client.identity().to_string());
    }
    let stranger = Identity::random();
    assert_eq!(server.send("to whom?").await, Err(SendError::NoDestination));
    assert_eq!(server.send_to(stranger, "you").await, Err(SendError::NoSuchPeer { identity: stranger }));
}

#[tokio::test]
async fn unix_sockets_and_any_open_pipe_carry_it_too() {
    let dir = std::env::temp_dir().join(format!("natpipe-smart-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("socket");
    let server = socket();
    server.bind(Endpoint::unix(&path)).await.unwrap();
    let client = socket();
    client.connect(Endpoint::unix(&path)).unwrap();
    client.send("by a file").await.unwrap();
    assert_eq!(text(&server).await, "by a file");
    drop(client);
    peers(&server, 0).await;

    let (a, b) = Pipe::pair(1000, NetConf::default()).unwrap();
    let other = socket();
    server.attach(a).unwrap();
    other.attach(b).unwrap();
    other.send(vec![1; 100_000]).await.unwrap();
    assert_eq!(soon("through memory", server.recv()).await.unwrap(), vec![1; 100_000]);
    server.send("and back").await.unwrap();
    assert_eq!(text(&other).await, "and back");
    drop(std::fs::remove_dir_all(&dir));
}

#[tokio::test]
async fn one_bound_address_takes_websockets_beside_bare_connections() {
    let server = publisher();
    let addr = server.bind("127.0.0.1:0").await.unwrap();
    let (within, bare) = (socket(), socket());
    within.connect(Endpoint::websocket(&format!("ws://{addr}/any/path")).unwrap()).unwrap();
    bare.connect(&addr).unwrap();
    peers(&server, 2).await;
    for len in [0, 1, 70_000, 3_000_000] {
        server.send(vec![6; len]).await.unwrap();
        for client in [&within, &bare] {
            assert_eq!(soon("the message", client.recv()).await.unwrap(), vec![6; len]);
            client.send(vec![8; len]).await.unwrap();
            assert_eq!(soon("the answer", server.recv()).await.unwrap(), vec![8; len]);
        }
    }
    assert!(Endpoint::websocket("http://127.0.0.1/").is_err());
    within.close().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_open_already_can_be_bound_and_a_pipe_opened_by_hand_connects_again() {
    let listening = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
    let server = socket();
    let addr = server.bind_pipe(listening).unwrap();
    let client = socket();
    client.connect_by(move || pipe_open(Proto::Tcp).dest(&addr).into_future()).unwrap();
    client.send("opened by hand").await.unwrap();
    assert_eq!(text(&server).await, "opened by hand");
    let datagrams = pipe_open(Proto::Udp).bind("127.0.0.1:0").await.unwrap();
    assert!(server.bind_pipe(datagrams).is_err());
}

#[tokio::test]
async fn a_subscriber_gets_its_topics_and_the_publisher_does_not_send_the_rest() {
    let publisher = publisher();
    let addr = publisher.bind("127.0.0.1:0").await.unwrap();
    let (news, all) = (socket(), socket());
    news.subscribe("news.");
    news.subscribe("weather.");
    news.connect(&addr).unwrap();
    all.connect(&addr).unwrap();
    peers(&publisher, 2).await;
    // What the subscriber sends comes behind its topics.
    news.send("ready").await.unwrap();
    assert_eq!(text(&publisher).await, "ready");
    for message in ["sport.1", "news.1", "weather.1", "sport.2"] {
        publisher.send(message).await.unwrap();
    }
    assert_eq!([text(&news).await, text(&news).await], ["news.1", "weather.1"]);
    for expected in ["sport.1", "news.1", "weather.1", "sport.2"] {
        assert_eq!(text(&all).await, expected);
    }
    assert_eq!(publisher.counters().sent, 6);
    news.unsubscribe("news.");
    news.unsubscribe("weather.");
    news.send("ready").await.unwrap();
    assert_eq!(text(&publisher).await, "ready");
    publisher.send("sport.3").await.unwrap();
    assert_eq!(text(&news).await, "sport.3");
    assert_eq!(news.counters().filtered, 0);
}

#[tokio::test]
async fn a_thousand_subscribers_get_every_message() {
    let publisher = publisher();
    let (a, b) = (publisher.bind("127.0.0.1:0").await.unwrap(), publisher.bind("127.0.0.1:0").await.unwrap());
    let subscribers: Vec<_> = (0..1000).map(|_| socket()).collect();
    for (n, subscriber) in subscribers.iter().enumerate() {
        subscriber.connect(if n % 2 == 0 { &a } else { &b }).unwrap();
    }
    peers(&publisher, subscribers.len()).await;
    for n in 0..20 {
        publisher.send(format!("message {n}")).await.unwrap();
    }
    for subscriber in &subscribers {
        for n in 0..20 {
            assert_eq!(text(subscriber).await, format!("message {n}"));
        }
    }
}

#[tokio::test]
async fn halves_are_a_sink_and_a_stream() {
    let (server, client) = connected(socket(), socket()).await;
    let (mut sink, _) = client.split();
    let (_, stream) = server.split();
    let from = client.identity();
    drop((server, client));
    let receiving = tokio::spawn(async move { stream.take(1000).collect::<Vec<_>>().await });
    for n in 0..1000u32 {
        sink.feed(Bytes::from(n.to_string())).await.unwrap();
    }
    SinkExt::<Outgoing>::flush(&mut sink).await.unwrap();
    let got = soon("all messages", receiving).await.unwrap();
    assert!(got.iter().all(|message| message.from == from));
    assert!(got.iter().map(|message| message.data.clone()).eq((0..1000u32).map(|n| Bytes::from(n.to_string()))));
}

#[tokio::test]
async fn events_and_counters_tell_what_happens() {
    let server = socket();
    let mut events = server.events();
    let addr = server.bind("127.0.0.1:0").await.unwrap();
    let client = socket();
    client.connect(addr).unwrap();
    let seen = event(&mut events, |event| match event {
        Event::Connected { identity, addr } => Some((identity, addr.is_some())),
        _ => None,
    });
    assert_eq!(seen.await, (client.identity(), true));
    for _ in 0..3 {
        client.send("12345").await.unwrap();
        text(&server).await;
    }
    let (here, there) = (server.peers().remove(0), client.peers().remove(0));
    assert_eq!((here.identity, there.identity), (client.identity(), server.identity()));
    assert_eq!((here.counters.received, here.counters.received_bytes), (3, 30));
    assert_eq!((there.counters.sent, there.counters.sent_bytes), (3, 15));
    client.close().await.unwrap();
    let gone = event(&mut events, |event| match event {
        Event::Disconnected { identity, .. } => Some(identity),
        _ => None,
    });
    assert_eq!(gone.await, client.identity());
}

#[tokio::test]
async fn closing_lets_everything_arrive_that_was_sent() {
    let (server, client) = connected(socket(), socket()).await;
    let receiving = tokio::spawn(async move {
        for n in 0..20_000 {
            assert_eq!(text(&server).await, n.to_string());
        }
        server
    });
    for n in 0..20_000 {
        client.send(n.to_string()).await.unwrap();
    }
    client.close().await.unwrap();
    assert!(matches!(client.send("late").await, Err(SendError::Closed(_))));
    assert!(client.connect("127.0.0.1:9").is_err() && client.recv().await.is_err());
    drop(soon("receiving", receiving).await.unwrap());
}

#[tokio::test]
async fn closing_tells_how_much_was_left_over() {
    let client = SmartSocket::builder().linger(std::time::Duration::from_millis(50)).build().unwrap();
    client.send("to nobody").await.unwrap();
    client.send("to nobody").await.unwrap();
    assert_eq!(client.close().await.unwrap_err().messages, 2);
}

#[tokio::test]
async fn dropping_the_last_handle_closes_everything() {
    let (server, client) = connected(socket(), socket()).await;
    let at = client.peers()[0].addr.clone().unwrap();
    let receiver: Receiver = server.split().1;
    drop(server);
    assert_eq!(client.peers().len(), 1, "the half keeps it open");
    drop(receiver);
    peers(&client, 0).await;
    until("the port", || std::net::TcpListener::bind(at.ip().unwrap()).is_ok()).await;
}
