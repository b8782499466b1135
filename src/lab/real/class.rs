//! Holds: the kinds of routers that the kernel's own NAT and filter can be.

/// What a router of the lab does, done by nftables in its namespace. The words are RFC 4787's: EIM, ADM and
/// APDM for endpoint-independent, address-dependent, and address-and-port-dependent mapping; EIF, ADF and
/// APDF for filtering. UDP and TCP are treated alike where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// No NAT and no filter: the addresses behind it are known to the whole internet, of both families.
    Routed,
    /// What most homes have: EIM, APDF, ports preserved.
    Home,
    /// EIM and APDF, but the external port is another than the internal one, at random.
    NonPreserving,
    /// EIM, EIF, ports preserved.
    FullCone,
    /// EIM, ADF, ports preserved.
    Restricted,
    /// APDM, APDF, random ports.
    Symmetric,
    /// APDM, APDF, each new flow gets the next port.
    SymmetricSequential,
    /// APDM, APDF, each new flow gets the port before.
    SymmetricDescending,
    /// ADM, APDF, ports that look random but depend on source and destination address only.
    AddressDependent,
    /// APDM, EIF, random ports.
    SymmetricOpen,
    /// APDM, ADF, random ports.
    SymmetricRestricted,
    /// A carrier's NAT with 64 ports for each host (RFC 7422): EIM, APDF. Behind it is shared address space.
    PortBlock,
    /// A carrier's NAT with 512 ports for all: APDM, APDF, random within them. Behind it is shared address space.
    PortBlockSymmetric,
    /// A carrier's NAT as RFC 6888 asks for: EIM, EIF. Behind it is shared address space.
    Carrier,
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

/// A class of router with its manner of refusing. Any [`Class`] is one, with [`Input::Drop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Setup {
    pub(crate) class: Class,
    pub(crate) input: Input,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 25] = [
        Self::Routed,
        Self::Home,
        Self::NonPreserving,
        Self::FullCone,
        Self::Restricted,
        Self::Symmetric,
        Self::SymmetricSequential,
        Self::SymmetricDescending,
        Self::AddressDependent,
        Self::SymmetricOpen,
        Self::SymmetricRestricted,
        Self::PortBlock,
        Self::PortBlockSymmetric,
        Self::Carrier,
        Self::OneToOne,
        Self::OneToOneFirewalled,
        Self::Hairpin,
        Self::HairpinInternal,
        Self::TcpHostile,
        Self::TcpResetting,
        Self::UdpBlocked,
        Self::ShortLived,
        Self::V6Firewall,
        Self::DualStack,
        Self::Nat64,
    ];

    /// This class with another manner of refusing.
    pub fn answering(self, input: Input) -> Setup {
        Setup { class: self, input }
    }

    /// True when hosts behind it have IPv4 addresses.
    pub fn has_v4(self) -> bool {
        !matches!(self, Self::V6Firewall | Self::Nat64)
    }

    /// True when hosts behind it have IPv6 addresses, which are never translated.
    pub fn has_v6(self) -> bool {
        matches!(self, Self::Routed | Self::V6Firewall | Self::DualStack | Self::Nat64)
    }

    /// True when it belongs to a carrier, with shared address space behind it.
    pub(crate) fn is_carrier(self) -> bool {
        matches!(self, Self::PortBlock | Self::PortBlockSymmetric | Self::Carrier)
    }
}

impl From<Class> for Setup {
    fn from(class: Class) -> Self {
        class.answering(Input::Drop)
    }
}
