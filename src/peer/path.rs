//! Holds: the ways by which a peer is reached, and how good each is.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::session::RELAYED;
use crate::nat::Proto;

/// How two peers came together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum PathKind {
    /// One end connected to an address of the other: the same network, a public address, a mapped port.
    Direct,
    /// The end that has the ticket could not be reached at its own word, and was connected to by the other.
    Reverse,
    /// Through a hole in both NATs for TCP.
    TcpPunch,
    /// Through a hole in both NATs for UDP.
    UdpPunch,
    /// Through a rendezvous server, or a TURN server.
    Relay,
}

impl PathKind {
    pub(crate) fn to_byte(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Direct, Self::Reverse, Self::TcpPunch, Self::UdpPunch, Self::Relay]
            .into_iter()
            .find(|kind| kind.to_byte() == byte)
    }
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Reverse => "reverse",
            Self::TcpPunch => "tcp-punch",
            Self::UdpPunch => "udp-punch",
            Self::Relay => "relay",
        })
    }
}

/// A path to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathInfo {
    /// How it was found.
    pub kind: PathKind,
    /// TCP with TLS 1.3, or UDP with QUIC.
    pub proto: Proto,
    /// Our end's address; none where a server carries the bytes.
    pub local: Option<SocketAddr>,
    /// The other end's, as we see it; none where a server carries the bytes.
    pub remote: Option<SocketAddr>,
    /// The round trip, once it was measured.
    pub rtt: Option<Duration>,
}

impl PathInfo {
    /// Smaller is better: any way without a server before a relay, TCP before UDP, since the kernel moves its bytes several
    /// times as fast, and what needed no hole before what did.
    pub(crate) fn rank(&self) -> (bool, bool, PathKind) {
        (self.kind == PathKind::Relay, self.proto == Proto::Udp, self.kind)
    }
}

impl PathInfo {
    /// How good it is beside others that are alive too; smaller is better.
    pub(crate) fn standing(&self) -> u8 {
        match (self.kind, self.proto) {
            (PathKind::Relay, _) => RELAYED,
            (_, Proto::Udp) => 1,
            (_, Proto::Tcp) => 0,
        }
    }
}

impl fmt::Display for PathInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {}", self.kind, self.proto)?;
        if let Some(remote) = self.remote {
            write!(f, " to {remote}")?;
        }
        match self.rtt {
            Some(rtt) => write!(f, ", {:.1} ms", rtt.as_secs_f64() * 1000.0),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(kind: PathKind, proto: Proto) -> PathInfo {
        PathInfo { kind, proto, local: None, remote: None, rtt: None }
    }

    #[test]
    fn everything_is_better_than_a_relay_and_a_straight_way_better_than_a_hole() {
        let order = [
            path(PathKind::Direct, Proto::Tcp),
            path(PathKind::Reverse, Proto::Tcp),
            path(PathKind::TcpPunch, Proto::Tcp),
            path(PathKind::Direct, Proto::Udp),
            path(PathKind::UdpPunch, Proto::Udp),
            path(PathKind::Relay, Proto::Tcp),
        ];
        assert!(order.windows(2).all(|pair| pair[0].rank() < pair[1].rank()));
    }

    #[test]
    fn kinds_are_the_same_on_the_wire() {
        for kind in [PathKind::Direct, PathKind::Reverse, PathKind::TcpPunch, PathKind::UdpPunch, PathKind::Relay] {
            assert_eq!(PathKind::from_byte(kind.to_byte()), Some(kind));
        }
        assert_eq!(PathKind::from_byte(9), None);
    }
}
