//! Holds: the words of RFC 4787, RFC 3489 and seed 002's system for how a NAT behaves.

use std::fmt;

use serde::{Deserialize, Serialize};

/// When a NAT reuses a mapping (RFC 4787 section 4.1), from the easiest to the hardest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mapping {
    /// One external port per internal socket, whatever the destination (EIM).
    EndpointIndependent,
    /// Another external port for each destination address (ADM).
    AddressDependent,
    /// Another external port for each destination address and port (APDM).
    AddressAndPortDependent,
}

/// Whose packets a NAT or firewall lets in (RFC 4787 section 5), from the easiest to the hardest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Filtering {
    /// Anyone's, once the socket has sent anything (EIF).
    EndpointIndependent,
    /// Those from an address that the socket has sent to (ADF).
    AddressDependent,
    /// Those from an address and port that the socket has sent to (APDF).
    AddressAndPortDependent,
}

/// How a NAT chooses the external port of a new mapping: seed 002's delta types, steps with their sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Delta {
    /// The local port (RFC 4787's port preservation).
    Equal,
    /// The local port plus this distance.
    Preserving(i32),
    /// The port of the last mapping, anyone's, plus this step, whatever the local port.
    Independent(i32),
    /// The port of the same host's last mapping plus this step when its local port has moved up by one,
    /// otherwise anything.
    Dependent(i32),
    /// Anything.
    Random,
}

impl Delta {
    /// True when the next mapping's port can be told from what was seen before.
    pub fn is_predictable(self) -> bool {
        self != Self::Random
    }
}

/// RFC 3489's names (section 5) with seed 002's: the seven types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// No translation and no filter.
    Open,
    /// No translation; only answers come in.
    SymmetricFirewall,
    /// EIM with EIF.
    FullCone,
    /// EIM with ADF.
    Restricted,
    /// EIM with APDF.
    PortRestricted,
    /// A mapping that depends on the destination.
    Symmetric,
    /// UDP does not get through at all (seed 002: filtered).
    Blocked,
}

impl Kind {
    /// The seven, from the easiest to the hardest.
    pub const ALL: [Self; 7] = [
        Self::Open,
        Self::SymmetricFirewall,
        Self::FullCone,
        Self::Restricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::Blocked,
    ];

    /// True when addresses are translated, so that a [`Delta`] means something.
    pub fn translates(self) -> bool {
        matches!(self, Self::FullCone | Self::Restricted | Self::PortRestricted | Self::Symmetric)
    }

    /// The name for this pair of behaviours behind a translating NAT.
    pub fn of(mapping: Mapping, filtering: Filtering) -> Self {
        match (mapping, filtering) {
            (Mapping::EndpointIndependent, Filtering::EndpointIndependent) => Self::FullCone,
            (Mapping::EndpointIndependent, Filtering::AddressDependent) => Self::Restricted,
            (Mapping::EndpointIndependent, Filtering::AddressAndPortDependent) => Self::PortRestricted,
            _ => Self::Symmetric,
        }
    }
}

/// What a NAT does with a packet from inside to one of its own external ports (RFC 4787 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Hairpin {
    /// It is dropped.
    None,
    /// It arrives from the sender's internal address, or from the router's (against REQ-9).
    Internal,
    /// It arrives from the sender's external address (REQ-9).
    External,
}

/// External ports `low..=high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ports {
    /// The lowest.
    pub low: u16,
    /// The highest.
    pub high: u16,
}

impl Ports {
    /// Everything but the well-known ports (RFC 4787 REQ-3 keeps to this class).
    pub const UNPRIVILEGED: Self = Self { low: 1024, high: u16::MAX };

    /// `low..=high`; swapped when given the wrong way round.
    pub fn new(low: u16, high: u16) -> Self {
        Self { low: low.min(high), high: low.max(high) }
    }

    /// How many ports; at least one.
    pub fn count(self) -> u32 {
        u32::from(self.high.saturating_sub(self.low)) + 1
    }

    /// True when `port` is among them.
    pub fn contains(self, port: u16) -> bool {
        (self.low..=self.high).contains(&port)
    }

    /// `port + by`, going round at the ends.
    pub fn step(self, port: u16, by: i32) -> u16 {
        let offset = i64::from(port) - i64::from(self.low) + i64::from(by);
        (i64::from(self.low) + offset.rem_euclid(i64::from(self.count()))) as u16
    }
}

impl fmt::Display for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => f.write_str("equal"),
            Self::Preserving(distance) => write!(f, "preserving({distance:+})"),
            Self::Independent(step) => write!(f, "independent({step:+})"),
            Self::Dependent(step) => write!(f, "dependent({step:+})"),
            Self::Random => f.write_str("random"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open internet",
            Self::SymmetricFirewall => "symmetric UDP firewall",
            Self::FullCone => "full cone",
            Self::Restricted => "restricted",
            Self::PortRestricted => "port restricted",
            Self::Symmetric => "symmetric",
            Self::Blocked => "blocked",
        })
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
        })
    }
}

impl fmt::Display for Filtering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stepping_goes_round_at_both_ends() {
        let ports = Ports::new(100, 109);
        assert_eq!(ports.count(), 10);
        assert_eq!(ports.step(108, 3), 101);
        assert_eq!(ports.step(101, -3), 108);
        assert_eq!(Ports::UNPRIVILEGED.step(u16::MAX, 1), 1024);
    }

    #[test]
    fn every_pair_of_behaviours_has_a_name() {
        use Filtering as F;
        use Mapping as M;
        assert_eq!(Kind::of(M::EndpointIndependent, F::AddressDependent), Kind::Restricted);
        assert_eq!(Kind::of(M::AddressDependent, F::EndpointIndependent), Kind::Symmetric);
        assert_eq!(Kind::ALL.iter().filter(|k| k.translates()).count(), 4);
    }
}
