//! Decides: what a NAT or firewall does with each packet.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::assign::Assigner;
use super::table::{Key, Life, Table};
use super::{Access, InboundSyn, Pooling, Rules, Unsolicited};
use crate::nat::{Filtering, Hairpin, Mapping, Packet, Proto};

/// How long a router remembers a stray packet that it took for its own (Linux: an unreplied UDP flow).
const STRAY_LIFE: Duration = Duration::from_secs(30);

/// Stray flows remembered; beyond it the memory is emptied of the dead, then of all.
const MAX_STRAYS: usize = 1 << 14;

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It goes on, out of the other side, with these addresses.
    Forward(Packet),
    /// It goes back to the side that it came from, inside, with these addresses.
    Hairpin(Packet),
    /// It is gone, in silence.
    Drop(Reason),
    /// It is gone, and its sender is told.
    Refuse(Refusal),
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No binding lets it in.
    Filtered,
    /// The protocol does not pass here.
    Blocked,
    /// A SYN from outside, which this NAT never lets in.
    InboundSyn,
    /// It would have to be hairpinned, which this NAT does not do.
    Hairpin,
    /// The table of bindings or of permits is full.
    TableFull,
    /// Every external port is taken.
    PortsExhausted,
    /// There is no external address of the packet's family.
    NoAddress,
    /// From outside, to an address that is not this NAT's.
    NotMine,
}

/// What the sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This TCP reset.
    Reset(Packet),
    /// ICMP port unreachable about the packet, from its destination.
    PortUnreachable,
    /// ICMP administratively prohibited.
    Prohibited,
    /// ICMP time exceeded: the packet's TTL ended here. No binding was made or refreshed.
    TimeExceeded,
}

/// A NAT or firewall. Cheap per packet; memory is bounded by its [`Rules`].
#[derive(Debug)]
pub struct Nat {
    rules: Rules,
    addresses: Vec<IpAddr>,
    table: Table,
    assigner: Assigner,
    /// Flows that a router without an input rule took for its own: (protocol, own address, remote).
    strays: HashMap<(Proto, SocketAddr, SocketAddr), Duration>,
}

impl Nat {
    /// A NAT with these external addresses, of either family; a firewall needs none. Equal seeds and
    /// packets give equal verdicts.
    pub fn new(rules: Rules, addresses: Vec<IpAddr>, seed: u64) -> Self {
        Self {
            table: Table::new(rules.max_bindings, rules.max_permits),
            assigner: Assigner::new(rules.delta, rules.ports, seed),
            strays: HashMap::new(),
            addresses,
            rules,
        }
    }

    /// What it does.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Its external addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Bindings in the table, those not counted that are known to be dead.
    pub fn bindings(&self) -> usize {
        self.table.len()
    }

    /// The external address that `internal` has towards `remote` now, if it has one.
    pub fn external(
        &mut self,
        now: Duration,
        proto: Proto,
        internal: SocketAddr,
        remote: SocketAddr,
    ) -> Option<SocketAddr> {
        let key = self.existing_key(now, proto, internal, remote)?;
        self.table.by_key(now, &key).map(|binding| binding.external)
    }

    /// The internal socket behind an external address now: what a driver needs to translate ICMP errors.
    pub fn internal(&mut self, now: Duration, proto: Proto, external: SocketAddr) -> Option<SocketAddr> {
        self.table.by_external(now, proto, external).map(|binding| binding.key.internal)
    }

    /// A packet from inside. `now` is the time since any fixed start and never goes back.
    pub fn outbound(&mut self, now: Duration, packet: Packet) -> Verdict {
        let packet = match self.pass(packet) {
            Ok(packet) => packet,
            Err(verdict) => return verdict,
        };
        if self.rules.access == Access::Open {
            return Verdict::Forward(packet);
        }
        let external = match self.bind(now, &packet) {
            Ok(external) => external,
            Err(reason) => return Verdict::Drop(reason),
        };
        if self.rules.access == Access::Nat && self.addresses.contains(&packet.dst.ip()) {
            return self.hairpin(now, packet, external);
        }
        Verdict::Forward(Packet { src: external, ..packet })
    }

