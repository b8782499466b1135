use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::nat::Packet;
use crate::nat::model::Rules;

const DELAY: Duration = Duration::from_millis(25);

#[test]
fn a_packet_takes_the_delay_of_the_link_and_comes_out_translated() {
    let (mut network, inside, outside) = two(Link::steady(DELAY));
    send(&mut network, inside, "10.0.0.2:5000", "198.51.100.1:80");
    network.run_until(Duration::from_secs(1));
    let (at, packet) = &inbox(&network, outside)[0];
    assert_eq!(packet.src, addr("203.0.113.1:5000"));
    assert!(*at >= DELAY && *at < DELAY + Duration::from_millis(1), "{at:?}");
}

#[test]
fn packets_are_lost_doubled_and_reordered_as_often_as_the_link_says() {
    let link = Link { loss: 0.1, duplicated: 0.2, reordered: 0.1, ..Link::steady(DELAY) };
    let (mut network, inside, outside) = two(link);
    for n in 0..2000u16 {
        send(&mut network, inside, &format!("10.0.0.2:{}", 2000 + n), "198.51.100.1:80");
    }
    network.run_until(Duration::from_secs(10));
    let got = inbox(&network, outside);
    assert!((2050..2270).contains(&got.len()), "{} of 2000 * 0.9 * 1.2", got.len());
    assert!(got.windows(2).any(|w| w[1].1.src.port() < w[0].1.src.port()));
    assert!((150..330).contains(&network.counts().lost));
}

#[test]
fn equal_seeds_give_equal_runs() {
    let run = || {
        let link = Link { loss: 0.3, jitter: DELAY, ..Link::steady(DELAY) };
        let (mut network, inside, outside) = two(link);
        (0..50u16).for_each(|n| send(&mut network, inside, &format!("10.0.0.2:{}", 2000 + n), "198.51.100.1:80"));
        network.run_until(Duration::from_secs(1));
        inbox(&network, outside).to_vec()
    };
    assert_eq!(run(), run());
}

#[test]
fn nats_stand_in_a_row_and_answers_find_the_way_back() {
    let mut network = Network::new(Link::steady(DELAY), 1);
    let carrier = network.add_nat(Realm::Core, Rules::default(), vec!["203.0.113.1".parse().unwrap()]);
    let home = network.add_nat(Realm::Behind(carrier), Rules::default(), vec!["100.64.0.9".parse().unwrap()]);
    let inside = network.add_host(Realm::Behind(home), &["10.0.0.2".parse().unwrap()], Recorder::default());
    let outside = network.add_host(Realm::Core, &["198.51.100.1".parse().unwrap()], Recorder::default());
    send(&mut network, inside, "10.0.0.2:5000", "198.51.100.1:80");
    network.run_until(Duration::from_secs(1));
    assert_eq!(inbox(&network, outside)[0].1.src, addr("203.0.113.1:5000"));
    send(&mut network, outside, "198.51.100.1:80", "203.0.113.1:5000");
    network.run_until(Duration::from_secs(2));
    assert_eq!(inbox(&network, inside)[0].1.dst, addr("10.0.0.2:5000"));
}

#[test]
fn hosts_behind_one_nat_meet_without_it() {
    let mut network = Network::new(Link::steady(DELAY), 1);
    let nat = network.add_nat(Realm::Core, Rules::default(), vec!["203.0.113.1".parse().unwrap()]);
    let inside = network.add_host(Realm::Behind(nat), &["10.0.0.2".parse().unwrap()], Recorder::default());
    let neighbour = network.add_host(Realm::Behind(nat), &["10.0.0.3".parse().unwrap()], Recorder::default());
    send(&mut network, inside, "10.0.0.2:5000", "10.0.0.3:80");
    network.run_until(Duration::from_secs(1));
    assert_eq!(inbox(&network, neighbour)[0].1.src, addr("10.0.0.2:5000"));
}

fn two(link: Link) -> (Network, HostId, HostId) {
    let mut network = Network::new(link, 1);
    let nat = network.add_nat(Realm::Core, Rules::default(), vec!["203.0.113.1".parse().unwrap()]);
    let inside = network.add_host(Realm::Behind(nat), &["10.0.0.2".parse().unwrap()], Recorder::default());
    let outside = network.add_host(Realm::Core, &["198.51.100.1".parse().unwrap()], Recorder::default());
    (network, inside, outside)
}

fn send(network: &mut Network, host: HostId, src: &str, dst: &str) {
    let recorder = network.host_mut::<Recorder>(host).unwrap();
    recorder.outbox.push_back(Packet::udp(addr(src), addr(dst), "x"));
}

fn inbox(network: &Network, host: HostId) -> &[(Duration, Packet)] {
    &network.host::<Recorder>(host).unwrap().inbox
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
