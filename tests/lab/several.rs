//! Several paths at once: two machines with two interfaces each. `NATPIPE_RUNS` says how often what is measured is done.

use std::num::NonZeroU64;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use natpipe::Ticket;
use natpipe::lab::{Host, Internet, Link};
use natpipe::nat::Proto;
use natpipe::peer::{Multipath, Node, Peer};
use ring::digest::{Context, SHA256};
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_secs(40);

fn two_with_two() -> (Internet, [Host; 2]) {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(5)), 1).unwrap();
    let hosts = ["caller", "answerer"].map(|name| internet.host(name).unwrap());
    hosts.iter().for_each(|host| drop(host.attach(&internet).unwrap()));
    (internet, hosts)
}

fn node(multipath: Multipath) -> natpipe::peer::Builder {
    Node::builder().multipath(multipath).port_mapping(false)
}

/// Until there are paths by both interfaces.
async fn by_both(peer: &Peer, host: &Host) {
    let interfaces = host.interfaces();
    let both = async {
        loop {
            let paths = peer.all_paths();
            let from: Vec<_> = paths.iter().filter_map(|path| path.local.map(|local| local.ip())).collect();
            if interfaces.iter().all(|interface| interface.addresses.iter().any(|own| from.contains(own))) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, both).await.unwrap_or_else(|_| panic!("only {:?}", peer.all_paths()));
    // Each path is greeted by both ends.
    sleep(Duration::from_millis(200)).await;
}

/// The caller does `calls`, once it has two paths, and the answerer `answers`.
fn both<A: Send + 'static, B>(
    multipath: Multipath,
    hosts: &[Host; 2],
    proto: Proto,
    answers: impl AsyncFnOnce(natpipe::Pipe) -> A + Send + 'static,
    calls: impl AsyncFnOnce(natpipe::Pipe, Peer) -> B,
) -> (B, A)
where
    for<'a> &'a Host: Send,
{
    let (give, ticket) = mpsc::channel::<Ticket>();
    let (done, over) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        let answering = scope.spawn(move || {
            let answer = async {
                let node = node(multipath).start().await.unwrap();
                give.send(node.ticket().unwrap()).unwrap();
                let (_peer, pipe) = timeout(LIMIT, node.accept()).await.unwrap().unwrap();
                let answered = answers(pipe).await;
                // What it said last has to arrive before the node is gone.
                over.await.unwrap();
                answered
            };
            hosts[1].block_on(answer).unwrap()
        });
        let ticket = ticket.recv_timeout(LIMIT).unwrap();
        let call = async {
            let node = node(multipath).start().await.unwrap();
            let peer = timeout(LIMIT, node.peer(&ticket)).await.unwrap().unwrap();
            by_both(&peer, &hosts[0]).await;
            let pipe = peer.open(proto, Default::default()).unwrap();
            let called = calls(pipe, peer).await;
            done.send(()).unwrap();
            called
        };
        let called = hosts[0].block_on(call).unwrap();
        (called, answering.join().unwrap())
    })
}

/// Nothing passes this interface any more, and nobody is told.
fn cut(host: &Host, interface: &str) {
    let chain = |hook: &str, side: &str| {
        format!("chain {hook} {{\ntype filter hook {hook} priority 0\n{side}name {interface} drop\n}}\n")
    };
    host.nft(&format!("table inet cut {{\n{}{}}}", chain("input", "iif"), chain("output", "oif"))).unwrap();
}

