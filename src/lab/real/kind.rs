//! Holds: the kinds of routers by name, and what is said of each.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::nat::model::kinds;
use crate::nat::{Delta, Kind as Type};

/// What a router of the lab is. All but [`Model`](Self::Model) are nftables rules in the router's namespace,
/// which is what most of the world's small routers run. The words are RFC 4787's: EIM, ADM and APDM for
/// endpoint-independent, address-dependent, and address-and-port-dependent mapping; EIF, ADF and APDF for
/// filtering. UDP and TCP are treated alike where nothing else is said.
///
/// As text, a kind is its name in lower case with `-` between words: `home`, `symmetric-random`. A
/// [`Setup`] may have `/accept`, `/drop` or `/reject` after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// No NAT and no filter: the addresses behind it are known to the whole internet, of both families.
    Open,
    /// No NAT, both families, and only answers come in.
    Firewall,
    /// What most homes have: EIM, APDF, ports preserved, silent towards strangers.
    Home,
    /// A plain Linux NAT: as [`Home`](Self::Home), but it answers strangers ([`Input::Accept`]).
    Linux,
    /// As [`Home`](Self::Home), but it refuses strangers by rule ([`Input::Reject`]).
    Rejecting,
    /// EIM and APDF, but the external port is another than the internal one, at random.
    NonPreserving,
    /// EIM, EIF, ports preserved.
    FullCone,
    /// EIM, ADF, ports preserved.
    Restricted,
    /// APDM, APDF, random ports.
    SymmetricRandom,
    /// APDM, APDF, each new flow gets the next port.
    SymmetricSequential,
    /// APDM, APDF, each new flow gets the port before.
    SymmetricDescending,
    /// ADM, APDF, ports that look random but depend on source and destination address only.
    AddressDependent,
    /// APDM, EIF, random ports.
    SymmetricEif,
    /// APDM, ADF, random ports.
    SymmetricAdf,
    /// A carrier's NAT with 64 ports for each host (RFC 7422): EIM, APDF. Behind it is shared address space.
    PortBlock,
    /// A carrier's NAT with 512 ports for all: APDM, APDF, random within them. Behind it is shared address space.
    PortBlockSymmetric,
    /// A carrier's NAT as RFC 6888 asks for: EIM, EIF. Behind it is shared address space.
    Cgnat,
    /// A [`Home`](Self::Home) router behind a [`Cgnat`](Self::Cgnat): EIM, APDF.
    Double,
    /// A [`Home`](Self::Home) router behind a [`PortBlockSymmetric`](Self::PortBlockSymmetric): APDM, APDF.
    DoubleSymmetric,
    /// One external address for the first host behind it, every port open, as clouds have it.
    OneToOne,
    /// The same, which lets in answers only.
    OneToOneFirewalled,
    /// Full cone, and a packet to an external port from inside arrives from the sender's external address (RFC
    /// 4787 REQ-9).
    Hairpin,
    /// Full cone, and such a packet arrives from the router's inner address.
    HairpinInternal,
    /// Home, but no SYN without ACK comes in, even to a mapped port: it is dropped.
    TcpHostile,
    /// Home, but a SYN without ACK that comes in is answered with a reset.
    TcpResetting,
    /// Home, but no UDP passes.
    UdpBlocked,
    /// Home, but mappings are forgotten within seconds: UDP after 2 s (4 s once it lived for 2 s).
    ShortLived,
    /// No NAT, IPv6 alone, and only answers come in.
    V6Firewall,
    /// Home for IPv4, and for IPv6 no NAT and answers only.
    DualStack,
    /// IPv6 alone behind it, answers only; IPv4 is reached by NAT64 (RFC 6146) at 64:ff9b::/96 (RFC 6052).
    Nat64,
    /// What iroh's lab (the crate patchbay 0.7) calls `Open`, with the same rules: full cone for UDP, TCP by
    /// answers only, strangers answered.
    PatchbayOpen,
    /// Its `Moderate`: EIM, APDF. Its `None` is [`Open`](Self::Open).
    PatchbayModerate,
    /// Its `Strict`: APDM, APDF, random ports.
    PatchbayStrict,
    /// The model of [`nat::model`](crate::nat::model), driven by real packets: each type and delta of seed
    /// 002's system. As text `model-symmetric-independent` and so on, with the distances of
    /// [`kinds::DELTAS`].
    Model(Type, Delta),
}

