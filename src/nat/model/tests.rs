use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::nat::{Delta, Filtering, Hairpin, Kind, Mapping, Packet, Ports, Proto, TcpFlags};

const NOW: Duration = Duration::ZERO;
const IN: &str = "10.0.0.2:5000";
const OTHER_IN: &str = "10.0.0.3:5000";
const OUT: &str = "198.51.100.1:3478";
const OUT_PORT: &str = "198.51.100.1:3479";
const OUT_HOST: &str = "198.51.100.2:3478";

#[test]
fn ports_are_preserved_and_answers_find_home() {
    let mut nat = nat(Rules::default());
    assert_eq!(send(&mut nat, IN, OUT), Some(at("203.0.113.1:5000")));
    assert_eq!(receive(&mut nat, OUT, "203.0.113.1:5000"), Some(at(IN)));
}

#[test]
fn a_mapping_is_reused_as_its_rule_says() {
    let cases = [
        (Mapping::EndpointIndependent, true, true),
        (Mapping::AddressDependent, true, false),
        (Mapping::AddressAndPortDependent, false, false),
    ];
    for (mapping, port_shares, host_shares) in cases {
        let mut nat = nat(Rules { mapping, delta: Delta::Random, ..Rules::default() });
        let first = send(&mut nat, IN, OUT);
        assert_eq!(send(&mut nat, IN, OUT), first, "{mapping}");
        assert_eq!(send(&mut nat, IN, OUT_PORT) == first, port_shares, "{mapping}");
        assert_eq!(send(&mut nat, IN, OUT_HOST) == first, host_shares, "{mapping}");
    }
}

#[test]
fn a_filter_lets_in_whom_its_rule_says() {
    let cases = [
        (Filtering::EndpointIndependent, true, true),
        (Filtering::AddressDependent, true, false),
        (Filtering::AddressAndPortDependent, false, false),
    ];
    for (filtering, port_passes, host_passes) in cases {
        let mut nat = nat(Rules { filtering, ..Rules::default() });
        assert_eq!(receive(&mut nat, OUT, "203.0.113.1:5000"), None, "{filtering}: nothing was sent yet");
        send(&mut nat, IN, OUT);
        let passes = |nat: &mut Nat, from| receive(nat, from, "203.0.113.1:5000").is_some();
        assert!(passes(&mut nat, OUT), "{filtering}");
        assert_eq!(passes(&mut nat, OUT_PORT), port_passes, "{filtering}");
        assert_eq!(passes(&mut nat, OUT_HOST), host_passes, "{filtering}");
    }
}

#[test]
fn steps_are_taken_as_the_delta_says() {
    let cases: [(Delta, [u16; 3], [i32; 2]); 4] = [
        (Delta::Preserving(-100), [5000, 5007, 5001], [7, -6]),
        (Delta::Independent(3), [5000, 6001, 5002], [3, 3]),
        (Delta::Independent(-1), [5000, 6001, 5002], [-1, -1]),
        (Delta::Dependent(4), [5000, 5001, 5002], [4, 4]),
    ];
    for (delta, locals, steps) in cases {
        let mut nat = nat(Rules { delta, ports: Ports::new(2000, 60_000), ..Rules::default() });
        let ports = locals.map(|port| i32::from(send(&mut nat, &format!("10.0.0.2:{port}"), OUT).unwrap().port()));
        let taken = [ports[1] - ports[0], ports[2] - ports[1]].map(|s| if s.abs() > 29_000 { s % 58_001 } else { s });
        assert_eq!(taken, steps, "{delta}");
    }
}

