//! Holds: the report: for each interface, family and protocol what stands between here and the world.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::nat::{Delta, Filtering, Hairpin, Kind, Mapping, Ports, Proto};
use crate::net::Family;

/// Everything learnt, one entry per interface, address family and protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// In the order in which they were tested.
    pub entries: Vec<Entry>,
}

/// A result, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Finding<T> {
    /// This was seen.
    Known(T),
    /// This or something harder; the test that would tell could not be made.
    AtLeast(T),
    /// Nothing is known.
    Untested(Why),
}

/// Why something could not be tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Why {
    /// Nobody asked for this test.
    NotAsked,
    /// No server answered what was asked.
    NoAnswer,
    /// The servers have one address each, or too few of them answered; the test needs two addresses.
    OneAddress,
    /// The server knows CHANGE-REQUEST not, or does not do it (RFC 5780 section 7.2).
    NotHonoured,
    /// There is no such test over TCP (CHANGE-REQUEST is for UDP only, RFC 5780 section 7.2).
    NotOverTcp,
    /// Addresses are not translated, so that there is nothing to test.
    NotTranslated,
    /// The mapping depends on the destination, so that the test's packets can not meet.
    MappingDepends,
    /// Too few sockets got an answer.
    TooFewSamples,
    /// The router's own external address is not known (port mapping protocols tell it).
    NoRouterAddress,
}

/// How many translators stand in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Layers {
    /// None.
    None,
    /// One.
    One,
    /// Two or more: the router's own external address is not the one that the world sees.
    Double,
    /// A carrier's NAT: addresses of 100.64.0.0/10 (RFC 6598) are in use.
    Carrier,
}

/// Mappings that other users of the same NAT made during the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Foreign {
    /// How many.
    pub mappings: u16,
    /// In which time, to the millisecond.
    pub window: Duration,
}

/// What stands between one interface and the world, for one family and protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The interface's name.
    pub interface: String,
    /// IPv4 or IPv6.
    pub family: Family,
    /// UDP or TCP.
    pub proto: Proto,
    /// Servers that were asked.
    pub asked: u8,
    /// Servers that answered.
    pub answered: u8,
    /// The address that the world sees, if any server told.
    pub external: Option<IpAddr>,
    /// True when several external addresses were seen at once: a pool, as carriers have it.
    pub pooled: bool,
    /// Whether addresses or ports are translated on the way.
    pub translated: Finding<bool>,
    /// When a mapping is reused.
    pub mapping: Finding<Mapping>,
    /// Who is let in.
    pub filtering: Finding<Filtering>,
    /// How external ports are chosen.
    pub delta: Finding<Delta>,
    /// The lowest and the highest external port seen.
    pub ports: Option<Ports>,
    /// How many mappings that pair of ports rests on.
    pub samples: u8,
    /// What others did meanwhile; known only where ports are counted up or down for all users together.
    pub foreign: Option<Foreign>,
    /// What becomes of packets to the NAT's own external ports.
    pub hairpin: Finding<Hairpin>,
    /// How long an idle binding was seen to live, in whole seconds; not part of the quick test.
    pub lifetime: Option<Duration>,
    /// How many NATs stand in a row.
    pub layers: Finding<Layers>,
    /// The path's MTU in bytes, where it is known.
    pub mtu: Option<u16>,
}

impl<T: Copy> Finding<T> {
    /// The value, if it is exactly known.
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            _ => None,
        }
    }

    /// The value, or the least that it can be.
    pub fn least(self) -> Option<T> {
        match self {
            Self::Known(value) | Self::AtLeast(value) => Some(value),
            Self::Untested(_) => None,
        }
    }
}

impl Entry {
    /// An entry in which nothing has been tested.
    pub fn untested(interface: &str, family: Family, proto: Proto) -> Self {
        let (why, interface) = (Why::NotAsked, interface.to_owned());
        Self {
            interface,
            family,
            proto,
            asked: 0,
            answered: 0,
            external: None,
            pooled: false,
            translated: Finding::Untested(why),
            mapping: Finding::Untested(why),
            filtering: Finding::Untested(why),
            delta: Finding::Untested(why),
            ports: None,
            samples: 0,
            foreign: None,
            hairpin: Finding::Untested(why),
            lifetime: None,
            layers: Finding::Untested(why),
            mtu: None,
        }
    }

    /// RFC 3489's name for this, where the findings suffice.
    ///
    /// [`Kind::Blocked`] means that servers were asked and none answered, which is also how having no
    /// network looks: [`Report::is_offline`] tells the two apart.
    pub fn kind(&self) -> Option<Kind> {
        if self.answered == 0 {
            return (self.asked > 0).then_some(Kind::Blocked);
        }
        match (self.translated.known()?, self.mapping.least(), self.filtering.known()) {
            (false, _, Some(Filtering::EndpointIndependent)) => Some(Kind::Open),
            (false, _, Some(_)) => Some(Kind::SymmetricFirewall),
            (true, Some(mapping), _) if mapping != Mapping::EndpointIndependent => Some(Kind::Symmetric),
            (true, Some(mapping), Some(filtering)) => Some(Kind::of(mapping, filtering)),
            _ => None,
        }
    }
}

impl Report {
    /// The first entry for this family and protocol that got an answer, else the first for them at all.
    pub fn find(&self, family: Family, proto: Proto) -> Option<&Entry> {
        let mut fitting = self.entries.iter().filter(|e| e.family == family && e.proto == proto);
        let first = fitting.clone().next();
        fitting.find(|entry| entry.answered > 0).or(first)
    }

    /// True when servers were asked and none answered over anything: no network, or all are down.
    pub fn is_offline(&self) -> bool {
        self.entries.iter().any(|e| e.asked > 0) && self.entries.iter().all(|e| e.answered == 0)
    }
}