/// What a router answers to a packet from outside that no mapping or rule takes, by its input chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Input {
    /// Nothing, and it forgets it: what home routers are sold with.
    #[default]
    Drop,
    /// What Linux does without a rule: a reset, or ICMP port unreachable. It also remembers the flow, so that a
    /// mapping made towards the same remote endpoint within 30 s gets another port.
    Accept,
    /// A reset, or ICMP administratively prohibited; it remembers nothing.
    Reject,
}

/// A kind of router with its manner of refusing. Any [`Kind`] is one, with the manner that is usual for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Setup {
    pub(crate) kind: Kind,
    pub(crate) input: Input,
}

/// Kinds that the kernel is, with their names.
const NAMED: [(Kind, &str); 33] = [
    (Kind::Open, "open"),
    (Kind::Firewall, "firewall"),
    (Kind::Home, "home"),
    (Kind::Linux, "linux"),
    (Kind::Rejecting, "rejecting"),
    (Kind::NonPreserving, "non-preserving"),
    (Kind::FullCone, "full-cone"),
    (Kind::Restricted, "restricted"),
    (Kind::SymmetricRandom, "symmetric-random"),
    (Kind::SymmetricSequential, "symmetric-sequential"),
    (Kind::SymmetricDescending, "symmetric-descending"),
    (Kind::AddressDependent, "address-dependent"),
    (Kind::SymmetricEif, "symmetric-eif"),
    (Kind::SymmetricAdf, "symmetric-adf"),
    (Kind::PortBlock, "port-block"),
    (Kind::PortBlockSymmetric, "port-block-symmetric"),
    (Kind::Cgnat, "cgnat"),
    (Kind::Double, "double"),
    (Kind::DoubleSymmetric, "double-symmetric"),
    (Kind::OneToOne, "one-to-one"),
    (Kind::OneToOneFirewalled, "one-to-one-firewalled"),
    (Kind::Hairpin, "hairpin"),
    (Kind::HairpinInternal, "hairpin-internal"),
    (Kind::TcpHostile, "tcp-hostile"),
    (Kind::TcpResetting, "tcp-resetting"),
    (Kind::UdpBlocked, "udp-blocked"),
    (Kind::ShortLived, "short-lived"),
    (Kind::V6Firewall, "v6-firewall"),
    (Kind::DualStack, "dual-stack"),
    (Kind::Nat64, "nat64"),
    (Kind::PatchbayOpen, "patchbay-open"),
    (Kind::PatchbayModerate, "patchbay-moderate"),
    (Kind::PatchbayStrict, "patchbay-strict"),
];

/// What names of modelled kinds begin with.
const MODEL: &str = "model-";

impl Kind {
    /// Every kind but the models.
    pub const ALL: [Self; NAMED.len()] = {
        let mut all = [Self::Open; NAMED.len()];
        let mut n = 0;
        while n < NAMED.len() {
            all[n] = NAMED[n].0;
            n += 1;
        }
        all
    };

    /// The 35 models: seven types by five deltas.
    pub fn models() -> impl Iterator<Item = Self> {
        Type::ALL.into_iter().flat_map(|kind| kinds::DELTAS.map(|delta| Self::Model(kind, delta)))
    }

    /// This kind with another manner of refusing. [`Open`](Self::Open) refuses nothing, and models have
    /// rules of their own for it: both take no notice.
    pub fn answering(self, input: Input) -> Setup {
        Setup { kind: self, input }
    }

    /// True when hosts behind it have IPv4 addresses.
    pub fn has_v4(self) -> bool {
        !matches!(self, Self::V6Firewall | Self::Nat64)
    }