    /// A packet from outside.
    pub fn inbound(&mut self, now: Duration, packet: Packet) -> Verdict {
        let packet = match self.pass(packet) {
            Ok(packet) => packet,
            Err(verdict) => return verdict,
        };
        match self.rules.access {
            Access::Open => return Verdict::Forward(packet),
            Access::Nat if !self.addresses.contains(&packet.dst.ip()) => return Verdict::Drop(Reason::NotMine),
            _ => {}
        }
        match self.admit(now, &packet, packet.src) {
            Some(internal) if packet.flags.opens() => self.inbound_syn(internal, packet),
            Some(internal) => Verdict::Forward(Packet { dst: internal, ..packet }),
            None => self.unsolicited(now, &packet),
        }
    }

    /// One router less to pass, if the packet may pass here at all.
    fn pass(&self, packet: Packet) -> Result<Packet, Verdict> {
        let blocked = match packet.proto {
            Proto::Udp => self.rules.blocks_udp,
            Proto::Tcp => self.rules.blocks_tcp,
        };
        if blocked {
            return Err(Verdict::Drop(Reason::Blocked));
        }
        if packet.ttl <= 1 {
            return Err(Verdict::Refuse(Refusal::TimeExceeded));
        }
        Ok(Packet { ttl: packet.ttl - 1, ..packet })
    }

