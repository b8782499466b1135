use super::*;
use crate::nat::{Delta, Entry, Family, Filtering, Finding, Hairpin, Mapping, Ports, Proto, Report, Why};

/// The classes of the table below: what connects each pair, measured between network namespaces for most and
/// following by the same arithmetic for the rest.
const CLASSES: [&str; 10] =
    ["1:1", "EIF", "ADF", "APDF", "APDF random", "Seq", "ADM", "Random", "Random ADF", "Random EIF"];

/// `.` plain punching, `P` prediction, `B` one-sided birthday, `2` two-sided birthday.
const TABLE: [&str; 10] = [
    "..........",
    "..........",
    "..........",
    ".....PBBB.",
    ".....PBBB.",
    "...PPP22B.",
    "...BB222B.",
    "...BB222B.",
    "...BBBBBB.",
    "..........",
];

#[test]
fn every_pair_of_classes_connects_over_udp_as_measured() {
    for (row, a) in CLASSES.iter().enumerate() {
        for (column, b) in CLASSES.iter().enumerate() {
            let expected = TABLE[row].chars().nth(column).unwrap();
            assert_eq!(cheapest(class(a), class(b)), expected, "{a} x {b}");
        }
    }
}

#[test]
fn an_open_end_is_connected_to_directly_and_a_blocked_one_is_not_reached_by_udp() {
    let open = Entry { translated: Finding::Known(false), ..class("EIF") };
    assert_eq!(first(open.clone(), class("Random")).method, Method::Direct);
    let blocked = Entry { asked: 3, answered: 0, ..Entry::untested("eth0", Family::V4, Proto::Udp) };
    let all = between(open, blocked);
    assert!(all.iter().filter(|w| w.method != Method::Relay && w.works != Works::No).count() == 0, "{all:#?}");
    assert!(all.iter().any(|w| w.reason == Reason::Blocked));
}

#[test]
fn what_was_not_tested_stays_possible_and_is_not_promised() {
    let untested = Entry { filtering: Finding::Untested(Why::OneAddress), ..class("Random") };
    let punch = of(Method::UdpPunch, between(untested.clone(), class("APDF")));
    assert_eq!((punch.works, punch.reason), (Works::Maybe, Reason::Untested));
    let cone = Entry { filtering: Finding::Untested(Why::OneAddress), ..class("APDF") };
    assert_eq!(of(Method::UdpPunch, between(cone, class("APDF"))).works, Works::Yes, "its filter does not matter");
}

#[test]
fn a_family_in_which_no_server_could_be_asked_is_not_promised_even_with_an_open_peer() {
    let open = Entry { translated: Finding::Known(false), ..class("EIF") };
    let direct = |entry: Entry| of(Method::Direct, between(entry, open.clone()));
    assert_eq!(direct(class("Random")).works, Works::Yes);
    let unasked = Entry::untested("eth0", Family::V4, Proto::Udp);
    assert_eq!((direct(unasked.clone()).works, direct(unasked).reason), (Works::Maybe, Reason::Untested));
}

#[test]
fn a_small_block_makes_two_sided_guessing_affordable() {
    let block = |entry: Entry| Entry { ports: Some(Ports::new(40_000, 40_511)), samples: 16, ..entry };
    let small = of(Method::UdpBirthdayBlock, between(block(class("Random")), block(class("ADM"))));
    let Reason::BothGuess { packets } = small.reason else { panic!("{small:?}") };
    assert!(small.works == Works::Yes && (800..1200).contains(&packets), "{packets}");
    let large = of(Method::UdpBirthdayBlock, between(class("Random"), class("Random")));
    assert!(large.works == Works::Maybe);
}