#[test]
fn a_dependent_step_needs_the_next_local_port_of_the_same_host() {
    let mut nat = nat(Rules { delta: Delta::Dependent(1), ..Rules::default() });
    let first = send(&mut nat, "10.0.0.2:5000", OUT).unwrap().port();
    send(&mut nat, "10.0.0.3:7000", OUT);
    assert_eq!(send(&mut nat, "10.0.0.2:5001", OUT).unwrap().port(), Ports::UNPRIVILEGED.step(first, 1));
    let jumped = send(&mut nat, "10.0.0.2:5003", OUT).unwrap().port();
    assert_ne!(jumped, Ports::UNPRIVILEGED.step(first, 2));
}

#[test]
fn a_port_belongs_to_one_binding_only() {
    let mut nat = nat(Rules::default());
    assert_eq!(send(&mut nat, IN, OUT), Some(at("203.0.113.1:5000")));
    let second = send(&mut nat, OTHER_IN, OUT).unwrap();
    assert_ne!(second.port(), 5000);
    assert_eq!(receive(&mut nat, OUT, &second.to_string()), Some(at(OTHER_IN)));
}

#[test]
fn ports_run_out_and_come_back() {
    let mut nat = nat(Rules { ports: Ports::new(40_000, 40_003), delta: Delta::Random, ..Rules::default() });
    for port in 1..=4 {
        assert!(send(&mut nat, &format!("10.0.0.2:{port}"), OUT).is_some());
    }
    assert_eq!(nat.outbound(NOW, packet("10.0.0.2:5", OUT)), Verdict::Drop(Reason::PortsExhausted));
    let later = Duration::from_secs(121);
    assert!(matches!(nat.outbound(later, packet("10.0.0.2:5", OUT)), Verdict::Forward(_)));
}

#[test]
fn an_idle_binding_dies_and_only_packets_from_inside_keep_it() {
    for refreshed_from_outside in [false, true] {
        let lifetimes = Lifetimes { refreshed_from_outside, ..Lifetimes::default() };
        let mut nat = nat(Rules { lifetimes, filtering: Filtering::EndpointIndependent, ..Rules::default() });
        send(&mut nat, IN, OUT);
        let back = || packet(OUT, "203.0.113.1:5000");
        assert!(matches!(nat.inbound(Duration::from_secs(119), back()), Verdict::Forward(_)));
        let kept = matches!(nat.inbound(Duration::from_secs(121), back()), Verdict::Forward(_));
        assert_eq!(kept, refreshed_from_outside);
    }
}

#[test]
fn hairpinning_shows_the_source_that_its_rule_says() {
    let cases = [
        (Hairpin::None, Verdict::Drop(Reason::Hairpin)),
        (Hairpin::Internal, hairpinned(OTHER_IN)),
        (Hairpin::External, hairpinned("203.0.113.1:6000")),
    ];
    for (hairpin, expected) in cases {
        let filtering = Filtering::EndpointIndependent;
        let mut nat = nat(Rules { hairpin, filtering, delta: Delta::Preserving(1000), ..Rules::default() });
        assert_eq!(send(&mut nat, "10.0.0.2:4000", OUT), Some(at("203.0.113.1:5000")));
        assert_eq!(nat.outbound(NOW, packet(OTHER_IN, "203.0.113.1:5000")), expected);
    }
}

#[test]
fn an_early_probe_moves_the_later_mapping_where_strays_are_kept() {
    for keeps_strays in [false, true] {
        let mut nat = nat(Rules { keeps_strays, ..Rules::default() });
        assert_eq!(send(&mut nat, IN, OUT), Some(at("203.0.113.1:5000")));
        assert_eq!(receive(&mut nat, OUT_HOST, "203.0.113.1:5000"), None);
        let towards_prober = send(&mut nat, IN, OUT_HOST);
        assert_eq!(towards_prober == Some(at("203.0.113.1:5000")), !keeps_strays);
        assert_eq!(send(&mut nat, IN, OUT_HOST), towards_prober, "and it stays there");
        assert_eq!(send(&mut nat, IN, OUT), Some(at("203.0.113.1:5000")), "the others stay where they are");
        assert_eq!(nat.external(NOW, Proto::Udp, at(IN), at(OUT_HOST)), towards_prober);
    }
}

