//! Holds: a hole, and how it came to be.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use super::hole::UdpHole;
use super::plan::Plan;
use crate::nat::Proto;

/// What was punched.
#[derive(Debug)]
#[non_exhaustive]
pub enum Hole {
    /// A socket of ours, and the peer's address that it reaches, nominated by ICE at both ends.
    Udp(Box<UdpHole>),
    /// A connection, the same one at both ends.
    Tcp {
        /// The connection.
        stream: TcpStream,
    },
}

/// A hole and the story of how it came to be.
#[derive(Debug)]
#[non_exhaustive]
pub struct Punched {
    /// The way through.
    pub hole: Hole,
    /// Our end's address.
    pub local: SocketAddr,
    /// The peer's, as we see it.
    pub peer: SocketAddr,
    /// True at the end that chose: where a protocol above needs a client, it is this one.
    pub controlling: bool,
    /// From the agreed instant to the hole.
    pub took: Duration,
    /// From the call to the hole, with finding our own addresses and agreeing.
    pub total: Duration,
    /// The round trip over the channel; zero where it was done by hand.
    pub round_trip: Duration,
    /// What was ready beside ordinary punching, and why.
    pub plan: Plan,
    /// Packets that were sent (UDP) or connections that were begun (TCP) towards the peer's addresses. STUN servers were sent a
    /// few beside, and some thirty where the NAT takes another port for each destination.
    pub attempts: u32,
}

/// The story in a sentence.
impl fmt::Display for Punched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proto = if matches!(self.hole, Hole::Udp(_)) { Proto::Udp } else { Proto::Tcp };
        write!(f, "{proto} from {} to {}", self.local, self.peer)?;
        write!(
            f,
            ", {} ms after the start and {} ms after the instant",
            self.total.as_millis(),
            self.took.as_millis()
        )?;
        write!(f, ", {}; {}", packets(&proto, &self.attempts), self.plan)
    }
}

/// What was spent, in words.
pub(super) fn packets(proto: &Proto, attempts: &u32) -> String {
    let plural = if *attempts == 1 { "" } else { "s" };
    match proto {
        Proto::Udp => format!("{attempts} packet{plural} sent"),
        Proto::Tcp => format!("{attempts} attempt{plural} to connect"),
    }
}
