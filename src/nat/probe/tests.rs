//! The probe against the model, over the simulated network.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::lab::sim::{Fault, Link, Network, Prober, Realm, Responder};
use crate::nat::model::{Rules, kinds};
use crate::nat::{Delta, Entry, Filtering, Finding, Hairpin, Kind, Layers, Mapping, Proto, Rng, Why};

const ROUND_TRIP: Duration = Duration::from_millis(50);
/// Mappings per second by other users of the NAT.
const OTHERS: f64 = 50.0;

#[test]
fn all_35_types_and_deltas_are_told_apart_over_1000_seeds_each() {
    let wrong = over_seeds(0..1000, |seed| {
        let mut wrong = Vec::new();
        for (kind, delta) in kinds_and_deltas(seed) {
            let run = Run { others: OTHERS, ..Run::new(kinds::rules(kind, delta), seed) };
            wrong.extend(mistake(kind, delta, &run.entry()));
        }
        wrong
    });
    assert!(wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}

#[test]
fn a_lost_packet_in_fifty_changes_no_verdict_on_any_mix_of_behaviours() {
    let wrong = over_seeds(0..100, |seed| {
        let mut wrong = Vec::new();
        for rules in mixes(seed) {
            let run = Run { others: OTHERS, loss: 0.02, reordered: 0.02, ..Run::new(rules.clone(), seed) };
            let entry = run.entry();
            let right = entry.mapping.known() == Some(rules.mapping)
                && entry.filtering.known() == Some(rules.filtering)
                && entry.delta.known() == Some(rules.delta);
            wrong.extend((!right).then(|| format!("seed {seed}: {rules:?} became {entry:?}")));
        }
        wrong
    });
    assert!(wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}

#[test]
fn firewalls_and_open_hosts_are_told_with_a_lost_packet_in_fifty() {
    for seed in 0..100 {
        for kind in [Kind::Open, Kind::SymmetricFirewall, Kind::Blocked] {
            let entry = Run { loss: 0.02, ..Run::new(kinds::rules(kind, Delta::Equal), seed) }.entry();
            assert_eq!(entry.kind(), Some(kind), "seed {seed}: {entry:?}");
        }
    }
}

#[test]
fn others_are_counted_where_ports_are_counted() {
    for (others, expected) in [(0.0, 0..=0), (200.0, 40..=80)] {
        let rules = kinds::rules(Kind::Symmetric, Delta::Independent(3));
        let foreign = Run { others, ..Run::new(rules, 9) }.entry().foreign.expect("it is counted");
        assert!(expected.contains(&foreign.mappings), "{others} per second gave {foreign:?}");
    }
}

#[test]
fn a_carrier_nat_behind_a_home_nat_is_seen_as_the_harder_of_the_two() {
    let home = kinds::rules(Kind::PortRestricted, Delta::Equal);
    let carrier = kinds::rules(Kind::Symmetric, Delta::Random);
    let entry = Run { outer: Some(carrier), loss: 0.02, ..Run::new(home, 4) }.entry();
    assert_eq!((entry.kind(), entry.delta.known()), (Some(Kind::Symmetric), Some(Delta::Random)));
    let carrier = kinds::rules(Kind::FullCone, Delta::Random);
    let home = kinds::rules(Kind::Restricted, Delta::Equal);
    let entry = Run { outer: Some(carrier), loss: 0.02, ..Run::new(home, 4) }.entry();
    assert_eq!((entry.kind(), entry.delta.known()), (Some(Kind::Restricted), Some(Delta::Random)));
}

#[test]
fn whatever_comes_in_whenever_the_probe_ends() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut probe = Probe::new(setup(Proto::Udp, &[Fault::None; 3], seed));
        let (mut now, mut ids) = (Duration::ZERO, Vec::new());
        for _ in 0..10_000 {
            while let Some(effect) = probe.poll_effect() {
                match effect {
                    Effect::Open { socket, .. } if rng.chance(0.1) => probe.handle_open_failed(now, socket),
                    Effect::Open { socket, port } => probe.handle_opened(now, socket, random_address(&mut rng, port)),
                    Effect::Send(transmit) => ids.push(transmit),
                }
            }
            if let Some(heard) = ids.get(rng.below(ids.len() as u64) as usize).filter(|_| rng.chance(0.4)) {
                let from = if rng.chance(0.5) { heard.to } else { random_address(&mut rng, 3478) };
                let (mapped, other) = (random_address(&mut rng, 1), Some(random_address(&mut rng, 0)));
                match rng.below(4) {
                    0 => probe.handle_request(now, SocketId(rng.below(40) as u16), from, heard.id),
                    1 => probe.handle_failed(now, heard.id),
                    _ => probe.handle_answer(now, heard.socket, from, Answer { id: heard.id, mapped, other }),
                }
            }
            let Some(next) = probe.poll_timeout() else { break };
            now = now.max(next.min(now + Duration::from_millis(rng.below(20))));
            probe.handle_timeout(now);
        }
        assert!(probe.is_done(), "seed {seed}");
        assert!(now < Duration::from_secs(5), "seed {seed}: {now:?}");
        let report = crate::nat::Report { entries: vec![probe.entry()] };
        assert_eq!(crate::nat::Report::decode(&report.encode()), Ok(report), "seed {seed}");
    }
}

