use super::*;
use crate::lab::real::wire::tests::packet;
use crate::nat::model::kinds;
use crate::nat::{Delta, Kind};

const INSIDE: &str = "192.168.1.2:5000";
const OUTSIDE: &str = "203.0.113.1:5000";
const SERVER: &str = "198.51.100.1:3478";
const STRANGER: &str = "198.51.100.2:3478";

fn gate() -> Gate {
    let own: Vec<IpAddr> = vec!["203.0.113.1".parse().unwrap()];
    Gate::new(Nat::new(kinds::rules(Kind::PortRestricted, Delta::Equal), own.clone(), 1), own)
}

fn udp(src: &str, dst: &str) -> Vec<u8> {
    packet(UDP, src.parse().unwrap(), dst.parse().unwrap())
}

#[test]
fn packets_are_translated_both_ways_with_every_checksum() {
    let mut gate = gate();
    assert_eq!(gate.outbound(Duration::ZERO, udp(INSIDE, SERVER)), Way::Outside(udp(OUTSIDE, SERVER)));
    assert_eq!(gate.inbound(Duration::ZERO, udp(SERVER, OUTSIDE)), Way::Inside(udp(SERVER, INSIDE)));
    assert_eq!(gate.inbound(Duration::ZERO, udp(STRANGER, OUTSIDE)), Way::Nowhere);
}

#[test]
fn a_packet_with_its_last_hop_ahead_still_opens_it() {
    let mut gate = gate();
    let mut last = udp(INSIDE, SERVER);
    wire::set_ttl(&mut last, 1);
    let Way::Outside(bytes) = gate.outbound(Duration::ZERO, last) else { panic!("it ended here") };
    assert_eq!(wire::header(&bytes).unwrap().ttl, 1, "the system behind it has counted the hop");
    assert_eq!(gate.inbound(Duration::ZERO, udp(SERVER, OUTSIDE)), Way::Inside(udp(SERVER, INSIDE)));
}

#[test]
fn an_error_about_a_packet_comes_in_with_the_inner_addresses_quoted() {
    let mut gate = gate();
    let Way::Outside(sent) = gate.outbound(Duration::ZERO, udp(INSIDE, SERVER)) else { panic!("it did not go out") };
    let error = icmp::Error::PortUnreachable.about(&sent, "198.51.100.1".parse().unwrap()).unwrap();
    let Way::Inside(bytes) = gate.inbound(Duration::ZERO, error) else { panic!("it did not come in") };
    let header = wire::header(&bytes).unwrap();
    assert_eq!(header.dst.to_string(), "192.168.1.2");
    assert_eq!(wire::checksum(&bytes[header.start..], 0), 0, "its checksum is right");
    let (_, src, dst, _) = quoted(&bytes).unwrap();
    assert_eq!((src.to_string(), dst.to_string()), (INSIDE.to_owned(), SERVER.to_owned()));
}

#[test]
fn errors_about_nothing_do_not_come_in() {
    let mut gate = gate();
    let error = icmp::Error::PortUnreachable.about(&udp(OUTSIDE, SERVER), "198.51.100.1".parse().unwrap()).unwrap();
    assert_eq!(gate.inbound(Duration::ZERO, error.clone()), Way::Nowhere, "no such packet went out");
    for length in 0..error.len() {
        assert_eq!(gate.inbound(Duration::ZERO, error[..length].to_vec()), Way::Nowhere);
    }
}