#[test]
fn behind_one_nat_punching_needs_a_hairpin() {
    let home = |hairpin| Entry {
        external: Some("203.0.113.1".parse().unwrap()),
        hairpin: Finding::Known(hairpin),
        ..class("APDF")
    };
    let punch = |hairpin| of(Method::UdpPunch, between(home(hairpin), home(hairpin)));
    assert_eq!(punch(Hairpin::None).reason, Reason::NoHairpin);
    assert_eq!(punch(Hairpin::External).works, Works::Yes);
    let direct = of(Method::Direct, between(home(Hairpin::None), home(Hairpin::None)));
    assert_eq!((direct.works, direct.reason), (Works::Maybe, Reason::SameNat));
}

#[test]
fn tcp_is_punched_where_both_mappings_hold_and_predicted_where_they_step() {
    let tcp = |name| Entry { proto: Proto::Tcp, filtering: Finding::Untested(Why::NotOverTcp), ..class(name) };
    assert_eq!(of(Method::TcpPunch, between(tcp("APDF"), tcp("APDF"))).works, Works::Yes);
    assert_eq!(of(Method::TcpPrediction, between(tcp("Seq"), tcp("APDF"))).works, Works::Yes);
    assert_eq!(of(Method::TcpBirthday, between(tcp("Random"), tcp("APDF"))).works, Works::Yes);
    assert_eq!(of(Method::TcpPrediction, between(tcp("Random"), tcp("APDF"))).works, Works::Maybe);
}

#[test]
fn without_network_nothing_works_not_even_a_relay() {
    let dead = Entry { asked: 3, ..Entry::untested("eth0", Family::V4, Proto::Udp) };
    assert!(between(dead, class("EIF")).iter().all(|w| w.works == Works::No));
}

#[test]
fn the_order_of_the_ends_does_not_matter() {
    for a in CLASSES {
        for b in CLASSES {
            assert_eq!(between(class(a), class(b)), between(class(b), class(a)), "{a} x {b}");
        }
    }
}

fn class(name: &str) -> Entry {
    use Filtering as F;
    use Mapping as M;
    let (mapping, filtering, delta) = match name {
        "1:1" | "EIF" => (M::EndpointIndependent, F::EndpointIndependent, Delta::Equal),
        "ADF" => (M::EndpointIndependent, F::AddressDependent, Delta::Equal),
        "APDF" => (M::EndpointIndependent, F::AddressAndPortDependent, Delta::Equal),
        "APDF random" => (M::EndpointIndependent, F::AddressAndPortDependent, Delta::Random),
        "Seq" => (M::AddressAndPortDependent, F::AddressAndPortDependent, Delta::Independent(1)),
        "ADM" => (M::AddressDependent, F::AddressAndPortDependent, Delta::Random),
        "Random" => (M::AddressAndPortDependent, F::AddressAndPortDependent, Delta::Random),
        "Random ADF" => (M::AddressAndPortDependent, F::AddressDependent, Delta::Random),
        _ => (M::AddressAndPortDependent, F::EndpointIndependent, Delta::Random),
    };
    Entry {
        asked: 3,
        answered: 3,
        translated: Finding::Known(true),
        mapping: Finding::Known(mapping),
        filtering: Finding::Known(filtering),
        delta: Finding::Known(delta),
        ..Entry::untested("eth0", Family::V4, Proto::Udp)
    }
}

fn between(a: Entry, b: Entry) -> Vec<Way> {
    ways(&Report { entries: vec![a] }, &Report { entries: vec![b] })
}

fn first(a: Entry, b: Entry) -> Way {
    between(a, b)[0]
}

fn of(method: Method, ways: Vec<Way>) -> Way {
    *ways.iter().find(|w| w.method == method && w.family == Some(Family::V4)).unwrap()
}

fn cheapest(a: Entry, b: Entry) -> char {
    let ways = between(a, b);
    let possible = ways.iter().filter(|w| w.works != Works::No && w.method != Method::Relay);
    match possible.map(|w| w.method).min() {
        Some(Method::UdpPunch) => '.',
        Some(Method::UdpPrediction) => 'P',
        Some(Method::UdpBirthday) => 'B',
        Some(Method::UdpBirthdayBlock) => '2',
        _ => '?',
    }
}
