use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::lab::real::plan::CORE;

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 3));
const DELAY: Duration = Duration::from_millis(25);

/// Two hosts at a core.
struct Bench {
    core: Backbone,
    a: Port,
    b: Port,
}

impl Bench {
    fn new(link: Link) -> Self {
        let mut core = Backbone::new(CORE, link, 1);
        let a = core.attach(vec![Prefix::only(A)], None);
        let b = core.attach(vec![Prefix::only(B)], None);
        Self { core, a, b }
    }

    fn send(&mut self, at: Duration, number: u16, to: IpAddr, ttl: u8) {
        self.core.handle(at, self.a, datagram(number, to, ttl));
    }

    /// Who got which datagrams up to this moment.
    fn arrived(&mut self, by: Duration) -> Vec<(Port, u16)> {
        std::iter::from_fn(|| self.core.poll(by)).map(|(port, bytes)| (port, wire::word(&bytes, 20))).collect()
    }
}

/// One whose source port is its number.
fn datagram(number: u16, to: IpAddr, ttl: u8) -> Vec<u8> {
    let mut body = [0; 8];
    wire::put(&mut body, 0, number);
    wire::put(&mut body, 4, 8);
    let mut bytes = wire::wrap(A, to, wire::UDP, &body).unwrap();
    wire::set_ttl(&mut bytes, ttl);
    bytes
}

#[test]
fn a_packet_arrives_after_the_delay_and_not_before() {
    let mut bench = Bench::new(Link::steady(DELAY));
    bench.send(Duration::ZERO, 1, B, 64);
    assert_eq!(bench.core.next_due(), Some(DELAY));
    assert_eq!(bench.arrived(DELAY - Duration::from_nanos(1)), []);
    let b = bench.b;
    assert_eq!(bench.arrived(DELAY), [(b, 1)]);
}

#[test]
fn a_steady_link_keeps_the_order() {
    let mut bench = Bench::new(Link::steady(DELAY));
    (0..100).for_each(|n| bench.send(Duration::ZERO, n, B, 64));
    let numbers: Vec<u16> = bench.arrived(DELAY).into_iter().map(|(_, n)| n).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<u16>>());
}

#[test]
fn losses_doubles_and_reordering_have_their_share_and_are_counted() {
    let link = Link { loss: 0.1, duplicated: 0.2, reordered: 0.3, ..Link::steady(DELAY) };
    let mut bench = Bench::new(link);
    (0..10_000).for_each(|n| bench.send(Duration::ZERO, n, B, 64));
    let arrived = bench.arrived(DELAY * 3);
    let traffic = bench.core.traffic();
    assert_eq!(arrived.len() as u64, 10_000 - traffic.lost + traffic.doubled);
    assert_eq!(traffic.delivered, arrived.len() as u64);
    assert!((900..1100).contains(&traffic.lost), "{traffic:?}");
    assert!((1600..2000).contains(&traffic.doubled), "{traffic:?}");
    assert!((2500..2900).contains(&traffic.held_back), "{traffic:?}");
    assert!(!arrived.is_sorted_by_key(|(_, n)| *n), "later ones overtake");
}

#[test]
fn the_link_of_one_host_comes_on_top() {
    let mut bench = Bench::new(Link::steady(DELAY));
    bench.core.set_link_of(bench.b, Link::steady(DELAY));
    bench.send(Duration::ZERO, 1, B, 64);
    assert_eq!(bench.core.next_due(), Some(DELAY * 2));
    bench.core.set_link_of(bench.b, Link { loss: 1.0, ..Link::steady(DELAY) });
    bench.send(Duration::ZERO, 2, B, 64);
    assert_eq!(bench.arrived(DELAY * 9).len(), 1);
    assert_eq!(bench.core.traffic().lost, 1);
}

#[test]
fn a_packet_whose_hops_end_is_told_to_its_sender() {
    let mut bench = Bench::new(Link::steady(DELAY));
    bench.send(Duration::ZERO, 1, B, 1);
    bench.send(Duration::ZERO, 2, NOBODY, 64);
    let answers: Vec<_> = std::iter::from_fn(|| bench.core.poll(DELAY)).collect();
    assert_eq!(answers.len(), 2);
    for ((to, bytes), kind) in answers.iter().zip([11, 3]) {
        let header = wire::header(bytes).unwrap();
        assert_eq!((*to, header.src, header.dst, header.proto), (bench.a, CORE[0], A, wire::ICMP));
        assert_eq!(bytes[20], kind);
        assert_eq!(wire::outline(&bytes[28..]).unwrap().src, A, "it quotes the packet");
    }
    assert_eq!((bench.core.traffic().expired, bench.core.traffic().unroutable), (1, 1));
}

#[test]
fn the_longest_prefix_owns_an_address() {
    let mut bench = Bench::new(Link::steady(DELAY));
    let network = bench.core.attach(vec![Prefix { address: A, bits: 24 }], None);
    bench.send(Duration::ZERO, 1, B, 64);
    bench.send(Duration::ZERO, 2, NOBODY, 64);
    let b = bench.b;
    assert_eq!(bench.arrived(DELAY), [(b, 1), (network, 2)]);
    bench.core.detach(network);
    bench.send(DELAY, 3, NOBODY, 64);
    assert_eq!(bench.core.traffic().unroutable, 1);
}

#[test]
fn a_core_holds_so_many_packets_and_no_more() {
    let mut bench = Bench::new(Link::steady(DELAY));
    for n in 0..MAX_UNDER_WAY + 10 {
        bench.send(Duration::ZERO, n as u16, B, 64);
    }
    assert_eq!(bench.core.traffic().overflowed, 10);
    assert_eq!(bench.arrived(DELAY).len(), MAX_UNDER_WAY);
}

#[test]
fn prefixes_hold_what_begins_alike() {
    let has = |prefix: &str, bits, address: &str| {
        Prefix { address: prefix.parse().unwrap(), bits }.has(address.parse().unwrap())
    };
    assert!(has("10.0.0.0", 8, "10.255.0.1") && !has("10.0.0.0", 8, "11.0.0.1"));
    assert!(has("0.0.0.0", 0, "203.0.113.1") && has("::", 0, "2001:db8::1") && !has("::", 0, "10.0.0.1"));
    assert!(has("2001:db8::", 64, "2001:db8::1") && !has("2001:db8::", 64, "2001:db8:0:1::1"));
    let address: SocketAddr = "198.51.100.1:1".parse().unwrap();
    assert!(Prefix::only(address.ip()).has(A) && !Prefix::only(B).has(A));
}

#[test]
fn through_a_limited_port_only_so_much_passes_each_way_and_what_waits_too_long_is_lost() {
    let mut bench = Bench::new(Link::steady(DELAY));
    // Each datagram has 28 bytes and takes a millisecond.
    bench.core.set_rate_of(bench.a, NonZeroU64::new(28_000));
    (0..200).for_each(|n| bench.send(Duration::ZERO, n, B, 64));
    let b = bench.b;
    assert_eq!(bench.arrived(DELAY + Duration::from_micros(1500)), [(b, 0)]);
    assert_eq!(bench.arrived(DELAY + Duration::from_micros(2500)), [(b, 1)]);
    let rest = bench.arrived(DELAY * 100).len() as u64;
    assert_eq!(rest + 2 + bench.core.traffic().overflowed, 200);
    assert!((95..=102).contains(&(rest + 2)), "{rest}");
    bench.core.set_rate_of(bench.a, None);
    (0..200).for_each(|n| bench.send(DELAY * 200, n, B, 64));
    assert_eq!(bench.arrived(DELAY * 201).len(), 200);
}
