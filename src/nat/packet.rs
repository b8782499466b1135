//! Holds: packets as values, as far as a NAT looks at them.

use std::net::SocketAddr;
use std::ops::BitOr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The transport protocol of a packet, a binding or a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Proto {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl std::fmt::Display for Proto {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

/// The flags of a TCP header that a NAT looks at; none for UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// No flag, as every UDP packet has it.
    pub const NONE: Self = Self(0);
    /// FIN, with the bit that it has on the wire (RFC 9293 section 3.1), as the others below.
    pub const FIN: Self = Self(0x01);
    /// SYN.
    pub const SYN: Self = Self(0x02);
    /// RST.
    pub const RST: Self = Self(0x04);
    /// ACK.
    pub const ACK: Self = Self(0x10);

    /// The flags in a TCP header's 14th byte; the others in it are left out.
    pub fn from_wire(byte: u8) -> Self {
        Self(byte & 0x17)
    }

    /// The bits as in a TCP header's 14th byte.
    pub fn to_wire(self) -> u8 {
        self.0
    }

    /// True when every flag of `other` is set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True for the packet that opens a connection: SYN without ACK.
    pub fn opens(self) -> bool {
        self.has(Self::SYN) && !self.has(Self::ACK)
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One packet. Cloning is cheap: the payload is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// UDP or TCP.
    pub proto: Proto,
    /// Where it comes from, as written in its header.
    pub src: SocketAddr,
    /// Where it goes.
    pub dst: SocketAddr,
    /// Routers that it may still pass (IPv4 TTL, IPv6 hop limit).
    pub ttl: u8,
    /// TCP flags; [`TcpFlags::NONE`] for UDP.
    pub flags: TcpFlags,
    /// Never looked at by a NAT: the transport's payload, or whatever the driver keeps with the packet.
    pub payload: Bytes,
}

/// The TTL that hosts start with (RFC 1700's recommendation, Linux's default).
pub const TTL: u8 = 64;

impl Packet {
    /// A UDP datagram with the usual TTL.
    pub fn udp(src: SocketAddr, dst: SocketAddr, payload: impl Into<Bytes>) -> Self {
        Self { proto: Proto::Udp, src, dst, ttl: TTL, flags: TcpFlags::NONE, payload: payload.into() }
    }

    /// A TCP segment with the usual TTL.
    pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: TcpFlags, payload: impl Into<Bytes>) -> Self {
        Self { proto: Proto::Tcp, src, dst, ttl: TTL, flags, payload: payload.into() }
    }

    /// The same packet with another TTL.
    pub fn with_ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// The reset that answers this TCP segment, from where it was sent to.
    pub fn reset(&self) -> Self {
        Self::tcp(self.dst, self.src, TcpFlags::RST | TcpFlags::ACK, Bytes::new())
    }
}
