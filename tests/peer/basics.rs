//! Two nodes and what they say.

use std::time::Duration;

use natpipe::nat::Proto;
use natpipe::peer::{ConnectError, Ended, Node, PathKind};
use natpipe::rendezvous::{Client, Server, SignalError};
use natpipe::{Identity, Pipe};
use ring::digest::{Context, Digest, SHA256};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

async fn server() -> Server {
    Server::listen("127.0.0.1:0".parse().unwrap(), Identity::generate().unwrap()).start().await.unwrap()
}

/// Bytes that differ everywhere.
fn piece(at: u64) -> Vec<u8> {
    (0..64 * 1024_u64).map(|n| ((at * 31 + n * 7) >> (n % 5)) as u8).collect()
}

async fn send_all(pipe: &Pipe, pieces: u64) -> Digest {
    let mut sum = Context::new(&SHA256);
    for at in 0..pieces {
        let piece = piece(at);
        sum.update(&piece);
        pipe.send(piece).await.unwrap();
    }
    pipe.finish().await.unwrap();
    sum.finish()
}

async fn receive_all(pipe: &Pipe) -> (u64, Digest) {
    let (mut sum, mut len) = (Context::new(&SHA256), 0);
    while let Ok(message) = pipe.recv_within(SOON).await {
        sum.update(&message.data);
        len += message.data.len() as u64;
    }
    (len, sum.finish())
}

