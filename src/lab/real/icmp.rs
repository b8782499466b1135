//! Decides: the ICMP errors and TCP resets by which routers say that a packet ended here.

use std::net::IpAddr;

use super::wire::{self, ICMP, ICMP6, TCP};

/// Why a packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// It has passed as many routers as it may.
    TimeExceeded,
    /// Nobody has its destination's address.
    NoRoute,
    /// Nobody listens there.
    PortUnreachable,
    /// A rule forbids it.
    Prohibited,
}

/// What of the packet is quoted, so that the answer stays small (RFC 1812 section 4.3.2.3 allows 576 in all).
const QUOTED: usize = 512;

impl Error {
    /// Type and code (RFC 792, RFC 1812 section 5.2.7.1).
    fn v4(self) -> [u8; 2] {
        match self {
            Self::TimeExceeded => [11, 0],
            Self::NoRoute => [3, 1],
            Self::PortUnreachable => [3, 3],
            Self::Prohibited => [3, 13],
        }
    }

    /// Type and code (RFC 4443).
    fn v6(self) -> [u8; 2] {
        match self {
            Self::TimeExceeded => [3, 0],
            Self::NoRoute => [1, 0],
            Self::PortUnreachable => [1, 4],
            Self::Prohibited => [1, 1],
        }
    }

    /// The packet that tells `original`'s sender, from the address `by`. `None` where nothing may be
    /// answered: to another ICMP packet, to a fragment, across families.
    pub(crate) fn about(self, original: &[u8], by: IpAddr) -> Option<Vec<u8>> {
        let header = wire::header(original)?;
        if header.fragment || [ICMP, ICMP6].contains(&header.proto) || header.dst.is_multicast() {
            return None;
        }
        let quoted = &original[..original.len().min(QUOTED)];
        let (proto, [kind, code], begun) = match by {
            IpAddr::V4(_) => (ICMP, self.v4(), 0),
            IpAddr::V6(_) => (ICMP6, self.v6(), wire::pseudo_header(by, header.src, ICMP6, quoted.len() + 8)),
        };
        let mut body = vec![kind, code, 0, 0, 0, 0, 0, 0];
        body.extend_from_slice(quoted);
        let sum = wire::checksum(&body, begun);
        wire::put(&mut body, 2, sum);
        wire::wrap(by, header.src, proto, &body)
    }
}

/// The reset that answers a TCP segment, from where it was sent to (RFC 9293 section 3.10.7.1).
pub(crate) fn reset(original: &[u8]) -> Option<Vec<u8>> {
    let header = wire::header(original)?;
    let segment = original.get(header.start..)?;
    if header.proto != TCP || segment.len() < 20 || segment[13] & 0x04 != 0 {
        return None;
    }
    let flags = segment[13];
    let payload = segment.len().saturating_sub(usize::from(segment[12] >> 4) * 4);
    let spans = payload as u32 + u32::from(flags & 0x02 != 0) + u32::from(flags & 0x01 != 0);
    let mut body = [&segment[2..4], &segment[0..2]].concat();
    if flags & 0x10 != 0 {
        body.extend_from_slice(&segment[8..12]);
        body.extend([0, 0, 0, 0, 0x50, 0x04]);
    } else {
        let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        body.extend([0, 0, 0, 0]);
        body.extend(sequence.wrapping_add(spans).to_be_bytes());
        body.extend([0x50, 0x14]);
    }
    body.extend([0; 6]);
    let begun = wire::pseudo_header(header.dst, header.src, TCP, body.len());
    let sum = wire::checksum(&body, begun);
    wire::put(&mut body, 16, sum);
    wire::wrap(header.dst, header.src, TCP, &body)
}
