//! What happens when the server, a peer or a connection goes, and to those who are not who they should be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use natpipe::Identity;
use natpipe::key::{Carrier, ServerUrl};
use natpipe::rendezvous::{Client, ConnectError, Limits, Reason, Server, SignalError, State};
use natpipe::stun;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{peer, server, server_with, soon};

/// Waits for a state.
async fn until(client: &Client, what: &str, wanted: impl Fn(&State) -> bool) -> State {
    let mut state = client.state();
    soon(what, state.wait_for(|state| wanted(state))).await.unwrap().clone()
}

#[tokio::test]
async fn a_server_with_another_key_is_told_apart_before_a_word_is_said() {
    let server = server().await;
    let other = Identity::generate().unwrap().peer_id();
    let url = ServerUrl::new(Carrier::Natpipe, "127.0.0.1", server.addr().port(), other).unwrap();
    let refused = soon("the refusal", Client::connect(&url, &Identity::generate().unwrap())).await;
    assert!(matches!(refused, Err(ConnectError::NotTheServer { .. })), "{refused:?}");
    assert_eq!(server.counters().peers, 0);
}

#[tokio::test]
async fn what_is_no_rendezvous_server_is_told_apart() {
    let key = Identity::generate().unwrap().peer_id();
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = ServerUrl::new(Carrier::Natpipe, "127.0.0.1", listener.local_addr().unwrap().port(), key).unwrap();
        let answering = async {
            // Straight, and as a websocket.
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(answer).await.unwrap();
                // Until the client has read it.
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        };
        let connecting = async {
            let me = Identity::generate().unwrap();
            Client::connect(&url, &me).await
        };
        let (refused, ()) = soon("the refusal", async { tokio::join!(connecting, answering) }).await;
        assert!(matches!(refused, Err(ConnectError::Handshake { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn nobody_listening_is_said_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let me = Identity::generate().unwrap();
    let url = ServerUrl::new(Carrier::Natpipe, "127.0.0.1", port, me.peer_id()).unwrap();
    let refused = soon("the refusal", Client::connect(&url, &me)).await;
    assert!(matches!(refused, Err(ConnectError::Open { .. })), "{refused:?}");
}

#[tokio::test]
async fn after_a_restart_of_the_server_peers_come_back_by_themselves() {
    let identity = Identity::generate().unwrap();
    let first = Server::listen("127.0.0.1:0".parse().unwrap(), identity.clone()).start().await.unwrap();
    let addr = first.addr();
    let (ann, bob) = (peer(&first).await, peer(&first).await);
    let signal = ann.client.signal(bob.identity.peer_id()).unwrap();
    let mut stream = signal.relay_stream().unwrap();
    first.close().await;
    for client in [&ann.client, &bob.client] {
        until(client, "the loss", |state| matches!(state, State::Connecting { .. })).await;
    }
    assert_eq!(soon("the end", signal.recv()).await, Err(SignalError::ServerLost));
    assert!(soon("the end", stream.read_u8()).await.is_err());
    assert!(matches!(ann.client.signal(bob.identity.peer_id()), Err(SignalError::NotConnected)));

    let second = Server::listen(addr, identity).start().await.unwrap();
    for client in [&ann.client, &bob.client] {
        until(client, "the return", |state| *state == State::Connected).await;
    }
    assert_eq!(second.counters().peers, 2);
    let to_bob = ann.client.signal(bob.identity.peer_id()).unwrap();
    to_bob.send("again").await.unwrap();
    let from_ann = soon("the conversation", bob.client.accept()).await.unwrap();
    assert_eq!(soon("the message", from_ann.recv()).await.unwrap(), "again");
}

/// A way to a server on which nothing passes for some time after each connection was made.
struct Way {
    url: ServerUrl,
    taken: Arc<AtomicUsize>,
    cuts: watch::Sender<u64>,
    _task: tokio::task::JoinHandle<()>,
}

impl Way {
    async fn to(server: &Server, silences: &'static [u64]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = ServerUrl::new(Carrier::Natpipe, "127.0.0.1", port, server.url().key()).unwrap();
        let (taken, cuts, to) = (Arc::new(AtomicUsize::new(0)), watch::Sender::new(0), server.addr());
        let (count, cut) = (taken.clone(), cuts.clone());
        let _task = tokio::spawn(async move {
            for silence in silences {
                let (mut near, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let mut cut = cut.subscribe();
                tokio::spawn(async move {
                    let passing = async {
                        sleep(Duration::from_secs(*silence)).await;
                        let mut far = TcpStream::connect(to).await.unwrap();
                        copy_bidirectional(&mut near, &mut far).await
                    };
                    tokio::select! {
                        _ = passing => {}
                        _ = cut.changed() => {}
                    }
                });
            }
            std::future::pending::<()>().await;
        });
        Self { url, taken, cuts, _task }
    }

    /// A client that was cut off, and is back although its connection was doubted all the time: how long that took, and how
    /// many connections.
    async fn back_while_doubted(&self) -> (Duration, usize) {
        let client =
            soon("the registration", Client::connect(&self.url, &Identity::generate().unwrap())).await.unwrap();
        (self.back(&client).await, self.taken.load(Ordering::Relaxed))
    }

    /// A client is cut off, and doubts its connection until it is back: how long that took.
    async fn back(&self, client: &Client) -> Duration {
        self.cuts.send_modify(|cuts| *cuts += 1);
        until(client, "the loss", |state| matches!(state, State::Connecting { .. })).await;
        let begun = Instant::now();
        let doubting = async {
            while *client.state().borrow() != State::Connected {
                client.check();
                sleep(Duration::from_millis(300)).await;
            }
        };
        soon("the return", doubting).await;
        begun.elapsed()
    }
}

#[tokio::test]
async fn an_attempt_that_takes_its_time_is_not_thrown_away_by_doubts() {
    let server = server().await;
    let (took, connections) = Way::to(&server, &[0, 3]).await.back_while_doubted().await;
    assert!(took >= Duration::from_secs(3) && connections == 2, "{took:?}, {connections} connections");
}

#[tokio::test]
async fn an_attempt_that_leads_nowhere_is_given_up_when_it_is_doubted() {
    let server = server().await;
    let (took, connections) = Way::to(&server, &[0, 60, 0]).await.back_while_doubted().await;
    // Sooner than it would end by itself.
    assert!(took < Duration::from_secs(8) && connections == 3, "{took:?}, {connections} connections");
}

#[tokio::test]
async fn who_may_have_been_replaced_by_an_attempt_of_its_own_comes_back_once() {
    let server = server().await;
    let way = Way::to(&server, &[0, 60, 0, 0]).await;
    let identity = Identity::generate().unwrap();
    let client = soon("the registration", Client::connect(&way.url, &identity)).await.unwrap();
    way.back(&client).await;
    let other = soon("the same key", Client::connect(&server.url(), &identity)).await.unwrap();
    until(&other, "its end", |state| matches!(state, State::Closed { .. })).await;
    until(&client, "the return", |state| *state == State::Connected).await;
    assert_eq!(way.taken.load(Ordering::Relaxed), 4);
    let _another = soon("the same key", Client::connect(&server.url(), &identity)).await.unwrap();
    until(&client, "the end: the second time it is somebody else", |state| matches!(state, State::Closed { .. })).await;
    assert_eq!(way.taken.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn who_is_replaced_by_the_same_key_does_not_push_back() {
    let server = server().await;
    let (ann, bob) = (peer(&server).await, peer(&server).await);
    let to_bob = ann.client.signal(bob.identity.peer_id()).unwrap();
    let from_ann = soon("the conversation", bob.client.accept()).await.unwrap();
    // Somebody with Ann's key pushes her out; she does not push back.
    let usurper = Client::connect(&server.url(), &ann.identity).await.unwrap();
    let state = until(&ann.client, "the end", |state| matches!(state, State::Closed { .. })).await;
    let State::Closed { why: Some(why) } = state else { panic!("no reason") };
    assert!(why.contains(&Reason::Replaced.to_string()), "{why}");
    assert!(soon("the end", to_bob.recv()).await.is_err());
    assert_eq!(soon("the end", ann.client.accept()).await.map(|_| ()), Err(SignalError::Ended));
    // What Bob says now reaches the new one, which does not know the conversation and says nothing.
    from_ann.send("who are you?").await.unwrap();
    let to_new = bob.client.signal(ann.identity.peer_id()).unwrap();
    to_new.send("hello").await.unwrap();
    let from_bob = soon("the conversation", usurper.accept()).await.unwrap();
    assert_eq!(soon("the message", from_bob.recv()).await.unwrap(), "hello");
}

#[tokio::test]
async fn closing_a_client_sends_what_was_written_and_takes_the_registration_back() {
    let server = server().await;
    let (ann, bob) = (peer(&server).await, peer(&server).await);
    let to_bob = ann.client.signal(bob.identity.peer_id()).unwrap();
    to_bob.send("goodbye").await.unwrap();
    soon("the close", ann.client.close()).await;
    let from_ann = soon("the conversation", bob.client.accept()).await.unwrap();
    assert_eq!(soon("the message", from_ann.recv()).await.unwrap(), "goodbye");
    let late = bob.client.signal(ann.identity.peer_id()).unwrap();
    assert_eq!(soon("the refusal", late.recv()).await, Err(SignalError::NotThere));
}

#[tokio::test]
async fn a_full_server_says_so() {
    let server = server_with(Limits::default().peers(1)).await;
    let _ann = peer(&server).await;
    let refused = soon("the refusal", Client::connect(&server.url(), &Identity::generate().unwrap())).await;
    assert!(matches!(refused, Err(ConnectError::Refused { why: Reason::Busy, .. })), "{refused:?}");
}

#[tokio::test]
async fn idle_peers_stay_registered_by_pings() {
    let server = server_with(Limits::default().keepalive(Duration::from_secs(1))).await;
    let (ann, bob) = (peer(&server).await, peer(&server).await);
    // More than the silence that the server allows.
    sleep(Duration::from_millis(3_600)).await;
    assert_eq!(server.counters().peers, 2);
    let to_bob = ann.client.signal(bob.identity.peer_id()).unwrap();
    to_bob.send("still here").await.unwrap();
    let from_ann = soon("the conversation", bob.client.accept()).await.unwrap();
    assert_eq!(soon("the message", from_ann.recv()).await.unwrap(), "still here");
}

#[tokio::test]
async fn the_same_port_answers_stun_over_udp_and_tcp() {
    let identity = Identity::generate().unwrap();
    let server = Server::listen("127.0.0.1:0".parse().unwrap(), identity).listen2("127.0.0.2:0".parse().unwrap());
    let server = server.start().await.unwrap();
    let seen = soon("the answer", stun::Client::new().server(server.addr()).ask()).await.unwrap();
    assert!(seen.mapped.ip().is_loopback());
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    let id = stun::TransactionId::modern([9; 12]);
    let request = stun::Request::new().encode(id, &Default::default()).unwrap();
    stream.write_all(&request).await.unwrap();
    let mut answer = vec![0; 1000];
    let n = soon("the answer", stream.read(&mut answer)).await.unwrap();
    let message = stun::Message::parse(&answer[..n]).unwrap();
    assert_eq!((message.id(), message.mapped()), (id, Some(stream.local_addr().unwrap())));
    assert_eq!((server.stun_addrs().len(), server.counters().stun), (4, 2));
}