#[test]
fn a_full_report_takes_three_rounds_and_less_than_two_seconds() {
    for (kind, delta) in kinds_and_deltas(1).into_iter().filter(|(kind, _)| *kind != Kind::Blocked) {
        let done = Run::new(kinds::rules(kind, delta), 1).prober();
        let took = done.done_at().expect("it ends");
        assert!(took < Duration::from_millis(1000), "{kind} {delta}: {took:?}");
        assert!(done.probe().rounds() <= 8, "{kind} {delta}: {} rounds", done.probe().rounds());
    }
}

#[test]
fn every_preset_is_named_as_it_is_20_times_of_20_with_a_lost_packet_in_fifty() {
    for nat in kinds::presets() {
        for seed in 0..20 {
            let entry = Run { loss: 0.02, ..Run::new(nat.rules.clone(), seed) }.entry();
            assert_eq!(entry.kind(), Some(nat.kind), "{} {seed}: {entry:?}", nat.name);
            if nat.kind.translates() {
                assert_eq!(entry.mapping, Finding::Known(nat.rules.mapping), "{} {seed}", nat.name);
                assert_eq!(entry.filtering, Finding::Known(nat.rules.filtering), "{} {seed}", nat.name);
                assert_eq!(entry.delta, Finding::Known(nat.rules.delta), "{} {seed}", nat.name);
            }
        }
    }
}

#[test]
fn tcp_is_classified_over_connections_of_its_own_20_times_of_20() {
    for seed in 0..20 {
        for (kind, delta) in kinds_and_deltas(seed) {
            let rules = kinds::rules(kind, delta);
            let entry = Run { proto: Proto::Tcp, others: OTHERS, ..Run::new(rules.clone(), seed) }.entry();
            assert_eq!(entry.translated, Finding::Known(kind.translates()), "{kind} {delta}");
            assert_eq!(entry.filtering, Finding::Untested(Why::NotOverTcp), "{kind} {delta}");
            if kind.translates() {
                assert_eq!(entry.mapping, Finding::Known(rules.mapping), "{kind} {delta}");
                assert_eq!(entry.delta, Finding::Known(delta), "{kind} {delta}");
            }
        }
    }
}