#[test]
fn a_packet_that_dies_here_leaves_no_trace() {
    let mut nat = nat(Rules::default());
    let dying = packet(IN, OUT).with_ttl(1);
    assert_eq!(nat.outbound(NOW, dying), Verdict::Refuse(Refusal::TimeExceeded));
    assert_eq!(nat.bindings(), 0);
    let Verdict::Forward(passed) = nat.outbound(NOW, packet(IN, OUT).with_ttl(2)) else { panic!() };
    assert_eq!(passed.ttl, 1);
}

#[test]
fn unsolicited_packets_are_dropped_or_refused() {
    let syn = Packet::tcp(at(OUT), at("203.0.113.1:5000"), TcpFlags::SYN, "");
    let udp = packet(OUT, "203.0.113.1:5000");
    let reset = Verdict::Refuse(Refusal::Reset(syn.clone().with_ttl(63).reset()));
    let cases = [
        (Unsolicited::Drop, Verdict::Drop(Reason::Filtered), Verdict::Drop(Reason::Filtered)),
        (Unsolicited::Refuse, reset.clone(), Verdict::Refuse(Refusal::PortUnreachable)),
        (Unsolicited::Prohibit, reset, Verdict::Refuse(Refusal::Prohibited)),
    ];
    for (unsolicited, tcp_verdict, udp_verdict) in cases {
        let mut nat = nat(Rules { unsolicited, ..Rules::default() });
        assert_eq!(nat.inbound(NOW, syn.clone()), tcp_verdict);
        assert_eq!(nat.inbound(NOW, udp.clone()), udp_verdict);
    }
}

#[test]
fn simultaneous_open_passes_unless_the_nat_hates_syns() {
    for (inbound_syn, passes) in [(InboundSyn::Allow, true), (InboundSyn::Drop, false), (InboundSyn::Reset, false)] {
        let mut nat = nat(Rules { inbound_syn, ..Rules::default() });
        let _ = nat.outbound(NOW, Packet::tcp(at(IN), at(OUT), TcpFlags::SYN, ""));
        let from_outside = |flags| Packet::tcp(at(OUT), at("203.0.113.1:5000"), flags, "");
        let verdict = nat.inbound(NOW, from_outside(TcpFlags::SYN));
        assert_eq!(matches!(verdict, Verdict::Forward(_)), passes);
        let answer = nat.inbound(NOW, from_outside(TcpFlags::SYN | TcpFlags::ACK));
        assert!(matches!(answer, Verdict::Forward(_)), "an answer always passes");
    }
}

#[test]
fn an_established_connection_outlives_one_that_never_was() {
    let mut nat = nat(Rules::default());
    let segment = |port: u16, flags| Packet::tcp(SocketAddr::new(at(IN).ip(), port), at(OUT), flags, "");
    let _ = nat.outbound(NOW, segment(1, TcpFlags::SYN));
    let _ = nat.outbound(NOW, segment(2, TcpFlags::SYN));
    let _ = nat.outbound(NOW, segment(2, TcpFlags::ACK));
    let later = Duration::from_secs(300);
    let lives =
        |nat: &mut Nat, port| nat.external(later, Proto::Tcp, SocketAddr::new(at(IN).ip(), port), at(OUT)).is_some();
    assert!(!lives(&mut nat, 1));
    assert!(lives(&mut nat, 2));
}

#[test]
fn the_last_acknowledgement_does_not_open_a_closed_connection_again() {
    let mut nat = nat(Rules::default());
    let segment = |flags| Packet::tcp(at(IN), at(OUT), flags, "");
    let later = Duration::from_secs(300);
    let beginning = [TcpFlags::SYN, TcpFlags::ACK];
    for flags in [&beginning[..], &[TcpFlags::FIN | TcpFlags::ACK, TcpFlags::ACK]].concat() {
        let _ = nat.outbound(NOW, segment(flags));
    }
    assert!(nat.external(later, Proto::Tcp, at(IN), at(OUT)).is_none());
    for flags in beginning {
        let _ = nat.outbound(NOW, segment(flags));
    }
    assert!(nat.external(later, Proto::Tcp, at(IN), at(OUT)).is_some());
}

