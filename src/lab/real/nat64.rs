//! Decides: how IPv6 packets to 64:ff9b::/96 become IPv4 packets, and the answers IPv6 (RFC 7915), without state: each
//! host behind the router has an IPv4 address for it, which the kernel's NAT then shares (RFC 6146 in two steps).
//! Fragments and extension headers do not pass.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::plan::Lan;
use super::wire::{self, Header, ICMP, ICMP6, TCP, UDP};

/// The well-known prefix (RFC 6052 section 2.1); the lower 32 bits are the IPv4 address.
const PREFIX: u128 = 0x0064_ff9b << 96;
/// The same as text, with its length.
pub(crate) const NETWORK: &str = "64:ff9b::/96";
/// By how much a packet grows.
const GROWTH: u16 = 20;
/// ICMP's header, in front of what an error quotes.
const ICMP_LENGTH: usize = 8;

/// The translator of one network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nat64(Lan);

impl Nat64 {
    pub(crate) fn new(lan: Lan) -> Self {
        Self(lan)
    }

    /// The packet in the other family; `None` for what cannot be there.
    pub(crate) fn translate(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let header = wire::header(packet)?;
        if header.fragment {
            return None;
        }
        let body = self.body(header, &packet[header.start..])?;
        self.packet(header, &body)
    }

    fn packet(&self, header: Header, body: &[u8]) -> Option<Vec<u8>> {
        let proto = match header.proto {
            ICMP6 => ICMP,
            ICMP => ICMP6,
            proto => proto,
        };
        let mut packet = wire::wrap(self.other(header.src)?, self.other(header.dst)?, proto, body)?;
        wire::set_ttl(&mut packet, header.ttl);
        Some(packet)
    }

    /// The same host in the other family.
    fn other(&self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V6(v6) if v6.to_bits() >> 32 == PREFIX >> 32 => {
                Some(Ipv4Addr::from_bits(v6.to_bits() as u32).into())
            }
            IpAddr::V6(v6) => self.0.v4_of(v6).map(IpAddr::V4),
            IpAddr::V4(v4) => Some(self.0.v6_of(v4).unwrap_or(embedded(v4)).into()),
        }
    }

    /// What is behind the IP header, with the checksum that the other family wants.
    fn body(&self, header: Header, body: &[u8]) -> Option<Vec<u8>> {
        let mut body = body.to_vec();
        match header.proto {
            TCP if body.len() >= 20 => self.correct(header, &mut body, 16)?,
            UDP if body.len() >= 8 => self.correct(header, &mut body, 6)?,
            ICMP | ICMP6 if body.len() >= ICMP_LENGTH => body = self.icmp(header, &body)?,
            _ => return None,
        }
        Some(body)
    }

    /// Computes a transport's checksum anew: that of UDP may be missing in IPv4 and must not in IPv6.
    fn correct(&self, header: Header, body: &mut [u8], at: usize) -> Option<()> {
        wire::put(body, at, 0);
        let begun = wire::pseudo_header(self.other(header.src)?, self.other(header.dst)?, header.proto, body.len());
        let sum = wire::checksum(body, begun);
        wire::put(body, at, if sum == 0 && header.proto == UDP { 0xffff } else { sum });
        Some(())
    }

    fn icmp(&self, header: Header, body: &[u8]) -> Option<Vec<u8>> {
        let was_v6 = header.proto == ICMP6;
        let (kind, code) = if was_v6 { to_v4(body[0], body[1])? } else { to_v6(body[0], body[1])? };
        let mut out = vec![kind, code, 0, 0, body[4], body[5], body[6], body[7]];
        if is_echo(kind) {
            out.extend_from_slice(&body[ICMP_LENGTH..]);
        } else {
            out[4..].copy_from_slice(&rest_of_error(was_v6, kind, code, body));
            out.extend(self.quotation(&body[ICMP_LENGTH..])?);
        }
        let begun = match (self.other(header.src)?, self.other(header.dst)?) {
            (src, dst) if src.is_ipv6() => wire::pseudo_header(src, dst, ICMP6, out.len()),
            _ => 0,
        };
        let sum = wire::checksum(&out, begun);
        wire::put(&mut out, 2, sum);
        Some(out)
    }

    /// The packet that an error is about, which may end early. Its checksum stays: nobody can check it.
    fn quotation(&self, quoted: &[u8]) -> Option<Vec<u8>> {
        let inner = wire::outline(quoted)?;
        if inner.fragment || ![TCP, UDP].contains(&inner.proto) {
            return None;
        }
        self.packet(inner, quoted.get(inner.start..)?)
    }
}

/// The IPv6 address that stands for an IPv4 address.
pub(crate) fn embedded(address: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(PREFIX | u128::from(address.to_bits()))
}

fn is_echo(kind: u8) -> bool {
    [0, 8, 128, 129].contains(&kind)
}

/// Type and code of ICMPv6 in ICMP (RFC 7915 section 5.2).
fn to_v4(kind: u8, code: u8) -> Option<(u8, u8)> {
    match (kind, code) {
        (128, _) => Some((8, 0)),
        (129, _) => Some((0, 0)),
        (1, 1) => Some((3, 10)),
        (1, 4) => Some((3, 3)),
        (1, _) => Some((3, 1)),
        (2, _) => Some((3, 4)),
        (3, code) => Some((11, code)),
        _ => None,
    }
}

/// Type and code of ICMP in ICMPv6 (RFC 7915 section 4.2).
fn to_v6(kind: u8, code: u8) -> Option<(u8, u8)> {
    match (kind, code) {
        (8, _) => Some((128, 0)),
        (0, _) => Some((129, 0)),
        (3, 3) => Some((1, 4)),
        (3, 4) => Some((2, 0)),
        (3, 9 | 10 | 13 | 15) => Some((1, 1)),
        (3, _) => Some((1, 0)),
        (11, code) => Some((3, code)),
        _ => None,
    }
}

/// The second half of an error's header: the MTU, where it says one.
fn rest_of_error(was_v6: bool, kind: u8, code: u8, body: &[u8]) -> [u8; 4] {
    let mtu = match (was_v6, kind, code) {
        (true, 3, 4) => wire::word(body, 6).saturating_sub(GROWTH),
        (false, 2, _) => wire::word(body, 6).saturating_add(GROWTH).max(1280),
        _ => return [0; 4],
    };
    let [high, low] = mtu.to_be_bytes();
    [0, 0, high, low]
}

#[cfg(test)]
mod tests;