#[test]
fn an_ipv6_firewall_is_told_from_an_open_ipv6_host() {
    for kind in [Kind::Open, Kind::SymmetricFirewall] {
        let mut network = Network::new(Link::steady(ROUND_TRIP / 2), 1);
        let firewall = network.add_nat(Realm::Core, kinds::rules(kind, Delta::Equal), Vec::new());
        let (primary, alternate) = ("[2001:db8:1::1]:3478".parse().unwrap(), "[2001:db8:1::2]:3479".parse().unwrap());
        let responder = Responder::new(primary, alternate, Fault::None);
        let owned = responder.addresses();
        network.add_host(Realm::Core, &owned, responder);
        let local = "2001:db8:2::2".parse().unwrap();
        let servers = vec![Server { primary, alternate: None }];
        let prober = Prober::new(Setup { local, servers, ..setup_without_servers() });
        let host = network.add_host(Realm::Behind(firewall), &[local], prober);
        network.run_until(Duration::from_secs(5));
        let entry = network.host::<Prober>(host).unwrap().probe().entry();
        assert_eq!((entry.family, entry.kind()), (crate::nat::Family::V6, Some(kind)), "{entry:?}");
        assert_eq!(entry.layers, Finding::Known(Layers::None));
    }
}

#[test]
fn hairpinning_is_seen_with_the_source_that_it_shows() {
    for hairpin in [Hairpin::None, Hairpin::Internal, Hairpin::External] {
        for kind in [Kind::FullCone, Kind::Restricted, Kind::PortRestricted] {
            let rules = Rules { hairpin, ..kinds::rules(kind, Delta::Random) };
            let entry = Run { loss: 0.02, ..Run::new(rules, 5) }.entry();
            assert_eq!(entry.hairpin, Finding::Known(hairpin), "{kind}");
        }
    }
}

#[test]
fn with_one_address_per_server_the_mapping_is_told_and_filtering_is_not() {
    let one = |rules| Run { faults: vec![Fault::OneAddress; 3], ..Run::new(rules, 2) }.entry();
    let cone = one(kinds::rules(Kind::FullCone, Delta::Equal));
    assert_eq!(cone.mapping, Finding::Known(Mapping::EndpointIndependent));
    assert_eq!(cone.filtering, Finding::Untested(Why::OneAddress));
    assert_eq!(cone.kind(), None);
    let symmetric = one(kinds::rules(Kind::Symmetric, Delta::Random));
    assert_eq!(symmetric.mapping, Finding::AtLeast(Mapping::AddressDependent));
    assert_eq!(symmetric.kind(), Some(Kind::Symmetric));
    let single = Run { faults: vec![Fault::OneAddress], ..Run::new(Rules::default(), 2) }.entry();
    assert_eq!(single.mapping, Finding::Untested(Why::OneAddress));
    assert_eq!(single.delta, Finding::Known(Delta::Equal));
}

#[test]
fn a_server_that_does_not_change_addresses_is_not_taken_for_a_filter() {
    for fault in [Fault::Ignores, Fault::Refrains, Fault::HalfDead] {
        let run = Run { faults: vec![fault], ..Run::new(kinds::rules(Kind::FullCone, Delta::Equal), 4) };
        let entry = run.entry();
        assert_eq!(entry.filtering.known().unwrap_or(Filtering::EndpointIndependent), Filtering::EndpointIndependent);
        assert_eq!(entry.kind().unwrap_or(Kind::FullCone), Kind::FullCone, "{fault:?}: {entry:?}");
    }
}

#[test]
fn one_bad_server_among_three_changes_no_verdict() {
    let lie = "192.0.2.66:6666".parse().unwrap();
    let other_family = "[2001:db8::66]:6666".parse().unwrap();
    let faults = [
        Fault::Lies(lie),
        Fault::Lies(other_family),
        Fault::Twice,
        Fault::Late(Duration::from_millis(300)),
        Fault::Late(Duration::from_secs(5)),
        Fault::Silent,
        Fault::Ignores,
        Fault::Refrains,
        Fault::HalfDead,
        Fault::OneAddress,
    ];
    for fault in faults {
        for (kind, delta) in kinds_and_deltas(11) {
            let faults = vec![Fault::None, fault, Fault::None];
            let entry = Run { faults, ..Run::new(kinds::rules(kind, delta), 11) }.entry();
            assert_eq!(mistake(kind, delta, &entry), None, "{fault:?}");
            assert!(!entry.pooled, "{fault:?}: {kind} {delta}");
        }
    }
}

