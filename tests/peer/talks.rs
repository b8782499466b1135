//! Everything that talks runs on a peer's pipe: pools, smart sockets, ducts and calls, straight and through a relay. While the
//! session moves from one to the other is in `tests/lab/talks.rs`, where there are NATs.

use std::sync::atomic::AtomicBool;

use natpipe::nat::Proto;
use natpipe::peer::{Node, PathKind};
use natpipe::rendezvous::Server;
use natpipe::smart::SmartSocket;
use natpipe::{Identity, NetConf, Pipe};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::talk::{self, LIMIT};

async fn all_four_talk(relay_only: bool) {
    let server = Server::listen("127.0.0.1:0".parse().unwrap(), Identity::generate().unwrap()).start().await.unwrap();
    let node = || Node::builder().via(server.url()).relay_only(relay_only).start();
    let (ann, bob) = (node().await.unwrap(), node().await.unwrap());
    let ticket = bob.ticket().unwrap();
    let (done, over) = oneshot::channel::<()>();
    let answering = tokio::spawn(async move { talk::answer(talk::take(&bob).await, over).await });
    let peer = timeout(LIMIT, ann.peer(&ticket)).await.unwrap().unwrap();
    let rounds = talk::say(talk::open(&peer), &AtomicBool::new(true), 200).await;
    assert_eq!(rounds, [200; 4]);
    assert_eq!(peer.path().unwrap().kind == PathKind::Relay, relay_only);
    done.send(()).unwrap();
    answering.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_smart_sockets_ducts_and_calls_run_on_a_straight_pipe_to_a_peer() {
    all_four_talk(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_smart_sockets_ducts_and_calls_run_on_a_relayed_pipe_to_a_peer() {
    all_four_talk(true).await;
}

/// A pipe between two peers of one network, the end that has opened it with these options.
async fn pipes(conf: NetConf) -> (Pipe, Pipe, [Node; 2]) {
    let (ann, bob) = (Node::start().await.unwrap(), Node::start().await.unwrap());
    let peer = timeout(LIMIT, ann.peer(&bob.ticket().unwrap())).await.unwrap().unwrap();
    let opened = peer.open(Proto::Tcp, conf).unwrap();
    let (_, accepted) = timeout(LIMIT, bob.accept()).await.unwrap().unwrap();
    (opened, accepted, [ann, bob])
}

/// A peer's channel brings bytes in memory of its own, also where the receiver has lent some: they were lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smart_socket_gets_messages_that_come_in_many_parts() {
    let (near, far, _nodes) = pipes(NetConf::default()).await;
    let (sends, receives) = (SmartSocket::new().unwrap(), SmartSocket::new().unwrap());
    sends.attach(near).unwrap();
    receives.attach(far).unwrap();
    let message = |n: u32| (0..200_000 + n * 7777).map(|at| (((at + n) * 31) >> 5) as u8).collect::<Vec<_>>();
    let sending = async {
        for n in 0..40 {
            sends.send(message(n)).await.unwrap();
        }
    };
    let receiving = async {
        for n in 0..40 {
            assert!(timeout(LIMIT, receives.recv()).await.unwrap().unwrap() == message(n), "message {n}");
        }
    };
    tokio::join!(sending, receiving);
}

/// What one read may yield is no reason to drop a part of a stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_reader_limit_loses_nothing_of_a_stream() {
    let (near, far, _nodes) = pipes(NetConf::default().reader_limit(1000)).await;
    let sent: Vec<u8> = (0..300_000u32).map(|at| ((at * 31) >> 5) as u8).collect();
    far.send(sent.clone()).await.unwrap();
    assert!(timeout(LIMIT, near.recv_n(sent.len())).await.unwrap().unwrap() == sent);
}