#[test]
fn a_firewall_keeps_addresses_and_lets_only_answers_in() {
    let mut nat = nat(kinds::rules(Kind::SymmetricFirewall, Delta::Random));
    assert_eq!(receive(&mut nat, OUT, IN), None);
    assert_eq!(send(&mut nat, IN, OUT), Some(at(IN)));
    assert_eq!(receive(&mut nat, OUT, IN), Some(at(IN)));
    assert_eq!(receive(&mut nat, OUT_HOST, IN), None);
}

#[test]
fn ipv6_has_its_own_addresses() {
    let addresses = vec!["203.0.113.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let mut nat = Nat::new(Rules::default(), addresses, 1);
    assert_eq!(send(&mut nat, "[fd00::2]:5000", "[2001:db8:1::1]:3478"), Some(at("[2001:db8::1]:5000")));
    assert_eq!(send(&mut nat, IN, OUT), Some(at("203.0.113.1:5000")));
}

#[test]
fn a_full_table_refuses_new_bindings_and_keeps_the_old() {
    let mut nat = nat(Rules { max_bindings: 2, ..Rules::default() });
    send(&mut nat, "10.0.0.2:1001", OUT);
    send(&mut nat, "10.0.0.2:1002", OUT);
    send(&mut nat, "10.0.0.2:1003", OUT);
    assert_eq!(nat.outbound(NOW, packet("10.0.0.2:1003", OUT)), Verdict::Drop(Reason::TableFull));
    assert!(send(&mut nat, "10.0.0.2:1001", OUT).is_some());
    assert_eq!(nat.bindings(), 2);
}

#[test]
fn a_pool_is_paired_or_not() {
    let pool: Vec<_> = (1..=4).map(|n| format!("203.0.113.{n}").parse().unwrap()).collect();
    for pooling in [Pooling::Paired, Pooling::Arbitrary] {
        let mut nat = Nat::new(Rules { pooling, ..Rules::default() }, pool.clone(), 3);
        let used: std::collections::HashSet<_> =
            (1..=30).map(|port| send(&mut nat, &format!("10.0.0.2:{}", 2000 + port), OUT).unwrap().ip()).collect();
        assert_eq!(used.len() == 1, pooling == Pooling::Paired);
    }
}

#[test]
fn there_are_35_types_and_every_name_is_found() {
    assert_eq!(kinds::all().len(), 35);
    for nat in kinds::presets().into_iter().chain(kinds::all()) {
        assert_eq!(kinds::named(&nat.name).map(|n| n.rules), Some(nat.rules), "{}", nat.name);
    }
    assert!(kinds::named("teapot").is_none());
}

fn nat(rules: Rules) -> Nat {
    Nat::new(rules, vec!["203.0.113.1".parse().unwrap()], 1)
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn packet(src: &str, dst: &str) -> Packet {
    Packet::udp(at(src), at(dst), "x")
}

fn send(nat: &mut Nat, src: &str, dst: &str) -> Option<SocketAddr> {
    match nat.outbound(NOW, packet(src, dst)) {
        Verdict::Forward(packet) => Some(packet.src),
        _ => None,
    }
}

fn receive(nat: &mut Nat, src: &str, dst: &str) -> Option<SocketAddr> {
    match nat.inbound(NOW, packet(src, dst)) {
        Verdict::Forward(packet) => Some(packet.dst),
        _ => None,
    }
}

fn hairpinned(src: &str) -> Verdict {
    Verdict::Hairpin(Packet::udp(at(src), at("10.0.0.2:4000"), "x").with_ttl(63))
}
