//! Each kind does what it says: one test per kind, by plain sockets.
//!
//! A line is mapping, filtering, ports (`kept`, `+4000` of distance, `next+1` from one mapping to the next, `row-2`
//! for local ports in a row, `random`), what a stranger gets; for TCP then what a SYN gets that crosses one.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use natpipe::lab::{Input, Kind, Setup};
use natpipe::nat::{Delta, Kind as Type};
use socket2::{Domain, Socket, Type as SocketType};

use super::prober::{Prober, received, seen};

#[track_caller]
fn shows(setup: impl Into<Setup>, udp: &str, tcp: &str) {
    let prober = Prober::new(setup);
    assert_eq!(prober.udp(), udp, "UDP");
    let crossing = if tcp.starts_with("EIM") { format!(" {}", prober.crossing_syn()) } else { String::new() };
    assert_eq!(prober.tcp() + &crossing, tcp, "TCP");
}

macro_rules! kinds {
    ($($name:ident: $kind:expr, $udp:literal, $tcp:literal;)*) => {$(
        #[test]
        fn $name() {
            shows($kind, $udp, $tcp);
        }
    )*};
}

kinds! {
    open_changes_nothing: Kind::Open, "EIM EIF kept refused", "EIM EIF kept refused passes";
    a_firewall_lets_in_answers: Kind::Firewall, "EIM APDF kept silent", "EIM APDF kept silent passes";
    home: Kind::Home, "EIM APDF kept silent", "EIM APDF kept silent passes";
    linux: Kind::Linux, "EIM APDF kept refused", "EIM APDF kept refused passes";
    rejecting: Kind::Rejecting, "EIM APDF kept prohibited", "EIM APDF kept refused passes";
    non_preserving: Kind::NonPreserving, "EIM APDF random silent", "EIM APDF random silent passes";
    full_cone: Kind::FullCone, "EIM EIF kept silent", "EIM EIF kept silent passes";
    restricted: Kind::Restricted, "EIM ADF kept silent", "EIM ADF kept silent passes";
    symmetric_random: Kind::SymmetricRandom, "APDM APDF random silent", "APDM APDF random silent";
    symmetric_sequential: Kind::SymmetricSequential, "APDM APDF next+1 silent", "APDM APDF next+1 silent";
    symmetric_descending: Kind::SymmetricDescending, "APDM APDF next-1 silent", "APDM APDF next-1 silent";
    address_dependent: Kind::AddressDependent, "ADM APDF random silent", "ADM APDF random silent";
    symmetric_eif: Kind::SymmetricEif, "APDM EIF random silent", "APDM EIF random silent";
    symmetric_adf: Kind::SymmetricAdf, "APDM ADF random silent", "APDM ADF random silent";
    port_block: Kind::PortBlock, "EIM APDF random silent", "EIM APDF random silent passes";
    port_block_symmetric: Kind::PortBlockSymmetric, "APDM APDF random silent", "APDM APDF random silent";
    cgnat: Kind::Cgnat, "EIM EIF kept silent", "EIM EIF kept silent passes";
    double: Kind::Double, "EIM APDF kept silent", "EIM APDF kept silent passes";
    double_symmetric: Kind::DoubleSymmetric, "APDM APDF random silent", "APDM APDF random silent";
    one_to_one: Kind::OneToOne, "EIM EIF kept refused", "EIM EIF kept refused passes";
    one_to_one_firewalled: Kind::OneToOneFirewalled, "EIM APDF kept silent", "EIM APDF kept silent passes";
    hairpin: Kind::Hairpin, "EIM EIF kept silent", "EIM EIF kept silent passes";
    hairpin_internal: Kind::HairpinInternal, "EIM EIF kept silent", "EIM EIF kept silent passes";
    tcp_hostile: Kind::TcpHostile, "EIM APDF kept silent", "EIM APDF kept silent silent";
    tcp_resetting: Kind::TcpResetting, "EIM APDF kept silent", "EIM APDF kept silent refused";
    udp_blocked: Kind::UdpBlocked, "blocked", "EIM APDF kept silent passes";
    short_lived: Kind::ShortLived, "EIM APDF kept silent", "EIM APDF kept silent passes";
    v6_firewall: Kind::V6Firewall, "EIM APDF kept silent", "EIM APDF kept silent passes";
    dual_stack: Kind::DualStack, "EIM APDF kept silent", "EIM APDF kept silent passes";
    patchbay_open: Kind::PatchbayOpen, "EIM EIF kept refused", "EIM APDF kept refused passes";
    patchbay_moderate: Kind::PatchbayModerate, "EIM APDF kept refused", "EIM APDF kept refused passes";
    patchbay_strict: Kind::PatchbayStrict, "APDM APDF random refused", "APDM APDF random refused";
    a_full_cone_may_refuse: Kind::FullCone.answering(Input::Reject), "EIM EIF kept prohibited", "EIM EIF kept refused passes";
    a_symmetric_one_may_answer: Kind::SymmetricRandom.answering(Input::Accept), "APDM APDF random refused", "APDM APDF random refused";
}

