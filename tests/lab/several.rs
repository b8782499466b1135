//! Several paths at once: two machines with two interfaces each.

use std::sync::mpsc;
use std::time::Duration;

use natpipe::Ticket;
use natpipe::lab::{Host, Internet, Link};
use natpipe::nat::Proto;
use natpipe::peer::{Multipath, Node, Peer};
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
async fn by_both(peer: &Peer) {
    let both = async {
        loop {
            let paths = peer.all_paths();
            let mut from: Vec<_> = paths.iter().filter_map(|path| path.local.map(|local| local.ip())).collect();
            from.sort_unstable();
            from.dedup();
            if from.len() >= 2 {
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
    std::thread::scope(|scope| {
        let answering = scope.spawn(move || {
            let answer = async {
                let node = node(multipath).start().await.unwrap();
                give.send(node.ticket().unwrap()).unwrap();
                let (_peer, pipe) = timeout(LIMIT, node.accept()).await.unwrap().unwrap();
                answers(pipe).await
            };
            hosts[1].block_on(answer).unwrap()
        });
        let ticket = ticket.recv_timeout(LIMIT).unwrap();
        let call = async {
            let node = node(multipath).start().await.unwrap();
            let peer = timeout(LIMIT, node.peer(&ticket)).await.unwrap().unwrap();
            by_both(&peer).await;
            let pipe = peer.open(proto, Default::default()).unwrap();
            calls(pipe, peer).await
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
