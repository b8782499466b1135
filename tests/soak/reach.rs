//! STUN, rendezvous, and peers over a straight path and over a relay.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use natpipe::nat::Proto;
use natpipe::peer::{Node, PathKind};
use natpipe::rendezvous::{Client, Server, State};
use natpipe::{Identity, NetConf, Pipe, stun};

use crate::{LONG, soon};

const PIECES: usize = 16;

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub async fn stun(_: u64) {
    let server = stun::Server::listen(any()).start().unwrap();
    for tcp in [false, true] {
        let client = stun::Client::new().server(server.addr());
        let client = if tcp { client.tcp() } else { client };
        for _ in 0..10 {
            assert!(client.ask().await.unwrap().mapped.ip().is_loopback());
        }
    }
}

/// Two peers talk; the server is killed and comes back at the same address, and they find it again.
pub async fn rendezvous(_: u64) {
    let key = Identity::generate().unwrap();
    let server = Server::listen(any(), key.clone()).start().await.unwrap();
    let (addr, url) = (server.addr(), server.url());
    let (ann, bob) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (at_ann, at_bob) = (Client::connect(&url, &ann).await.unwrap(), Client::connect(&url, &bob).await.unwrap());
    let talk = async || {
        let to_bob = at_ann.signal(bob.peer_id()).unwrap();
        to_bob.send("hello").await.unwrap();
        let from_ann = at_bob.accept().await.unwrap();
        assert_eq!(from_ann.recv().await.unwrap(), "hello");
        from_ann.send("hello yourself").await.unwrap();
        assert_eq!(to_bob.recv().await.unwrap(), "hello yourself");
    };
    talk().await;
    server.close().await;
    for client in [&at_ann, &at_bob] {
        client.state().wait_for(|state| matches!(state, State::Connecting { .. })).await.unwrap();
    }
    let server = again(addr, &key).await;
    for client in [&at_ann, &at_bob] {
        client.state().wait_for(|state| matches!(state, State::Connected)).await.unwrap();
    }
    talk().await;
    at_ann.close().await;
    drop(at_bob);
    server.close().await;
}

/// Somebody else may have the port for a moment.
async fn again(addr: SocketAddr, key: &Identity) -> Server {
    let begun = Instant::now();
    loop {
        match Server::listen(addr, key.clone()).start().await {
            Ok(server) => return server,
            Err(error) => assert!(begun.elapsed() < LONG / 2, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A stream and datagrams; every other time the caller is dropped with bytes on their way.
pub async fn peers(round: u64) {
    let node = || Node::builder().port_mapping(false).start();
    let (ann, bob) = (node().await.unwrap(), node().await.unwrap());
    let kind = meet(&ann, &bob).await;
    assert_eq!(kind, PathKind::Direct);
    if round.is_multiple_of(2) {
        soon("the goodbye", ann.close()).await;
        soon("the other goodbye", bob.close()).await;
    }
}

/// The same through a server that relays.
pub async fn relayed(round: u64) {
    let server = Server::listen(any(), Identity::generate().unwrap()).start().await.unwrap();
    let node = || Node::builder().port_mapping(false).via(server.url()).relay_only(true).start();
    let (ann, bob) = (node().await.unwrap(), node().await.unwrap());
    assert_eq!(meet(&ann, &bob).await, PathKind::Relay);
    if round.is_multiple_of(2) {
        // The path dies under them.
        soon("the end of the server", server.close()).await;
    } else {
        soon("the goodbye", ann.close()).await;
        soon("the other goodbye", bob.close()).await;
    }
}

async fn meet(ann: &Node, bob: &Node) -> PathKind {
    let peer = soon("a path", ann.peer(&bob.ticket().unwrap())).await.unwrap();
    let stream = peer.open(Proto::Tcp, NetConf::default()).unwrap();
    stream.send([7; 1000]).await.unwrap();
    let (_, served) = soon("the stream", bob.accept()).await.unwrap();
    soon("what is sent", async { tokio::join!(write(&stream), read(&served, 1000 + PIECES * 30_000)) }).await;
    soon("what comes back", async { tokio::join!(write(&served), read(&stream, PIECES * 30_000)) }).await;
    let datagrams = peer.open(Proto::Udp, NetConf::default()).unwrap();
    datagrams.send("a datagram").await.unwrap();
    let (_, heard) = soon("the datagrams", bob.accept()).await.unwrap();
    // Each may be lost.
    let heard = async {
        while heard.recv_within(Duration::from_millis(100)).await.is_err() {
            datagrams.send("a datagram").await.unwrap();
        }
    };
    soon("a datagram", heard).await;
    stream.send("on its way when it ends").await.unwrap();
    peer.path().unwrap().kind
}

async fn write(pipe: &Pipe) {
    for _ in 0..PIECES {
        pipe.send([5; 30_000]).await.unwrap();
    }
}

async fn read(pipe: &Pipe, mut left: usize) {
    while left > 0 {
        left -= pipe.recv_within(LONG).await.unwrap().data.len();
    }
}
