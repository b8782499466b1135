//! Decides: how the model of a NAT translates the bytes of real packets, ICMP errors included.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;

use super::icmp;
use super::wire::{self, Header, ICMP, ICMP6, TCP, UDP};
use crate::nat::model::{Nat, Refusal, Verdict};
use crate::nat::{Packet, Proto};

/// Where a packet goes from a gate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// On to the internet.
    Outside(Vec<u8>),
    /// To the network behind the gate.
    Inside(Vec<u8>),
    /// It is gone.
    Nowhere,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Inside,
    Outside,
}

/// A NAT between a port of the core and the system behind it. The system has counted the hop that
/// the NAT is, so the NAT's own count is made up for.
#[derive(Debug)]
pub(crate) struct Gate {
    nat: Nat,
    /// Where its own answers come from, for each family that it has.
    own: Vec<IpAddr>,
}

impl Gate {
    pub(crate) fn new(nat: Nat, own: Vec<IpAddr>) -> Self {
        Self { nat, own }
    }

    pub(crate) fn nat(&mut self) -> &mut Nat {
        &mut self.nat
    }

    /// A packet from inside.
    pub(crate) fn outbound(&mut self, now: Duration, bytes: Vec<u8>) -> Way {
        let bytes = Bytes::from(bytes);
        match wire::to_model(bytes.clone()) {
            Some(packet) => {
                let verdict = self.nat.outbound(now, uncounted(packet));
                self.follow(verdict, Side::Inside, &bytes)
            }
            None => self.error_out(now, &bytes).map_or(Way::Nowhere, Way::Outside),
        }
    }

    /// A packet from the internet.
    pub(crate) fn inbound(&mut self, now: Duration, bytes: Vec<u8>) -> Way {
        let bytes = Bytes::from(bytes);
        match wire::to_model(bytes.clone()) {
            Some(packet) => {
                let verdict = self.nat.inbound(now, uncounted(packet));
                self.follow(verdict, Side::Outside, &bytes)
            }
            None => self.error_in(now, &bytes).map_or(Way::Nowhere, Way::Inside),
        }
    }

    fn follow(&self, verdict: Verdict, from: Side, original: &[u8]) -> Way {
        let (to, bytes) = match (verdict, from) {
            (Verdict::Forward(packet), Side::Inside) => (Side::Outside, Some(wire::from_model(&packet))),
            (Verdict::Forward(packet), Side::Outside) => (Side::Inside, Some(wire::from_model(&packet))),
            (Verdict::Hairpin(packet), side) => (side, Some(wire::from_model(&packet))),
            (Verdict::Refuse(refusal), side) => (side, self.refuse(&refusal, original)),
            (Verdict::Drop(_), side) => (side, None),
        };
        match (to, bytes) {
            (_, None) => Way::Nowhere,
            (Side::Inside, Some(bytes)) => Way::Inside(bytes),
            (Side::Outside, Some(bytes)) => Way::Outside(bytes),
        }
    }

    fn refuse(&self, refusal: &Refusal, original: &[u8]) -> Option<Vec<u8>> {
        let why = match refusal {
            Refusal::Reset(_) => return icmp::reset(original),
            Refusal::PortUnreachable => icmp::Error::PortUnreachable,
            Refusal::Prohibited => icmp::Error::Prohibited,
            Refusal::TimeExceeded => icmp::Error::TimeExceeded,
        };
        let is_v4 = wire::header(original)?.src.is_ipv4();
        why.about(original, *self.own.iter().find(|own| own.is_ipv4() == is_v4)?)
    }

    /// An ICMP error from inside about a packet that had come in: its quotation gets the outside's addresses.
    fn error_out(&mut self, now: Duration, bytes: &[u8]) -> Option<Vec<u8>> {
        let (proto, src, dst, inner) = quoted(bytes)?;
        let external = if self.nat.rules().access == crate::nat::model::Access::Nat {
            self.nat.external(now, proto, dst, src)?
        } else {
            dst
        };
        translated(bytes, inner, (src, external), |header| (external.ip(), header.dst))
    }

    /// An ICMP error from outside about a packet that had gone out: its quotation gets the inside's addresses.
    fn error_in(&mut self, now: Duration, bytes: &[u8]) -> Option<Vec<u8>> {
        let (proto, src, dst, inner) = quoted(bytes)?;
        if self.nat.rules().access == crate::nat::model::Access::Open {
            return Some(bytes.to_vec());
        }
        let internal = self.nat.internal(now, proto, src)?;
        translated(bytes, inner, (internal, dst), |header| (header.src, internal.ip()))
    }
}

/// With the hop back that the system counts: one whose hops end at this router never comes here.
fn uncounted(packet: Packet) -> Packet {
    let ttl = packet.ttl.saturating_add(1);
    packet.with_ttl(ttl)
}

/// The UDP or TCP packet that an ICMP error is about: protocol, source, destination, where it begins.
fn quoted(bytes: &[u8]) -> Option<(Proto, SocketAddr, SocketAddr, usize)> {
    let header = wire::header(bytes)?;
    let errors: &[u8] = match header.proto {
        ICMP => &[3, 4, 5, 11, 12],
        ICMP6 => &[1, 2, 3, 4],
        _ => return None,
    };
    if !errors.contains(bytes.get(header.start)?) {
        return None;
    }
    let at = header.start + 8;
    let inner = wire::outline(bytes.get(at..)?)?;
    let proto = match inner.proto {
        UDP => Proto::Udp,
        TCP => Proto::Tcp,
        _ => return None,
    };
    let ports = at + inner.start;
    if bytes.len() < ports + 4 {
        return None;
    }
    let src = SocketAddr::new(inner.src, wire::word(bytes, ports));
    Some((proto, src, SocketAddr::new(inner.dst, wire::word(bytes, ports + 2)), at))
}

/// The error with other addresses, inside the quotation and around it.
fn translated(
    bytes: &[u8],
    at: usize,
    (src, dst): (SocketAddr, SocketAddr),
    around: impl Fn(Header) -> (IpAddr, IpAddr),
) -> Option<Vec<u8>> {
    let header = wire::header(bytes)?;
    let mut body = bytes[header.start..].to_vec();
    let quotation = &mut body[at - header.start..];
    let inner = wire::outline(quotation)?;
    wire::rewrite(quotation, inner, src, dst);
    let (from, to) = around(header);
    wire::put(&mut body, 2, 0);
    let begun = if from.is_ipv6() { wire::pseudo_header(from, to, ICMP6, body.len()) } else { 0 };
    let sum = wire::checksum(&body, begun);
    wire::put(&mut body, 2, sum);
    let mut out = wire::wrap(from, to, header.proto, &body)?;
    wire::set_ttl(&mut out, header.ttl);
    Some(out)
}

#[cfg(test)]
mod tests;