/// What seed 002's types and deltas say, in the words of the prober.
fn promised(kind: Type, delta: Delta) -> String {
    let (mapping, filtering) = match kind {
        Type::Open => return "EIM EIF kept refused".to_owned(),
        Type::SymmetricFirewall | Type::Blocked => return "EIM APDF kept silent".to_owned(),
        Type::FullCone => ("EIM", "EIF"),
        Type::Restricted => ("EIM", "ADF"),
        Type::PortRestricted => ("EIM", "APDF"),
        Type::Symmetric => ("APDM", "APDF"),
    };
    let ports = match delta {
        Delta::Equal => "kept".to_owned(),
        Delta::Preserving(distance) => format!("{distance:+}"),
        Delta::Independent(step) => format!("next{step:+}"),
        Delta::Dependent(step) => format!("row{step:+}"),
        Delta::Random => "random".to_owned(),
    };
    format!("{mapping} {filtering} {ports} silent")
}

#[test]
fn all_35_types_by_deltas_are_real_packets() {
    for model in Kind::models() {
        let Kind::Model(kind, delta) = model else { unreachable!() };
        let prober = Prober::new(model);
        let udp = if kind == Type::Blocked { "blocked".to_owned() } else { promised(kind, delta) };
        assert_eq!(prober.udp(), udp, "UDP behind {model}");
        assert_eq!(prober.tcp(), promised(kind, delta), "TCP behind {model}");
    }
}

#[test]
fn a_router_without_an_input_rule_remembers_strangers_and_moves_the_mapping() {
    for (input, moved) in [(Input::Accept, true), (Input::Drop, false), (Input::Reject, false)] {
        let prober = Prober::new(Kind::Home.answering(input));
        let (inside, outside) = (prober.udp_inside(25_000), [prober.udp_outside(0), prober.udp_outside(1)]);
        let external = seen(&inside, &outside[0]);
        outside[1].send_to(b"early", external).unwrap();
        prober.settle();
        assert_eq!(seen(&inside, &outside[1]) != external, moved, "{input}");
    }
}

#[test]
fn hairpinning_is_what_each_kind_says() {
    let cases = [
        (Kind::Home, "nothing"),
        (Kind::FullCone, "nothing"),
        (Kind::Hairpin, "from its external address"),
        (Kind::HairpinInternal, "from the router"),
    ];
    for (kind, expected) in cases {
        let prober = Prober::new(kind);
        let other = prober.router.host("other").unwrap();
        let (inside, outside) = (prober.udp_inside(0), prober.udp_outside(0));
        let neighbour = other.run(|| UdpSocket::bind((other.v4().unwrap(), 0))).unwrap();
        let (target, external) = (seen(&inside, &outside), seen(&neighbour, &outside));
        neighbour.send_to(b"back", target).unwrap();
        prober.settle();
        // What the neighbour sends next to the server passes the router behind it.
        seen(&neighbour, &outside);
        prober.settle();
        let came = match received(&inside) {
            None => "nothing",
            Some(from) if from == external => "from its external address",
            Some(from) if from.ip() == neighbour.local_addr().unwrap().ip() => "from its own address",
            Some(_) => "from the router",
        };
        assert_eq!(came, expected, "{kind}");
    }
}

