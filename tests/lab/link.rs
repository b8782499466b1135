//! The core between hosts: what it does to packets on their way.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use natpipe::lab::{Internet, Kind, Link, Traffic};

use super::prober::{Prober, received};

/// What a socket's queue holds for certain.
const SENT: u64 = 100;

/// What arrives of numbered datagrams over this link, each number in the order in which it came.
fn arrivals(link: Link) -> (Vec<u64>, Traffic) {
    let internet = Internet::with_link(link, 7).unwrap();
    let (a, b) = (internet.host("a").unwrap(), internet.host("b").unwrap());
    let from = a.run(|| UdpSocket::bind((a.v4().unwrap(), 0))).unwrap();
    let to = b.run(|| UdpSocket::bind((b.v4().unwrap(), 0))).unwrap();
    for number in 0..SENT {
        from.send_to(&number.to_be_bytes(), to.local_addr().unwrap()).unwrap();
    }
    // Equal when each has been lost or delivered, and not before.
    let done = |traffic: &Traffic| traffic.delivered + traffic.lost == SENT + traffic.doubled;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done(&internet.traffic()) {
        assert!(Instant::now() < deadline, "{:?}", internet.traffic());
        thread::sleep(Duration::from_millis(1));
    }
    to.set_nonblocking(true).unwrap();
    let mut buffer = [0; 8];
    let next = || to.recv_from(&mut buffer).ok().map(|_| u64::from_be_bytes(buffer));
    (std::iter::from_fn(next).collect(), internet.traffic())
}

#[test]
fn what_is_not_lost_arrives_once_and_in_order() {
    let (arrived, traffic) = arrivals(Link { loss: 0.2, ..Link::steady(Duration::from_millis(20)) });
    assert!(arrived.is_sorted() && (1..SENT).contains(&(arrived.len() as u64)));
    assert_eq!(arrived.len() as u64 + traffic.lost, SENT, "{traffic:?}");
}

#[test]
fn what_is_doubled_arrives_twice() {
    let (arrived, traffic) = arrivals(Link { duplicated: 0.2, ..Link::steady(Duration::from_millis(20)) });
    assert!(traffic.doubled > 0);
    assert_eq!(arrived.len() as u64, SENT + traffic.doubled);
    let twice = arrived.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert_eq!(twice as u64, traffic.doubled);
}

#[test]
fn what_is_held_back_is_overtaken() {
    let (arrived, traffic) = arrivals(Link { reordered: 0.2, ..Link::steady(Duration::from_millis(20)) });
    assert!(traffic.held_back > 0 && !arrived.is_sorted());
    let mut sorted = arrived.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..SENT).collect::<Vec<u64>>(), "nothing is lost");
}

#[test]
fn a_packet_of_few_hops_opens_the_nat_and_ends_in_the_core() {
    let model = "model-port-restricted-equal".parse().unwrap();
    // Two routers in Double, so one hop more.
    for (kind, hops) in [(Kind::Home, 2), (Kind::Double, 3), (model, 2)] {
        let prober = Prober::new(kind);
        let (inside, outside) = (prober.udp_inside(25_000), prober.udp_outside(0));
        inside.set_ttl(hops).unwrap();
        inside.send_to(b"opens", outside.local_addr().unwrap()).unwrap();
        prober.settle();
        assert_eq!(received(&outside), None, "{kind}: it ended on its way");
        assert_eq!(prober.internet.traffic().expired, 1, "{kind}");
        // These kinds keep the port, so it is known without having been seen.
        let external = SocketAddr::new(prober.router.public()[0], 25_000);
        outside.send_to(b"comes in", external).unwrap();
        prober.settle();
        assert_eq!(received(&inside), Some(outside.local_addr().unwrap()), "{kind}: it had opened the NAT");
        inside.set_ttl(hops + 1).unwrap();
        inside.send_to(b"arrives", outside.local_addr().unwrap()).unwrap();
        prober.settle();
        assert_eq!(received(&outside), Some(external), "{kind}: a hop more, and it is there");
    }
}

#[test]
fn a_refusal_comes_back_through_every_nat() {
    for kind in [Kind::Open, Kind::Home, Kind::SymmetricRandom, "model-symmetric-random".parse().unwrap()] {
        let prober = Prober::new(kind);
        let (inside, closed) = (prober.udp_inside(0), SocketAddr::new(prober.addresses[0], 9));
        inside.connect(closed).unwrap();
        inside.send(b"?").unwrap();
        let refused = inside.recv(&mut [0; 4]).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{kind}");
    }
}
