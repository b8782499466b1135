use super::*;
use crate::lab::real::kind::Kind;
use crate::lab::real::plan::Plan;

const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

fn lan() -> (Lan, Ipv6Addr) {
    let mut lan = Plan::default().lan_of(Kind::Nat64).unwrap();
    let host = lan.host().unwrap().v6;
    (lan, host)
}

/// A datagram with the checksum that its addresses want.
fn datagram(src: IpAddr, dst: IpAddr) -> Vec<u8> {
    let mut body = b"\x10\x00\x0d\x96\x00\x0c\x00\x00ping".to_vec();
    let sum = wire::checksum(&body, wire::pseudo_header(src, dst, UDP, body.len()));
    wire::put(&mut body, 6, sum);
    wire::wrap(src, dst, UDP, &body).unwrap()
}

#[test]
fn a_datagram_is_the_same_in_both_families() {
    let (lan, host) = lan();
    let (v6, v4) = (datagram(host.into(), embedded(SERVER).into()), lan.v4_of(host).unwrap());
    let there = Nat64::new(lan).translate(&v6).unwrap();
    assert_eq!(there, datagram(v4.into(), SERVER.into()), "checksums included");
    assert_eq!(Nat64::new(lan).translate(&there).unwrap(), v6, "and back");
}

#[test]
fn a_datagram_without_checksum_gets_one() {
    let (lan, host) = lan();
    let (from, to) = (embedded(SERVER).into(), host.into());
    let mut v4 = datagram(SERVER.into(), lan.v4_of(host).unwrap().into());
    wire::put(&mut v4, 26, 0);
    assert_eq!(Nat64::new(lan).translate(&v4).unwrap(), datagram(from, to));
}

#[test]
fn what_is_cut_short_or_strange_does_not_pass() {
    let (lan, host) = lan();
    let whole = datagram(host.into(), embedded(SERVER).into());
    for length in 0..whole.len() {
        assert_eq!(Nat64::new(lan).translate(&whole[..length]), None, "{length} bytes");
    }
    let stranger = datagram("2001:db8::1".parse().unwrap(), embedded(SERVER).into());
    assert_eq!(Nat64::new(lan).translate(&stranger), None, "whoever is not behind the router");
}