#[test]
fn short_lived_mappings_end_while_those_of_a_home_live() {
    let probers = [Kind::Home, Kind::ShortLived].map(Prober::new);
    let ends = probers.each_ref().map(|prober| (prober.udp_inside(0), prober.udp_outside(0)));
    let mapped = ends.each_ref().map(|(inside, outside)| seen(inside, outside));
    // Longer than the shorter lifetime of 2 s and shorter than the longer one of 30 s.
    std::thread::sleep(Duration::from_millis(2500));
    for ((prober, (inside, outside)), (external, lives)) in
        probers.iter().zip(&ends).zip(mapped.into_iter().zip([true, false]))
    {
        outside.send_to(b"late", external).unwrap();
        prober.settle();
        assert_eq!(received(inside).is_some(), lives, "{}", prober.router.name());
    }
}

/// Pairs of local ports for which it has one external port towards the server.
fn twins(prober: &Prober, count: usize) -> Vec<[u16; 2]> {
    let (mut known, mut twins) = (HashMap::new(), Vec::new());
    for local in 10_000..14_000 {
        let external = seen(&prober.udp_inside(local), &prober.udp_outside(0));
        twins.extend(known.insert(external, local).map(|other| [other, local]));
        if twins.len() == count {
            return twins;
        }
    }
    panic!("{} twins among 4000 ports", twins.len());
}

#[test]
fn a_connection_that_is_over_holds_no_port_of_an_address_dependent_nat() {
    let prober = Prober::new(Kind::AddressDependent);
    let twins = twins(&prober, 12);
    let listener = prober.server.run(|| TcpListener::bind((prober.addresses[0], 0))).unwrap();
    let connect = |port: u16| {
        let socket = prober.client.run(|| Socket::new(Domain::IPV4, SocketType::STREAM, None)).unwrap();
        socket.bind(&SocketAddr::new(prober.own, port).into()).unwrap();
        let connected = socket.connect_timeout(&listener.local_addr().unwrap().into(), Duration::from_secs(2));
        connected.unwrap_or_else(|error| panic!("from port {port}: {error}"));
        let (_accepted, from) = listener.accept().unwrap();
        from
    };
    let first: Vec<SocketAddr> = twins.iter().map(|[port, _]| connect(*port)).collect();
    // Longer than the router remembers them.
    std::thread::sleep(Duration::from_millis(1500));
    let second: Vec<SocketAddr> = twins.iter().map(|[_, port]| connect(*port)).collect();
    assert_eq!(first, second);
}

#[test]
fn hosts_of_a_port_block_keep_to_their_own_ports() {
    let prober = Prober::new(Kind::PortBlock);
    let other = prober.router.host("other").unwrap();
    let outside = prober.udp_outside(0);
    let neighbour = || other.run(|| UdpSocket::bind((other.v4().unwrap(), 0))).unwrap();
    for _ in 0..16 {
        let (first, second) = (seen(&prober.udp_inside(0), &outside), seen(&neighbour(), &outside));
        assert!((40_000..40_064).contains(&first.port()), "{first}");
        assert!((40_064..40_128).contains(&second.port()), "{second}");
    }
}

#[test]
fn a_double_nat_has_shared_addresses_between_its_routers() {
    let prober = Prober::new(Kind::Double);
    let (between, public) = (prober.router.outside()[0], prober.router.public()[0]);
    let IpAddr::V4(between) = between else { panic!("{between}") };
    assert_eq!(between.octets()[..2], [100, 64]);
    assert_eq!(seen(&prober.udp_inside(0), &prober.udp_outside(0)).ip(), public);
    assert_eq!(prober.router.above().unwrap().outside()[0], public);
}

#[test]
fn routers_and_hosts_count() {
    let prober = Prober::new(Kind::Home);
    let (tracked, carried) = (prober.router.tracked().unwrap(), prober.client.carried().unwrap());
    let outside = prober.udp_outside(0);
    for _ in 0..10 {
        seen(&prober.udp_inside(0), &outside);
    }
    assert!(prober.router.tracked().unwrap() >= tracked + 10);
    let after = prober.client.carried().unwrap();
    assert!(after.sent >= carried.sent + 10 && after.bytes_sent >= carried.bytes_sent + 10 * 29);
}
