use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::lab::sim::{HostId, Link, Network, Prober, Realm, Recorder, Responder};
use crate::nat::model::{Rules, kinds};
use crate::nat::probe::{Server, Setup};
use crate::nat::{Family, Finding, Kind, Packet, Proto, Rng};

const MS: Duration = Duration::from_millis(1);

#[test]
fn each_rule_has_its_answer() {
    let seen = [Seen { at: Duration::ZERO, local: 5000, external: 40_000 }];
    let first = |delta| predict(&entry(delta), &seen, next(5001)).map(|p| p.guesses[0].port);
    assert_eq!(first(Delta::Equal), Ok(5001));
    assert_eq!(first(Delta::Preserving(-7)), Ok(4994));
    assert_eq!(first(Delta::Dependent(3)), Ok(40_003));
    assert_eq!(first(Delta::Independent(-2)), Ok(39_998));
    assert_eq!(first(Delta::Random), Err(Unpredictable::Random));
}

#[test]
fn a_dependent_step_asks_for_its_local_port() {
    let seen = [Seen { at: Duration::ZERO, local: 5000, external: 40_000 }];
    let asked = predict(&entry(Delta::Dependent(1)), &seen, next(6000));
    assert_eq!(asked, Err(Unpredictable::LocalPort { needed: 5001 }));
    assert_eq!(predict(&entry(Delta::Dependent(1)), &[], next(6000)), Err(Unpredictable::NothingSeen));
}

#[test]
fn a_cone_keeps_the_port_of_a_socket_that_was_seen() {
    let cone = Entry { mapping: Finding::Known(Mapping::EndpointIndependent), ..entry(Delta::Random) };
    let seen = [Seen { at: Duration::ZERO, local: 5000, external: 40_000 }];
    assert_eq!(predict(&cone, &seen, next(5000)).map(|p| p.guesses[0].port), Ok(40_000));
    assert_eq!(predict(&cone, &seen, next(5001)), Err(Unpredictable::Random));
}

#[test]
fn the_window_grows_with_time_and_with_the_traffic_of_others() {
    let seen = [Seen { at: Duration::ZERO, local: 5000, external: 40_000 }];
    let width = |mappings, at| {
        let foreign = Some(Foreign { mappings, window: 500 * MS });
        let entry = Entry { foreign, ..entry(Delta::Independent(1)) };
        let prediction = predict(&entry, &seen, Next { at, ..next(5001) }).unwrap();
        assert!(prediction.confidence() > 0.95, "{}", prediction.confidence());
        prediction.guesses.len()
    };
    assert!(width(0, 50 * MS) <= 3);
    assert!(width(0, 50 * MS) < width(50, 50 * MS));
    assert!(width(50, 50 * MS) < width(50, 500 * MS));
    assert!(width(50, 500 * MS) < 120);
}

#[test]
fn fewer_candidates_than_are_needed_are_said_to_be_less_sure() {
    let seen = [Seen { at: Duration::ZERO, local: 5000, external: 40_000 }];
    let foreign = Some(Foreign { mappings: 50, window: 500 * MS });
    let entry = Entry { foreign, ..entry(Delta::Independent(1)) };
    let few = predict(&entry, &seen, Next { at: 500 * MS, most: 5, ..next(5001) }).unwrap();
    assert_eq!(few.guesses.len(), 5);
    assert!(few.confidence() < 0.5);
    // Fifty others are expected: the few are taken from around there.
    assert!(few.ports().all(|port| (40_040..40_060).contains(&port)), "{few:?}");
    assert!(few.guesses.windows(2).all(|pair| pair[0].chance >= pair[1].chance));
}

#[test]
fn more_traffic_than_candidates_is_aimed_at_where_it_is_likeliest() {
    let seen = [Seen { at: Duration::ZERO, local: 5000, external: 30_000 }];
    let foreign = Some(Foreign { mappings: 2000, window: 1000 * MS });
    let entry = Entry { foreign, ..entry(Delta::Independent(1)) };
    let prediction = predict(&entry, &seen, Next { at: 1000 * MS, ..next(5001) }).unwrap();
    assert!(prediction.confidence() > 0.95, "{}", prediction.confidence());
    assert!(prediction.guesses.len() <= 500 && prediction.ports().any(|port| port == 32_001));
}

#[test]
fn ports_that_are_counted_down_go_round_at_the_bottom() {
    let seen = [Seen { at: Duration::ZERO, local: 5000, external: 1024 }];
    let prediction = predict(&entry(Delta::Independent(-1)), &seen, next(5001)).unwrap();
    assert_eq!(prediction.guesses[0].port, u16::MAX);
}