/// Both ends send much at once, and each hears the other's end of file after the last byte.
async fn both_ways(one: &Pipe, other: &Pipe, pieces: u64) {
    let (sent, (len, got), back, (back_len, back_got)) =
        tokio::join!(send_all(one, pieces), receive_all(other), send_all(other, pieces / 2), receive_all(one));
    assert_eq!((len, back_len), (pieces * 65536, pieces / 2 * 65536));
    assert_eq!((sent.as_ref(), back.as_ref()), (got.as_ref(), back_got.as_ref()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_enough_on_one_network() {
    let (ann, bob) = (Node::start().await.unwrap(), Node::start().await.unwrap());
    let pipe = timeout(SOON, ann.connect(&bob.ticket().unwrap(), Proto::Tcp)).await.unwrap().unwrap();
    pipe.send("first").await.unwrap();
    let (peer, accepted) = timeout(SOON, bob.accept()).await.unwrap().unwrap();
    assert_eq!(peer.id(), ann.id());
    assert_eq!(&accepted.recv_within(SOON).await.unwrap().data[..], b"first");
    let path = peer.path().unwrap();
    assert_eq!((path.kind, path.remote.is_some()), (PathKind::Direct, true));
    both_ways(&pipe, &accepted, 400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_carries_everything_where_nothing_else_is_wanted() {
    let server = server().await;
    let node = || Node::builder().via(server.url()).relay_only(true).start();
    let (ann, bob) = (node().await.unwrap(), node().await.unwrap());
    let peer = timeout(SOON, ann.peer(&bob.ticket().unwrap())).await.unwrap().unwrap();
    let pipe = peer.open(Proto::Tcp, Default::default()).unwrap();
    pipe.send("x").await.unwrap();
    let (_, accepted) = timeout(SOON, bob.accept()).await.unwrap().unwrap();
    assert_eq!(&accepted.recv_within(SOON).await.unwrap().data[..], b"x");
    assert_eq!(peer.path().unwrap().kind, PathKind::Relay);
    both_ways(&pipe, &accepted, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_keep_their_boundaries_on_every_path() {
    let server = server().await;
    for relay_only in [false, true] {
        let node = || Node::builder().via(server.url()).relay_only(relay_only).start();
        let (ann, bob) = (node().await.unwrap(), node().await.unwrap());
        let pipe = timeout(SOON, ann.connect(&bob.ticket().unwrap(), Proto::Udp)).await.unwrap().unwrap();
        assert!(pipe.is_datagram());
        let mut accepted = None;
        for len in [1, 900, 9000] {
            // Each may be lost.
            for _ in 0..50 {
                pipe.send(vec![7; len]).await.unwrap();
                if accepted.is_none() {
                    accepted = Some(timeout(SOON, bob.accept()).await.unwrap().unwrap().1);
                }
                let there = accepted.as_ref().unwrap();
                match there.recv_within(Duration::from_millis(200)).await {
                    Ok(message) if message.data.len() == len => break,
                    _ => {}
                }
            }
            // So may the answer, while everything moves to a better path.
            let there = accepted.as_ref().unwrap();
            let mut answer = None;
            for _ in 0..50 {
                there.send("got it").await.unwrap();
                answer = pipe.recv_within(Duration::from_millis(200)).await.ok();
                if answer.is_some() {
                    break;
                }
            }
            assert_eq!(&answer.expect("an answer").data[..], b"got it", "{len}");
        }
    }
}

#[tokio::test]
async fn many_pipes_share_a_connection_and_end_one_by_one() {
    let (ann, bob) = (Node::start().await.unwrap(), Node::start().await.unwrap());
    let peer = timeout(SOON, ann.peer(&bob.ticket().unwrap())).await.unwrap().unwrap();
    let mut pairs = Vec::new();
    for at in 0..100_u8 {
        let pipe = peer.open(Proto::Tcp, Default::default()).unwrap();
        pipe.send(vec![at]).await.unwrap();
        let (_, accepted) = timeout(SOON, bob.accept()).await.unwrap().unwrap();
        assert_eq!(&accepted.recv_within(SOON).await.unwrap().data[..], [at]);
        pairs.push((pipe, accepted));
    }
    pairs.reverse();
    for (pipe, accepted) in pairs {
        pipe.finish().await.unwrap();
        assert!(accepted.recv_within(SOON).await.is_err());
        accepted.send("last").await.unwrap();
        accepted.finish().await.unwrap();
        assert_eq!(&pipe.recv_within(SOON).await.unwrap().data[..], b"last");
    }
}

#[tokio::test]
async fn whoever_is_not_allowed_gets_no_pipe() {
    let (ann, eve) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let allowed = natpipe::key::tls::Allowed::only([ann.peer_id()]);
    let bob = Node::builder().allow(allowed).start().await.unwrap();
    let ticket = bob.ticket().unwrap();
    let eve = Node::builder().identity(eve).start().await.unwrap();
    let refused = async {
        // TLS 1.3 tells a client that it was refused only after its own part is done.
        let peer = eve.peer(&ticket).await?;
        Err::<(), _>(ConnectError::Ended(peer.ended().await))
    };
    let error = timeout(SOON, refused).await.unwrap().unwrap_err();
    assert!(matches!(error, ConnectError::Failed(_) | ConnectError::Ended(Ended::Refused)), "{error}");
    let ann = Node::builder().identity(ann).start().await.unwrap();
    let pipe = timeout(SOON, ann.connect(&ticket, Proto::Tcp)).await.unwrap().unwrap();
    pipe.send("it is me").await.unwrap();
    let (peer, _) = timeout(SOON, bob.accept()).await.unwrap().unwrap();
    assert_eq!(peer.id(), ann.id());
}

#[tokio::test]
async fn who_is_turned_away_where_both_are_met_is_told_at_once() {
    let server = server().await;
    let allowed = natpipe::key::tls::Allowed::only([Identity::generate().unwrap().peer_id()]);
    let bob = Node::builder().via(server.url()).relay_only(true).allow(allowed).start().await.unwrap();
    let eve = Node::builder().relay_only(true).start().await.unwrap();
    let called = timeout(Duration::from_secs(6), eve.peer(&bob.ticket().unwrap())).await.expect("it is told");
    let error = called.unwrap_err();
    assert!(error.to_string().contains("has ended the conversation"), "{error}");
}

#[tokio::test]
async fn a_peer_holds_many_conversations_at_once_and_is_told_of_one_too_many() {
    let server = server().await;
    let bob = Node::builder().via(server.url()).start().await.unwrap();
    let eve = Client::connect(&server.url(), &Identity::generate().unwrap()).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..129 {
        let signal = eve.signal(bob.id()).unwrap();
        timeout(SOON, signal.live()).await.expect("an answer").unwrap();
        held.push(signal);
    }
    assert_eq!(timeout(SOON, held[128].recv()).await.expect("it is told"), Err(SignalError::Ended));
    for signal in &held[..128] {
        assert!(timeout(Duration::from_millis(1), signal.recv()).await.is_err());
    }
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_an_error_in_time() {
    let server = server().await;
    let ann = Node::builder().via(server.url()).start().await.unwrap();
    let nobody = natpipe::Ticket::new(Identity::generate().unwrap().peer_id()).with_server(server.url());
    let error = timeout(SOON, ann.connect(&nobody, Proto::Tcp)).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("not registered"), "{error}");
    let own = ann.connect(&ann.ticket().unwrap(), Proto::Tcp).await.unwrap_err();
    assert!(matches!(own, ConnectError::Ourselves), "{own}");
    let nowhere = natpipe::Ticket::new(Identity::generate().unwrap().peer_id());
    let error = timeout(SOON, ann.connect(&nowhere, Proto::Tcp)).await.unwrap().unwrap_err();
    assert!(matches!(error, ConnectError::NoWay), "{error}");
}

#[tokio::test]
async fn two_calls_at_once_through_one_server_do_not_push_each_other_out() {
    let server = server().await;
    let met = || Node::builder().via(server.url()).start();
    let there = [met().await.unwrap(), met().await.unwrap()];
    // It registers there when it first calls.
    let here = Node::builder().relay_only(true).start().await.unwrap();
    let (a, b) = (there[0].ticket().unwrap(), there[1].ticket().unwrap());
    let both = async { tokio::join!(here.connect(&a, Proto::Tcp), here.connect(&b, Proto::Tcp)) };
    let (a, b) = timeout(SOON, both).await.expect("both connect");
    for (pipe, node) in [(a.unwrap(), &there[0]), (b.unwrap(), &there[1])] {
        pipe.send("hello").await.unwrap();
        let (_, accepted) = timeout(SOON, node.accept()).await.unwrap().unwrap();
        assert_eq!(accepted.recv_within(SOON).await.unwrap().data, "hello");
    }
    assert_eq!(server.counters().connections, 3);
}

/// Forwarding as the command does it: a connection at one end, a pipe to the peer, a connection at the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_forwarded_with_both_half_closes() {
    use natpipe::pipe::Relay;
    use natpipe::{NetConf, Proto as Kind, pipe_open};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let target = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = target.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = target.accept().await {
            tokio::spawn(async move {
                let mut heard = Vec::new();
                client.read_to_end(&mut heard).await.unwrap();
                client.write_all(&heard).await.unwrap();
            });
        }
    });
    let (ann, bob) = (Node::start().await.unwrap(), Node::start().await.unwrap());
    let ticket = bob.ticket().unwrap();
    tokio::spawn(async move {
        while let Ok((_, pipe)) = bob.accept().await {
            tokio::spawn(async move {
                // Everything has come, its end included, when the relay begins.
                tokio::time::sleep(Duration::from_millis(30)).await;
                let there = pipe_open(Kind::Tcp).dest(to).await.unwrap();
                Relay::new(pipe, there).wait().await
            });
        }
    });
    let peer = timeout(SOON, ann.peer(&ticket)).await.unwrap().unwrap();
    let door = pipe_open(Kind::Tcp).bind("127.0.0.1:0").await.unwrap();
    let at = door.local_addr().ip().unwrap();
    tokio::spawn(async move {
        while let Ok(near) = door.accept().await {
            let far = peer.open(Proto::Tcp, NetConf::default()).unwrap();
            tokio::spawn(Relay::new(near, far).wait());
        }
    });
    for n in 0..30 {
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let said = piece(n);
        stream.write_all(&said).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        timeout(Duration::from_secs(5), stream.read_to_end(&mut heard)).await.expect("an answer").unwrap();
        assert!(heard == said, "{n}: {} bytes", heard.len());
    }
}

#[tokio::test]
async fn closing_a_node_ends_the_calls_that_still_look_for_a_way_and_the_waiting_for_others() {
    let node = Node::start().await.unwrap();
    let nowhere = natpipe::key::TicketAddress { addr: "127.0.0.1:9".parse().unwrap(), udp: true, tcp: true };
    let peer = Identity::generate().unwrap().peer_id();
    let ticket = natpipe::Ticket::new(peer).with_address(nowhere);
    let (one, other, accepted, ()) =
        timeout(SOON, async { tokio::join!(node.peer(&ticket), node.peer(&ticket), node.accept(), node.close()) })
            .await
            .expect("each is told");
    for called in [one.unwrap_err(), other.unwrap_err()] {
        assert!(matches!(called, ConnectError::Ended(Ended::Closed)), "{called}");
    }
    assert!(matches!(accepted, Err(ConnectError::Closed)));
    assert!(matches!(timeout(SOON, node.accept()).await.unwrap(), Err(ConnectError::Closed)), "and again");
}

#[tokio::test]
async fn two_who_call_at_once_are_both_told_that_there_is_no_way() {
    let node = Node::start().await.unwrap();
    let nowhere = natpipe::Ticket::new(Identity::generate().unwrap().peer_id());
    let both = async { tokio::join!(node.peer(&nowhere), node.peer(&nowhere)) };
    let (one, other) = timeout(SOON, both).await.expect("both are told");
    assert!(matches!(one, Err(ConnectError::NoWay)), "{one:?}");
    assert!(matches!(other, Err(ConnectError::Ended(Ended::Lost))), "{other:?}");
}

#[tokio::test]
async fn pipes_are_opened_by_who_has_called() {
    let (ann, bob) = (Node::start().await.unwrap(), Node::start().await.unwrap());
    let _pipe = timeout(SOON, ann.connect(&bob.ticket().unwrap(), Proto::Tcp)).await.unwrap().unwrap();
    let (peer, _) = timeout(SOON, bob.accept()).await.unwrap().unwrap();
    let error = peer.open(Proto::Tcp, Default::default()).unwrap_err();
    assert!(matches!(error, ConnectError::TheirsToOpen), "{error}");
}

#[tokio::test]
async fn who_calls_a_peer_again_hears_what_happens_on_the_connection_that_is_there() {
    let (ann, bob) = (Node::start().await.unwrap(), Node::start().await.unwrap());
    let ticket = bob.ticket().unwrap();
    let first = timeout(SOON, ann.peer(&ticket)).await.unwrap().unwrap();
    let again = timeout(SOON, ann.peer(&ticket)).await.unwrap().unwrap();
    let mut events = again.events();
    first.close().await;
    let ended = async {
        while !matches!(events.recv().await.expect("the end is told"), natpipe::peer::Event::Ended(Ended::Closed)) {}
    };
    timeout(SOON, ended).await.unwrap();
}

#[tokio::test]
async fn who_has_called_leaves_the_place_where_the_peer_was_met() {
    let server = server().await;
    let met = || Node::builder().via(server.url()).start();
    let (bob, eve) = (met().await.unwrap(), met().await.unwrap());
    let ann = Node::builder().relay_only(true).start().await.unwrap();
    let [to_bob, to_eve] = [&bob, &eve].map(|node| node.ticket().unwrap());
    let (to_bob, to_eve) = timeout(SOON, async { tokio::join!(ann.peer(&to_bob), ann.peer(&to_eve)) }).await.unwrap();
    let (to_bob, to_eve) = (to_bob.unwrap(), to_eve.unwrap());
    let until = async |count| {
        while server.counters().peers != count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, until(3)).await.expect("ann is there");
    let left = to_bob.clone();
    left.close().await;
    drop((left, to_bob));
    let pipe = to_eve.open(Proto::Tcp, Default::default()).unwrap();
    pipe.send("still here").await.unwrap();
    let (_, accepted) = timeout(SOON, eve.accept()).await.unwrap().unwrap();
    assert_eq!(accepted.recv_within(SOON).await.unwrap().data, "still here");
    to_eve.close().await;
    timeout(SOON, until(2)).await.expect("ann has left");
}

#[tokio::test]
async fn each_connection_of_a_one_time_ticket_is_closed_with_the_node_that_called() {
    let (ann, bob) = (Node::start().await.unwrap(), Node::builder().one_time(true).start().await.unwrap());
    let tickets = [bob.ticket().unwrap(), bob.ticket().unwrap()];
    let mut called = Vec::new();
    for ticket in &tickets {
        called.push(timeout(SOON, ann.peer(ticket)).await.unwrap().unwrap());
    }
    timeout(SOON, ann.close()).await.unwrap();
    for peer in called {
        assert_eq!(timeout(SOON, peer.ended()).await.expect("it is told"), Ended::Closed);
    }
}
