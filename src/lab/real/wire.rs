//! Decides: what the bytes of an IP packet say, and how they change when addresses, ports and TTL do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use crate::nat::{Packet, Proto, TcpFlags};

/// Protocol numbers (IANA).
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMP6: u8 = 58;

/// Where the fields stand that a router may change (RFC 791, RFC 8200).
const V4_LENGTH: usize = 20;
const V4_TTL: usize = 8;
const V4_CHECKSUM: usize = 10;
const V4_SOURCE: usize = 12;
pub(crate) const V6_LENGTH: usize = 40;
const V6_HOPS: usize = 7;
const V6_SOURCE: usize = 8;
/// The flags of a TCP header (RFC 9293).
const TCP_FLAGS: usize = 13;

/// What the IP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) ttl: u8,
    /// The transport's number, or that of an IPv6 extension header, which is not looked into.
    pub(crate) proto: u8,
    /// Where the transport's header begins.
    pub(crate) start: usize,
    /// A piece of a larger packet.
    pub(crate) fragment: bool,
}

/// The header of a whole packet; `None` when it is not one.
pub(crate) fn header(bytes: &[u8]) -> Option<Header> {
    let header = outline(bytes)?;
    (declared_length(bytes)? == bytes.len()).then_some(header)
}

/// The header of a packet whose end may be missing, as ICMP errors quote it.
pub(crate) fn outline(bytes: &[u8]) -> Option<Header> {
    match bytes.first()? >> 4 {
        4 => outline_v4(bytes),
        6 => outline_v6(bytes),
        _ => None,
    }
}

fn outline_v4(bytes: &[u8]) -> Option<Header> {
    let start = usize::from(bytes[0] & 0x0f) * 4;
    if start < V4_LENGTH || bytes.len() < start {
        return None;
    }
    let address = |at: usize| Ipv4Addr::from(array::<4>(bytes, at));
    Some(Header {
        src: address(V4_SOURCE).into(),
        dst: address(V4_SOURCE + 4).into(),
        ttl: bytes[V4_TTL],
        proto: bytes[9],
        start,
        fragment: word(bytes, 6) & 0x3fff != 0,
    })
}

fn outline_v6(bytes: &[u8]) -> Option<Header> {
    if bytes.len() < V6_LENGTH {
        return None;
    }
    let address = |at: usize| Ipv6Addr::from(array::<16>(bytes, at));
    Some(Header {
        src: address(V6_SOURCE).into(),
        dst: address(V6_SOURCE + 16).into(),
        ttl: bytes[V6_HOPS],
        proto: bytes[6],
        start: V6_LENGTH,
        fragment: bytes[6] == 44,
    })
}

fn declared_length(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? >> 4 {
        4 => Some(word(bytes, 2).into()),
        _ => Some(usize::from(word(bytes, 4)) + V6_LENGTH),
    }
}

/// Writes another TTL, IPv4's header checksum with it. The packet has a [`header`].
pub(crate) fn set_ttl(bytes: &mut [u8], ttl: u8) {
    if bytes[0] >> 4 == 6 {
        bytes[V6_HOPS] = ttl;
        return;
    }
    let before = word(bytes, V4_TTL);
    bytes[V4_TTL] = ttl;
    patch(bytes, V4_CHECKSUM, before, word(bytes, V4_TTL));
}

/// The packet as a NAT sees it, its bytes kept as payload. `None` for what is neither UDP nor TCP, for
/// fragments, and for what is cut short.
pub(crate) fn to_model(bytes: Bytes) -> Option<Packet> {
    let header = header(&bytes)?;
    let (proto, length) = match header.proto {
        UDP => (Proto::Udp, 8),
        TCP => (Proto::Tcp, 20),
        _ => return None,
    };
    if header.fragment || bytes.len() < header.start + length {
        return None;
    }
    let flags = match proto {
        Proto::Tcp => TcpFlags::from_wire(bytes[header.start + TCP_FLAGS]),
        Proto::Udp => TcpFlags::NONE,
    };
    let src = SocketAddr::new(header.src, word(&bytes, header.start));
    let dst = SocketAddr::new(header.dst, word(&bytes, header.start + 2));
    Some(Packet { proto, src, dst, ttl: header.ttl, flags, payload: bytes })
}