#[test]
fn of_datagrams_that_take_two_paths_none_is_lost_with_either_and_none_comes_twice() {
    const COUNT: u32 = 1500;
    for gone in ["eth0", "eth1"] {
        let (_internet, hosts) = two_with_two();
        let answer = async |pipe: natpipe::Pipe| {
            pipe.send("ready").await.unwrap();
            let mut got = Vec::new();
            while got.last() != Some(&COUNT) {
                let message = pipe.recv_within(Duration::from_secs(10)).await.unwrap_or_else(|error| {
                    panic!("{error} after {} of {COUNT}, the last {:?}", got.len(), got.last());
                });
                let number = u32::from_be_bytes(message.data[..4].try_into().unwrap());
                got.extend(Some(number).filter(|number| *number <= COUNT));
            }
            pipe.send("all").await.unwrap();
            sleep(Duration::from_millis(500)).await;
            got
        };
        let caller = &hosts[0];
        let call = async |pipe: natpipe::Pipe, _peer: Peer| {
            // Its first datagrams may overtake the news that there is a pipe.
            let hello = async {
                while pipe.recv_within(Duration::from_millis(100)).await.is_err() {
                    pipe.send(u32::MAX.to_be_bytes()).await.unwrap();
                }
            };
            timeout(LIMIT, hello).await.unwrap();
            for n in 0..=COUNT {
                if n == COUNT / 3 {
                    cut(caller, gone);
                }
                pipe.send([&n.to_be_bytes()[..], &[7; 200]].concat()).await.unwrap();
                sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(&pipe.recv_within(LIMIT).await.unwrap().data[..], b"all");
        };
        let ((), mut got) = both(Multipath::Duplicate, &hosts, Proto::Udp, answer, call);
        got.sort_unstable();
        let missing: Vec<u32> = (0..=COUNT).filter(|n| got.binary_search(n).is_err()).collect();
        assert!(missing.is_empty(), "{gone}: {missing:?}");
        assert_eq!(got.len() as u32, COUNT + 1, "{gone}: none twice");
    }
}

/// Bytes per second that pass each of the caller's interfaces.
const RATE: u64 = 3 << 20;
const PIECE: usize = 64 << 10;

/// Bytes over one stream, and what breaks after a third of them: what was sent and what came, as sums, and the rate at which it came.
fn streamed(multipath: Multipath, pieces: u32, breaks: Option<&str>) -> f64 {
    let (_internet, hosts) = two_with_two();
    for interface in hosts[0].interfaces() {
        hosts[0].set_rate(&interface.name, NonZeroU64::new(RATE)).unwrap();
    }
    let answer = async |pipe: natpipe::Pipe| {
        let (mut sum, mut bytes, mut begun) = (Context::new(&SHA256), 0, None);
        while let Ok(message) = pipe.recv_within(LIMIT).await {
            begun.get_or_insert_with(Instant::now);
            bytes += message.data.len();
            sum.update(&message.data);
        }
        let elapsed = begun.unwrap().elapsed();
        pipe.send("all").await.unwrap();
        (sum.finish().as_ref().to_vec(), bytes, bytes as f64 / elapsed.as_secs_f64())
    };
    let caller = &hosts[0];
    let call = async |pipe: natpipe::Pipe, peer: Peer| {
        let mut sum = Context::new(&SHA256);
        for n in 0..pieces {
            if let Some(gone) = breaks.filter(|_| n == pieces / 3) {
                cut(caller, gone);
            }
            let piece: Vec<u8> = (0..PIECE as u32).map(|byte| (byte.wrapping_mul(n | 1) >> 7) as u8).collect();
            sum.update(&piece);
            timeout(LIMIT, pipe.send(piece)).await.unwrap().unwrap();
        }
        pipe.finish().await.unwrap();
        let said = pipe.recv_within(LIMIT).await.unwrap_or_else(|error| panic!("{error}; over {:?}", peer.all_paths()));
        assert_eq!(&said.data[..], b"all");
        sum.finish().as_ref().to_vec()
    };
    let (sent, (got, bytes, rate)) = both(multipath, &hosts, Proto::Tcp, answer, call);
    assert_eq!((bytes, got), (PIECE * pieces as usize, sent), "every byte once and in order");
    rate / RATE as f64
}

fn runs() -> usize {
    std::env::var("NATPIPE_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1)
}

#[test]
fn a_stream_takes_both_interfaces_and_more_comes_than_either_carries() {
    for _ in 0..runs() {
        let [one, both] = [Multipath::Duplicate, Multipath::Throughput].map(|multipath| streamed(multipath, 200, None));
        println!("of one interface's rate: {one:.2} by one path, {both:.2} by several");
        assert!(one < 1.25, "the limit holds: {one}");
        assert!(both > 1.3, "{both}");
    }
}

#[test]
fn a_stream_that_takes_both_interfaces_loses_nothing_with_either() {
    for gone in ["eth0", "eth1"] {
        streamed(Multipath::Throughput, 160, Some(gone));
    }
}