#[test]
fn servers_that_never_answer_leave_a_report_that_says_so() {
    let entry = Run { faults: vec![Fault::Silent; 2], ..Run::new(Rules::default(), 1) }.entry();
    assert_eq!((entry.asked, entry.answered), (2, 0));
    assert_eq!(entry.mapping, Finding::Untested(Why::NoAnswer));
    assert_eq!(entry.kind(), Some(Kind::Blocked));
}

#[test]
fn without_servers_the_probe_ends_at_once() {
    let entry = Run { faults: Vec::new(), ..Run::new(Rules::default(), 1) }.entry();
    assert_eq!((entry.asked, entry.answered, entry.kind()), (0, 0, None));
}

#[test]
fn sockets_that_can_not_be_opened_are_not_taken_for_a_blocked_network() {
    let mut probe = Probe::new(setup(Proto::Udp, &[Fault::None], 1));
    while let Some(effect) = probe.poll_effect() {
        if let Effect::Open { socket, .. } = effect {
            probe.handle_open_failed(Duration::ZERO, socket);
        }
    }
    assert!(probe.is_done());
    assert_eq!(probe.entry().kind(), None);
}

#[test]
fn two_nats_in_a_row_are_told_by_the_address_that_the_router_claims() {
    let told = |router: Option<&str>| {
        layers(
            "192.168.1.2".parse().unwrap(),
            Some("203.0.113.1".parse().unwrap()),
            Finding::Known(true),
            router.map(|r| r.parse().unwrap()),
        )
    };
    assert_eq!(told(Some("203.0.113.1")), Finding::Known(Layers::One));
    assert_eq!(told(Some("192.168.0.4")), Finding::Known(Layers::Double));
    assert_eq!(told(Some("100.64.3.4")), Finding::Known(Layers::Carrier));
    assert_eq!(told(None), Finding::Untested(Why::NoRouterAddress));
}

/// Every type with every delta, the steps drawn from the seed.
fn kinds_and_deltas(seed: u64) -> Vec<(Kind, Delta)> {
    let mut rng = Rng::new(seed);
    let mut step = |most: i32| {
        let size = 1 + rng.below(most as u64) as i32;
        if rng.chance(0.5) { size } else { -size }
    };
    let deltas = [
        Delta::Equal,
        Delta::Preserving(step(900)),
        Delta::Independent(step(9)),
        Delta::Dependent(step(9)),
        Delta::Random,
    ];
    Kind::ALL.into_iter().flat_map(|kind| deltas.map(|delta| (kind, delta))).collect()
}

/// Every mapping with every filtering and delta.
fn mixes(seed: u64) -> Vec<Rules> {
    use {Filtering as F, Mapping as M};
    let mut mixes = Vec::new();
    for mapping in [M::EndpointIndependent, M::AddressDependent, M::AddressAndPortDependent] {
        for filtering in [F::EndpointIndependent, F::AddressDependent, F::AddressAndPortDependent] {
            let deltas = kinds_and_deltas(seed).into_iter().take(5);
            mixes.extend(deltas.map(|(_, delta)| Rules { mapping, filtering, delta, ..Rules::default() }));
        }
    }
    mixes
}

fn random_address(rng: &mut Rng, port: u16) -> SocketAddr {
    let ip = std::net::Ipv4Addr::from(0xc633_6400 | rng.below(256) as u32);
    SocketAddr::new(ip.into(), if port == 0 { rng.port(1024, 2000) } else { port })
}

