//! Holds: NATs by name: seed 002's seven types by five deltas, and those met in the field.

use std::time::Duration;

use super::{Access, InboundSyn, Lifetimes, Rules, Unsolicited};
use crate::nat::{Delta, Filtering, Hairpin, Kind, Mapping, Ports};

/// A NAT with a name and, where seed 002 has one, its type and delta.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// As in `--nat NAME`: lower case, words joined by `-`.
    pub name: String,
    /// RFC 3489's name for it.
    pub kind: Kind,
    /// What it does.
    pub rules: Rules,
}

/// The five deltas, with the distance and the steps that [`all`] uses.
pub const DELTAS: [Delta; 5] =
    [Delta::Equal, Delta::Preserving(4000), Delta::Independent(3), Delta::Dependent(-2), Delta::Random];

/// All 35: each type with each delta of [`DELTAS`], named like `full-cone-independent`.
pub fn all() -> Vec<Named> {
    let each = |kind: Kind| DELTAS.map(|delta| Named { name: name(kind, delta), kind, rules: rules(kind, delta) });
    Kind::ALL.into_iter().flat_map(each).collect()
}

/// What a NAT of this type and delta does. Types that do not translate ignore the delta. Blocked passes
/// TCP, and answers to it only.
pub fn rules(kind: Kind, delta: Delta) -> Rules {
    let rules = Rules { delta, ..Rules::default() };
    match kind {
        Kind::Open => Rules { access: Access::Open, ..rules },
        Kind::SymmetricFirewall => Rules { access: Access::Firewall, ..rules },
        Kind::Blocked => Rules { access: Access::Firewall, blocks_udp: true, ..rules },
        Kind::FullCone => Rules { filtering: Filtering::EndpointIndependent, ..rules },
        Kind::Restricted => Rules { filtering: Filtering::AddressDependent, ..rules },
        Kind::PortRestricted => rules,
        Kind::Symmetric => Rules { mapping: Mapping::AddressAndPortDependent, ..rules },
    }
}

/// The name of this type and delta in [`all`], whatever the distance of the delta.
pub fn name(kind: Kind, delta: Delta) -> String {
    let kind = match kind {
        Kind::Open => "open",
        Kind::SymmetricFirewall => "symmetric-firewall",
        Kind::FullCone => "full-cone",
        Kind::Restricted => "restricted",
        Kind::PortRestricted => "port-restricted",
        Kind::Symmetric => "symmetric",
        Kind::Blocked => "blocked",
    };
    let delta = match delta {
        Delta::Equal => "equal",
        Delta::Preserving(_) => "preserving",
        Delta::Independent(_) => "independent",
        Delta::Dependent(_) => "dependent",
        Delta::Random => "random",
    };
    format!("{kind}-{delta}")
}

/// NATs as they are met, each under the name that users know.
pub fn presets() -> Vec<Named> {
    let mut presets = homes();
    presets.extend(symmetric());
    presets.extend(carriers());
    presets.extend(firewalls());
    presets
}

/// The preset or one of the 35 with this name.
pub fn named(name: &str) -> Option<Named> {
    presets().into_iter().chain(all()).find(|nat| nat.name == name)
}

fn homes() -> Vec<Named> {
    let linux = Rules { unsolicited: Unsolicited::Refuse, keeps_strays: true, ..Rules::default() };
    let cone = rules(Kind::FullCone, Delta::Equal);
    let short = Lifetimes {
        udp: Duration::from_secs(2),
        tcp: Duration::from_secs(10),
        tcp_transitory: Duration::from_secs(5),
        ..Lifetimes::default()
    };
    vec![
        preset("home", Kind::PortRestricted, Rules::default()),
        preset("linux", Kind::PortRestricted, linux),
        preset("rejecting", Kind::PortRestricted, Rules { unsolicited: Unsolicited::Prohibit, ..Rules::default() }),
        preset("full-cone", Kind::FullCone, cone.clone()),
        preset("hairpin", Kind::FullCone, Rules { hairpin: Hairpin::External, ..cone.clone() }),
        preset("hairpin-internal", Kind::FullCone, Rules { hairpin: Hairpin::Internal, ..cone }),
        preset("restricted", Kind::Restricted, rules(Kind::Restricted, Delta::Equal)),
        preset("random-ports", Kind::PortRestricted, rules(Kind::PortRestricted, Delta::Random)),
        preset("short-lived", Kind::PortRestricted, Rules { lifetimes: short, ..Rules::default() }),
    ]
}

fn symmetric() -> Vec<Named> {
    let random = rules(Kind::Symmetric, Delta::Random);
    let with = |filtering| Rules { filtering, ..random.clone() };
    let by_address = Rules { mapping: Mapping::AddressDependent, ..random.clone() };
    vec![
        preset("symmetric", Kind::Symmetric, random.clone()),
        preset("symmetric-sequential", Kind::Symmetric, rules(Kind::Symmetric, Delta::Independent(1))),
        preset("symmetric-descending", Kind::Symmetric, rules(Kind::Symmetric, Delta::Independent(-1))),
        preset("symmetric-eif", Kind::Symmetric, with(Filtering::EndpointIndependent)),
        preset("symmetric-adf", Kind::Symmetric, with(Filtering::AddressDependent)),
        preset("address-dependent", Kind::Symmetric, by_address),
    ]
}

fn carriers() -> Vec<Named> {
    let block = Ports::new(40_000, 40_511);
    let cgnat = Rules { ports: block, delta: Delta::Random, ..rules(Kind::FullCone, Delta::Random) };
    vec![
        preset("cgnat", Kind::FullCone, cgnat),
        preset("cgnat-symmetric", Kind::Symmetric, Rules { ports: block, ..rules(Kind::Symmetric, Delta::Random) }),
    ]
}

fn firewalls() -> Vec<Named> {
    let firewall = rules(Kind::SymmetricFirewall, Delta::Equal);
    let hostile = Rules { inbound_syn: InboundSyn::Drop, ..Rules::default() };
    let resetting = Rules { inbound_syn: InboundSyn::Reset, unsolicited: Unsolicited::Refuse, ..Rules::default() };
    vec![
        preset("open", Kind::Open, rules(Kind::Open, Delta::Equal)),
        preset("firewall", Kind::SymmetricFirewall, firewall),
        preset("udp-blocked", Kind::Blocked, rules(Kind::Blocked, Delta::Equal)),
        preset("tcp-hostile", Kind::PortRestricted, hostile),
        preset("tcp-resetting", Kind::PortRestricted, resetting),
    ]
}

fn preset(name: &str, kind: Kind, rules: Rules) -> Named {
    Named { name: name.to_owned(), kind, rules }
}
