use super::*;
use crate::lab::real::plan::Plan;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

fn ruleset(setup: impl Into<Setup>) -> String {
    let setup = setup.into();
    let lan = Plan::default().lan_of(setup.kind).unwrap();
    Router { setup, address: ADDRESS, lan }.ruleset()
}

#[test]
fn chains_and_braces_are_balanced_for_every_kind() {
    for kind in Kind::ALL {
        let text = ruleset(kind);
        assert_eq!(text.matches('{').count(), text.matches('}').count(), "{kind}: {text}");
    }
}

#[test]
fn a_router_answers_strangers_as_it_is_told() {
    let drop = format!("iifname {WAN} meta l4proto != icmp drop");
    assert!(ruleset(Kind::Home).contains(&drop));
    assert!(!ruleset(Kind::Linux).contains(&drop));
    assert!(!ruleset(Kind::Home.answering(Input::Accept)).contains(&drop));
    let rejecting = ruleset(Kind::FullCone.answering(Input::Reject));
    assert!(rejecting.contains("reject with tcp reset") && rejecting.contains("admin-prohibited"), "{rejecting}");
}

#[test]
fn only_what_is_firewalled_speaks_of_ipv6() {
    for kind in Kind::ALL {
        let speaks = kind.has_v6() && kind != Kind::Open;
        assert_eq!(ruleset(kind).contains("table ip6 filter"), speaks, "{kind}");
    }
}

#[test]
fn maps_have_a_port_for_every_number_and_none_twice() {
    let counted = (COUNTED_PORTS, FIRST_COUNTED);
    for (kind, (count, first)) in [
        (Kind::SymmetricSequential, counted),
        (Kind::SymmetricDescending, counted),
        (Kind::AddressDependent, (MAPPED_PORTS, FIRST_MAPPED)),
    ] {
        let text = ruleset(kind);
        let (_, map) = text.split_once("map {").unwrap();
        let (map, _) = map.split_once('}').unwrap();
        let ports: std::collections::BTreeSet<u16> =
            map.split(',').map(|pair| pair.split_once(':').unwrap().1.trim().parse().unwrap()).collect();
        assert_eq!(ports.len(), usize::from(count), "{kind}");
        assert!(ports.iter().all(|port| (first..first + count).contains(port)));
    }
}
