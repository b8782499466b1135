//! Holds: what a modelled NAT or firewall does, each behaviour chosen by itself.

use std::time::Duration;

use crate::nat::{Delta, Filtering, Hairpin, Mapping, Ports};

/// What stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// A router that neither translates nor filters.
    Open,
    /// A filter without translation: addresses and ports stay as they are.
    Firewall,
    /// Translation and filter.
    Nat,
}

/// What becomes of a packet from outside that no binding lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unsolicited {
    /// Nothing is answered (RFC 5382 REQ-4 asks for this, for six seconds at least).
    Drop,
    /// TCP: a reset. UDP: ICMP port unreachable. What a router without input rules does.
    Refuse,
    /// TCP: a reset. UDP: ICMP administratively prohibited. What a rejecting firewall does.
    Prohibit,
}

/// What becomes of a SYN without ACK from outside that a binding would let in (simultaneous open,
/// RFC 5382 REQ-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InboundSyn {
    /// It passes.
    Allow,
    /// It is dropped.
    Drop,
    /// It is answered with a reset.
    Reset,
}

/// Which address of a pool an internal address gets (RFC 4787 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// Always the same one (REQ-2).
    Paired,
    /// Another one for each mapping.
    Arbitrary,
}

/// How long an idle binding lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// UDP (RFC 4787 REQ-5: two minutes or more).
    pub udp: Duration,
    /// TCP, once established (RFC 5382 REQ-5: two hours four minutes or more).
    pub tcp: Duration,
    /// TCP, before it is established and after a FIN or RST (RFC 5382 REQ-5: four minutes or more).
    pub tcp_transitory: Duration,
    /// Whether packets from outside keep a UDP binding alive too (RFC 4787 REQ-6 leaves it open).
    pub refreshed_from_outside: bool,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            udp: Duration::from_secs(120),
            tcp: Duration::from_secs(7440),
            tcp_transitory: Duration::from_secs(240),
            refreshed_from_outside: false,
        }
    }
}

/// What a NAT does. The default is a good home router: EIM, APDF, ports preserved, silent, no hairpin.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Open, a filter, or a NAT.
    pub access: Access,
    /// When a mapping is reused.
    pub mapping: Mapping,
    /// Who is let in.
    pub filtering: Filtering,
    /// How a new mapping's port is chosen. A port belongs to one binding only; when the chosen one is
    /// taken, a step is repeated, and for the others a random one is used.
    pub delta: Delta,
    /// The external ports that it hands out.
    pub ports: Ports,
    /// Packets from inside to its own external ports.
    pub hairpin: Hairpin,
    /// How long idle bindings live.
    pub lifetimes: Lifetimes,
    /// Packets from outside that nobody asked for.
    pub unsolicited: Unsolicited,
    /// A SYN from outside to a binding that would let it in.
    pub inbound_syn: InboundSyn,
    /// Which of several external addresses is used.
    pub pooling: Pooling,
    /// A Linux router without a WAN input-drop rule: it takes an unsolicited packet for its own, remembers
    /// that flow, and a later mapping towards the same remote endpoint is moved to another port.
    pub keeps_strays: bool,
    /// UDP does not pass in either direction.
    pub blocks_udp: bool,
    /// TCP does not pass in either direction.
    pub blocks_tcp: bool,
    /// Bindings kept at most; beyond it new ones are refused (about 200 bytes each).
    pub max_bindings: usize,
    /// Remote endpoints that are let in, at most, summed over all bindings (about 60 bytes each).
    pub max_permits: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            access: Access::Nat,
            mapping: Mapping::EndpointIndependent,
            filtering: Filtering::AddressAndPortDependent,
            delta: Delta::Equal,
            ports: Ports::UNPRIVILEGED,
            hairpin: Hairpin::None,
            lifetimes: Lifetimes::default(),
            unsolicited: Unsolicited::Drop,
            inbound_syn: InboundSyn::Allow,
            pooling: Pooling::Paired,
            keeps_strays: false,
            blocks_udp: false,
            blocks_tcp: false,
            max_bindings: 1 << 17,
            max_permits: 1 << 18,
        }
    }
}