    /// True when hosts behind it have IPv6 addresses, which are never translated.
    pub fn has_v6(self) -> bool {
        match self {
            Self::V6Firewall | Self::DualStack | Self::Nat64 => true,
            _ => self.is_routed(),
        }
    }

    /// True when the internet knows the IPv4 addresses behind it.
    pub(crate) fn is_routed(self) -> bool {
        match self {
            Self::Open | Self::Firewall => true,
            Self::Model(kind, _) => matches!(kind, Type::Open | Type::SymmetricFirewall | Type::Blocked),
            _ => false,
        }
    }

    /// True when it belongs to a carrier, with shared address space behind it.
    pub(crate) fn is_carrier(self) -> bool {
        matches!(self, Self::PortBlock | Self::PortBlockSymmetric | Self::Cgnat)
    }

    /// For two routers in one name: the outer and the inner one.
    pub(crate) fn layers(self) -> Option<(Self, Self)> {
        match self {
            Self::Double => Some((Self::Cgnat, Self::Home)),
            Self::DoubleSymmetric => Some((Self::PortBlockSymmetric, Self::Home)),
            _ => None,
        }
    }

    fn usual_input(self) -> Input {
        match self {
            Self::Linux | Self::PatchbayOpen | Self::PatchbayModerate | Self::PatchbayStrict => Input::Accept,
            Self::Rejecting => Input::Reject,
            _ => Input::Drop,
        }
    }
}

impl Setup {
    /// What it is.
    pub fn kind(self) -> Kind {
        self.kind
    }

    /// What it answers strangers.
    pub fn input(self) -> Input {
        self.input
    }
}

impl From<Kind> for Setup {
    fn from(kind: Kind) -> Self {
        kind.answering(kind.usual_input())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(kind, delta) => f.pad(&format!("{MODEL}{}", kinds::name(*kind, *delta))),
            kind => f.pad(NAMED.iter().find(|(named, _)| named == kind).map_or("", |(_, name)| name)),
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Drop => "drop",
            Self::Accept => "accept",
            Self::Reject => "reject",
        })
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { kind, input } if input == kind.usual_input() => kind.fmt(f),
            Self { kind, input } => f.pad(&format!("{kind}/{input}")),
        }
    }
}

/// A name that no kind of router has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "there is no kind of router named {name:?}; there are {}, model-TYPE-DELTA, and each with /accept, /drop or /reject",
    names()
)]
pub struct UnknownKind {
    /// What was asked for.
    pub name: String,
}

fn names() -> String {
    NAMED.map(|(_, name)| name).join(", ")
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let named = NAMED.into_iter().find(|(_, known)| *known == name).map(|(kind, _)| kind);
        let model = || Self::models().find(|model| model.to_string() == name);
        named.or_else(model).ok_or_else(|| UnknownKind { name: name.to_owned() })
    }
}

impl FromStr for Setup {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((name, input)) = text.split_once('/') else { return Ok(text.parse::<Kind>()?.into()) };
        let input = [Input::Drop, Input::Accept, Input::Reject].into_iter().find(|known| known.to_string() == input);
        let input = input.ok_or_else(|| UnknownKind { name: text.to_owned() })?;
        Ok(name.parse::<Kind>()?.answering(input))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_back_from_its_name() {
        let all: Vec<Kind> = Kind::ALL.into_iter().chain(Kind::models()).collect();
        assert_eq!(all.len(), NAMED.len() + 35);
        for kind in all {
            assert_eq!(kind.to_string().parse(), Ok(kind), "{kind}");
            assert_eq!(kind.to_string().parse(), Ok(Setup::from(kind)));
            for input in [Input::Drop, Input::Accept, Input::Reject] {
                let setup = kind.answering(input);
                assert_eq!(setup.to_string().parse(), Ok(setup));
            }
        }
    }

    #[test]
    fn a_name_that_nobody_has_is_refused_with_those_that_there_are() {
        for name in ["", "homes", "home/", "home/maybe", "model-", "Home"] {
            let refused = name.parse::<Setup>().unwrap_err().to_string();
            assert!(refused.contains("symmetric-random"), "{refused}");
        }
    }
}