/// What the entry gets wrong, if anything. Types that do not translate have no delta.
fn mistake(kind: Kind, delta: Delta, entry: &Entry) -> Option<String> {
    let expected = if kind.translates() { Some(delta) } else { None };
    let right = entry.kind() == Some(kind) && entry.delta.known() == expected;
    (!right).then(|| format!("{kind} {delta} became {:?} {:?}: {entry:?}", entry.kind(), entry.delta))
}

struct Run {
    rules: Rules,
    proto: Proto,
    loss: f64,
    reordered: f64,
    /// A second NAT, between the first and the world.
    outer: Option<Rules>,
    others: f64,
    faults: Vec<Fault>,
    seed: u64,
}

impl Run {
    fn new(rules: Rules, seed: u64) -> Self {
        Self {
            rules,
            proto: Proto::Udp,
            loss: 0.0,
            reordered: 0.0,
            outer: None,
            others: 0.0,
            faults: vec![Fault::None; 2],
            seed,
        }
    }

    fn entry(self) -> Entry {
        self.prober().probe().entry()
    }

    fn prober(self) -> Prober {
        let link = Link { jitter: Duration::from_millis(2), reordered: self.reordered, ..Link::steady(ROUND_TRIP / 2) };
        let mut network = Network::new(link.losing(self.loss), self.seed);
        let world = "203.0.113.1".parse().unwrap();
        let (outside, address) = match self.outer {
            None => (Realm::Core, world),
            Some(rules) => {
                let carrier = network.add_nat(Realm::Core, rules, vec![world]);
                (Realm::Behind(carrier), "100.64.0.9".parse().unwrap())
            }
        };
        let nat = network.add_nat(outside, self.rules, vec![address]);
        network.add_others(nat, self.others);
        for (n, fault) in self.faults.iter().enumerate() {
            let (primary, alternate) = addresses(n);
            let responder = Responder::new(primary, alternate, *fault);
            let owned = responder.addresses();
            network.add_host(Realm::Core, &owned, responder);
        }
        let setup = setup(self.proto, &self.faults, self.seed);
        let local = setup.local;
        let host = network.add_host(Realm::Behind(nat), &[local], Prober::new(setup));
        network.run_while(Duration::from_secs(30), |n| n.host::<Prober>(host).is_some_and(|p| p.done_at().is_none()));
        let Some(prober) = network.host_mut::<Prober>(host) else { panic!("the prober is gone") };
        std::mem::replace(prober, Prober::new(setup_without_servers()))
    }
}

fn addresses(server: usize) -> (SocketAddr, SocketAddr) {
    let primary = format!("198.51.100.{}:3478", 10 + server);
    let alternate = format!("198.51.100.{}:3479", 110 + server);
    (primary.parse().unwrap(), alternate.parse().unwrap())
}

fn setup(proto: Proto, faults: &[Fault], seed: u64) -> Setup {
    let servers = (0..faults.len()).map(|n| Server {
        primary: addresses(n).0,
        // CHANGE-REQUEST does not exist over TCP, but four mappings can be compared where the addresses are known.
        alternate: (faults[n] != Fault::OneAddress && proto == Proto::Tcp).then(|| addresses(n).1),
    });
    Setup { servers: servers.collect(), proto, seed, ..setup_without_servers() }
}

fn setup_without_servers() -> Setup {
    Setup {
        interface: "eth0".into(),
        local: "10.0.0.2".parse().unwrap(),
        proto: Proto::Udp,
        servers: Vec::new(),
        lead: None,
        router: None,
        seed: 0,
    }
}

/// Runs the seeds on two threads.
fn over_seeds<T: Send>(seeds: std::ops::Range<u64>, run: impl Fn(u64) -> Vec<T> + Sync) -> Vec<T> {
    let middle = (seeds.start + seeds.end) / 2;
    std::thread::scope(|scope| {
        let first = scope.spawn(|| (seeds.start..middle).flat_map(&run).collect::<Vec<T>>());
        let mut found: Vec<T> = (middle..seeds.end).flat_map(&run).collect();
        found.extend(first.join().unwrap());
        found
    })
}