    /// The packet's external source address; its binding is made or refreshed, its destination let in.
    fn bind(&mut self, now: Duration, packet: &Packet) -> Result<SocketAddr, Reason> {
        let life = self.life(packet.proto);
        let key = match self.existing_key(now, packet.proto, packet.src, packet.dst) {
            Some(key) => key,
            None => self.new_binding(now, packet, life)?,
        };
        let binding = self.table.by_key(now, &key).ok_or(Reason::TableFull)?;
        binding.refresh(now, packet.flags, life);
        let external = binding.external;
        let permitted = match self.rules.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => {
                self.table.permit(now, packet.proto, external, SocketAddr::new(packet.dst.ip(), 0))
            }
            Filtering::AddressAndPortDependent => self.table.permit(now, packet.proto, external, packet.dst),
        };
        if permitted { Ok(external) } else { Err(Reason::TableFull) }
    }

    fn life(&self, proto: Proto) -> Life {
        let lifetimes = &self.rules.lifetimes;
        match proto {
            Proto::Udp => Life { fresh: lifetimes.udp, established: lifetimes.udp },
            Proto::Tcp => Life { fresh: lifetimes.tcp_transitory, established: lifetimes.tcp },
        }
    }

    /// The key of the live binding for this flow: that of a moved flow first, then the rule's.
    fn existing_key(&mut self, now: Duration, proto: Proto, internal: SocketAddr, remote: SocketAddr) -> Option<Key> {
        let moved = Key { proto, internal, remote: Some(remote) };
        if self.rules.keeps_strays && self.table.by_key(now, &moved).is_some() {
            return Some(moved);
        }
        let key = self.key(proto, internal, remote);
        let external = self.table.by_key(now, &key)?.external;
        (!self.is_stray(now, proto, external, remote)).then_some(key)
    }

    fn key(&self, proto: Proto, internal: SocketAddr, remote: SocketAddr) -> Key {
        let remote = match self.rules.mapping {
            _ if self.rules.access == Access::Firewall => None,
            Mapping::EndpointIndependent => None,
            Mapping::AddressDependent => Some(SocketAddr::new(remote.ip(), 0)),
            Mapping::AddressAndPortDependent => Some(remote),
        };
        Key { proto, internal, remote }
    }

    fn new_binding(&mut self, now: Duration, packet: &Packet, life: Life) -> Result<Key, Reason> {
        if !self.table.has_room(now) {
            return Err(Reason::TableFull);
        }
        let (proto, internal, remote) = (packet.proto, packet.src, packet.dst);
        let mut key = self.key(proto, internal, remote);
        if self.rules.access == Access::Firewall {
            self.table.insert(now, key, internal, life);
            return Ok(key);
        }
        let address = self.address_for(internal.ip()).ok_or(Reason::NoAddress)?;
        if self.table.by_key(now, &key).is_some() {
            // The rule's mapping exists, but towards this remote its port is taken by a stray flow.
            key.remote = Some(remote);
        }
        let (table, strays) = (&self.table, &self.strays);
        let is_free = |port| {
            let external = SocketAddr::new(address, port);
            table.is_free(now, proto, external) && !lives(strays, now, (proto, external, remote))
        };
        let port = self.assigner.assign(proto, (internal.ip(), internal.port()), is_free);
        let port = port.ok_or(Reason::PortsExhausted)?;
        self.table.insert(now, key, SocketAddr::new(address, port), life);
        Ok(key)
    }

    fn address_for(&mut self, internal: IpAddr) -> Option<IpAddr> {
        let family: Vec<IpAddr> =
            self.addresses.iter().copied().filter(|a| a.is_ipv4() == internal.is_ipv4()).collect();
        if family.len() <= 1 {
            return family.first().copied();
        }
        let index = match self.rules.pooling {
            Pooling::Arbitrary => self.assigner.pick(family.len()),
            Pooling::Paired => {
                let mut hasher = DefaultHasher::new();
                internal.hash(&mut hasher);
                (hasher.finish() % family.len() as u64) as usize
            }
        };
        family.get(index).copied()
    }

    fn hairpin(&mut self, now: Duration, packet: Packet, external: SocketAddr) -> Verdict {
        let src = match self.rules.hairpin {
            Hairpin::None => return Verdict::Drop(Reason::Hairpin),
            Hairpin::Internal => packet.src,
            Hairpin::External => external,
        };
        match self.admit(now, &packet, external) {
            Some(internal) => Verdict::Hairpin(Packet { src, dst: internal, ..packet }),
            None => Verdict::Drop(Reason::Filtered),
        }
    }

    /// The internal destination of a packet from `remote`, if the filter lets it in.
    fn admit(&mut self, now: Duration, packet: &Packet, remote: SocketAddr) -> Option<SocketAddr> {
        let life = self.life(packet.proto);
        let (filtering, refreshes) = (self.rules.filtering, self.rules.lifetimes.refreshed_from_outside);
        let binding = self.table.by_external(now, packet.proto, packet.dst)?;
        let admitted = match filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => binding.permits(now, SocketAddr::new(remote.ip(), 0)),
            Filtering::AddressAndPortDependent => binding.permits(now, remote),
        };
        if admitted && refreshes {
            binding.refresh(now, packet.flags, life);
        }
        admitted.then_some(binding.key.internal)
    }

    fn inbound_syn(&self, internal: SocketAddr, packet: Packet) -> Verdict {
        match self.rules.inbound_syn {
            InboundSyn::Allow => Verdict::Forward(Packet { dst: internal, ..packet }),
            InboundSyn::Drop => Verdict::Drop(Reason::InboundSyn),
            InboundSyn::Reset => Verdict::Refuse(Refusal::Reset(packet.reset())),
        }
    }

    fn unsolicited(&mut self, now: Duration, packet: &Packet) -> Verdict {
        if self.rules.keeps_strays {
            self.remember_stray(now, packet);
        }
        match (self.rules.unsolicited, packet.proto) {
            (Unsolicited::Drop, _) => Verdict::Drop(Reason::Filtered),
            (_, Proto::Tcp) => Verdict::Refuse(Refusal::Reset(packet.reset())),
            (Unsolicited::Refuse, Proto::Udp) => Verdict::Refuse(Refusal::PortUnreachable),
            (Unsolicited::Prohibit, Proto::Udp) => Verdict::Refuse(Refusal::Prohibited),
        }
    }

    fn remember_stray(&mut self, now: Duration, packet: &Packet) {
        if self.strays.len() >= MAX_STRAYS {
            self.strays.retain(|_, until| *until > now);
        }
        if self.strays.len() >= MAX_STRAYS {
            self.strays.clear();
        }
        self.strays.insert((packet.proto, packet.dst, packet.src), now + STRAY_LIFE);
    }

    fn is_stray(&self, now: Duration, proto: Proto, external: SocketAddr, remote: SocketAddr) -> bool {
        lives(&self.strays, now, (proto, external, remote))
    }
}

type Strays = HashMap<(Proto, SocketAddr, SocketAddr), Duration>;

fn lives(strays: &Strays, now: Duration, flow: (Proto, SocketAddr, SocketAddr)) -> bool {
    strays.get(&flow).is_some_and(|until| *until > now)
}