/// The bytes of a packet that came from [`to_model`], with the addresses, ports and TTL that it has now.
pub(crate) fn from_model(packet: &Packet) -> Vec<u8> {
    let mut bytes = packet.payload.to_vec();
    if let Some(header) = header(&bytes) {
        rewrite(&mut bytes, header, packet.src, packet.dst);
        set_ttl(&mut bytes, packet.ttl);
    }
    bytes
}

/// Writes other addresses and ports of the same family, with the checksums that cover them, as far as the
/// packet goes: a quoted one may end after its ports.
pub(crate) fn rewrite(bytes: &mut [u8], header: Header, src: SocketAddr, dst: SocketAddr) {
    let checksum = transport_checksum(bytes, header);
    for (end, address) in [src, dst].into_iter().enumerate() {
        match address.ip() {
            IpAddr::V4(ip) => {
                let at = V4_SOURCE + end * 4;
                replace(bytes, at, &ip.octets(), &[Some(V4_CHECKSUM), checksum]);
            }
            IpAddr::V6(ip) => replace(bytes, V6_SOURCE + end * 16, &ip.octets(), &[checksum]),
        }
        let at = header.start + end * 2;
        if bytes.len() >= at + 2 {
            replace(bytes, at, &address.port().to_be_bytes(), &[checksum]);
        }
    }
    if header.proto == UDP && checksum.is_some_and(|at| word(bytes, at) == 0) {
        // Zero says that there is none (RFC 768).
        put(bytes, header.start + 6, 0xffff);
    }
}

/// Where the transport's checksum stands, if it has one and the packet goes that far.
fn transport_checksum(bytes: &[u8], header: Header) -> Option<usize> {
    let at = match header.proto {
        UDP => header.start + 6,
        TCP => header.start + 16,
        _ => return None,
    };
    let there = bytes.len() >= at + 2;
    (there && !(header.proto == UDP && word(bytes, at) == 0)).then_some(at)
}

/// Writes `new` at `at`, and what that changes into the checksums.
fn replace(bytes: &mut [u8], at: usize, new: &[u8], checksums: &[Option<usize>]) {
    for (n, pair) in new.chunks_exact(2).enumerate() {
        let (at, after) = (at + n * 2, u16::from_be_bytes([pair[0], pair[1]]));
        let before = word(bytes, at);
        put(bytes, at, after);
        for checksum in checksums.iter().flatten() {
            patch(bytes, *checksum, before, after);
        }
    }
}

/// A checksum after one of its words changed (RFC 1624, equation 3).
fn patch(bytes: &mut [u8], at: usize, before: u16, after: u16) {
    let sum = u32::from(!word(bytes, at)) + u32::from(!before) + u32::from(after);
    put(bytes, at, !fold(sum));
}

/// The checksum of these bytes as they stand (RFC 1071), begun with another sum.
pub(crate) fn checksum(bytes: &[u8], begun: u32) -> u16 {
    let mut sum = begun;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    !fold(sum)
}

/// The sum over the pseudo-header of a transport (RFC 9293 section 3.1, RFC 8200 section 8.1).
pub(crate) fn pseudo_header(src: IpAddr, dst: IpAddr, proto: u8, length: usize) -> u32 {
    let mut sum = u32::from(proto) + length as u32;
    for address in [src, dst] {
        let part = match address {
            IpAddr::V4(ip) => checksum(&ip.octets(), 0),
            IpAddr::V6(ip) => checksum(&ip.octets(), 0),
        };
        sum += u32::from(!part);
    }
    sum
}

/// An IP header without options in front of a transport's bytes, with the usual TTL.
pub(crate) fn wrap(src: IpAddr, dst: IpAddr, proto: u8, body: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut head = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, crate::nat::TTL, proto, 0, 0];
            head.extend(src.octets().into_iter().chain(dst.octets()));
            put(&mut head, 2, u16::try_from(V4_LENGTH + body.len()).ok()?);
            let sum = checksum(&head, 0);
            put(&mut head, V4_CHECKSUM, sum);
            head
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut head = vec![0x60, 0, 0, 0, 0, 0, proto, crate::nat::TTL];
            head.extend(src.octets().into_iter().chain(dst.octets()));
            put(&mut head, 4, u16::try_from(body.len()).ok()?);
            head
        }
        _ => return None,
    };
    bytes.extend_from_slice(body);
    Some(bytes)
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

pub(crate) fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
pub(crate) mod tests;