/// The whole way: a probe's report, one fresh mapping, a pause of a signalling round trip with others'
/// mappings in it, and the next mapping, for every type and predictable delta.
#[test]
fn the_next_mapping_is_hit_for_every_predictable_delta_with_others_in_between() {
    for kind in Kind::ALL.into_iter().filter(|k| k.translates()) {
        for family in 0..4 {
            let hits = (0..200).filter(|seed| hit(kind, family, *seed)).count();
            assert!(hits >= 190, "{kind} {}: {hits} of 200", delta_of(family, 1));
        }
    }
}

#[test]
fn the_stated_confidence_is_kept_under_heavy_traffic() {
    let hits = (0..200).filter(|seed| hit_with(Kind::Symmetric, Delta::Independent(1), 200.0, 200 * MS, *seed)).count();
    assert!(hits >= 190, "{hits} of 200");
}

fn hit(kind: Kind, family: usize, seed: u64) -> bool {
    hit_with(kind, delta_of(family, seed), 50.0, 100 * MS, seed)
}

fn delta_of(family: usize, seed: u64) -> Delta {
    let mut rng = Rng::new(seed);
    let by = (1 + rng.below(7) as i32) * if rng.chance(0.5) { 1 } else { -1 };
    [Delta::Equal, Delta::Preserving(by * 100), Delta::Independent(by), Delta::Dependent(by)][family]
}

fn hit_with(kind: Kind, delta: Delta, others: f64, pause: Duration, seed: u64) -> bool {
    let mut world = World::new(kinds::rules(kind, delta), others, seed);
    let entry = world.entry();
    let local = 33_000 + (seed % 1000) as u16;
    let at = world.network.now();
    let external = world.map(local, "198.51.100.200:3478");
    let seen = [Seen { at, local, external }];
    world.network.run_until(at + pause);
    let next = Next { at: world.network.now(), local: local + 1, before: 0, most: 500 };
    let prediction = predict(&entry, &seen, next).expect("it is predictable");
    let mapped = world.map(local + 1, "192.0.2.200:9");
    prediction.ports().any(|port| port == mapped)
}

struct World {
    network: Network,
    prober: HostId,
    recorder: HostId,
    far: HostId,
}

impl World {
    fn new(rules: Rules, others: f64, seed: u64) -> Self {
        let mut network = Network::new(Link::steady(25 * MS), seed);
        let nat = network.add_nat(Realm::Core, rules, vec!["203.0.113.1".parse().unwrap()]);
        network.add_others(nat, others);
        let (primary, alternate) = (address("198.51.100.1:3478"), address("198.51.100.2:3479"));
        let responder = Responder::new(primary, alternate, crate::lab::sim::Fault::None);
        network.add_host(Realm::Core, &responder.addresses(), responder);
        let setup = Setup {
            interface: "eth0".into(),
            local: "10.0.0.2".parse().unwrap(),
            proto: Proto::Udp,
            servers: vec![Server { primary, alternate: None }],
            lead: None,
            router: None,
            seed,
        };
        let prober = network.add_host(Realm::Behind(nat), &["10.0.0.2".parse().unwrap()], Prober::new(setup));
        // The punching host shares the prober's address as far as the NAT can see: it sends from that address.
        let recorder = network.add_host(Realm::Behind(nat), &["10.0.0.99".parse().unwrap()], Recorder::default());
        let far = ["198.51.100.200", "192.0.2.200"].map(|ip| ip.parse().unwrap());
        let far = network.add_host(Realm::Core, &far, Recorder::default());
        Self { network, prober, recorder, far }
    }

    fn entry(&mut self) -> Entry {
        let prober = self.prober;
        let busy = |n: &Network| n.host::<Prober>(prober).is_some_and(|p| p.done_at().is_none());
        self.network.run_while(Duration::from_secs(10), busy);
        self.network.host::<Prober>(prober).unwrap().probe().entry()
    }

    /// The external port of a new mapping; the time goes on by a one-way delay.
    fn map(&mut self, local: u16, to: &str) -> u16 {
        let src = SocketAddr::new("10.0.0.2".parse().unwrap(), local);
        let recorder = self.network.host_mut::<Recorder>(self.recorder).unwrap();
        recorder.outbox.push_back(Packet::udp(src, address(to), "x"));
        let now = self.network.now();
        self.network.run_until(now + 30 * MS);
        self.network.host::<Recorder>(self.far).unwrap().inbox.last().unwrap().1.src.port()
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn entry(delta: Delta) -> Entry {
    Entry {
        translated: Finding::Known(true),
        mapping: Finding::Known(Mapping::AddressAndPortDependent),
        delta: Finding::Known(delta),
        ..Entry::untested("eth0", Family::V4, Proto::Udp)
    }
}

fn next(local: u16) -> Next {
    Next { at: Duration::ZERO, local, before: 0, most: 500 }
}
