//! Holds: what a probe is given, what it wants done, and what it has observed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::nat::{Family, Proto};

/// A server to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is asked first.
    pub primary: SocketAddr,
    /// Its other address and port, if known beforehand; else its OTHER-ADDRESS (RFC 5780 section 7.4) tells.
    pub alternate: Option<SocketAddr>,
}

/// What to test, from where.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The interface's name, for the report.
    pub interface: String,
    /// The interface's address that the sockets are bound to; never unspecified, since it is compared with
    /// what servers see.
    pub local: IpAddr,
    /// UDP or TCP. Over TCP each request has a connection of its own and there is no filtering test.
    pub proto: Proto,
    /// Servers of the interface's family; others and those beyond the first four are left out.
    pub servers: Vec<Server>,
    /// One of `servers`, its other address known, that has just answered over another protocol: the tests begin with
    /// it at once instead of after a round that finds who answers. Without an answer nothing is learnt.
    pub lead: Option<usize>,
    /// The external address that the router itself claims, if a port mapping protocol told it.
    pub router: Option<IpAddr>,
    /// For transaction ids and local ports. From the system's randomness, so that nobody off the path can
    /// guess a transaction id.
    pub seed: u64,
}

impl Setup {
    /// The family under test.
    pub fn family(&self) -> Family {
        Family::of(self.local)
    }
}

/// One of a probe's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u16);

/// The flags of CHANGE-REQUEST (RFC 5780 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The attribute is left out: answer from where you were asked.
    None,
    /// Answer from the other port.
    Port,
    /// Answer from the other address and port.
    Both,
}

/// What a probe wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Open a socket (TCP: choose a local port to connect from, reusable), then call `handle_opened` or
    /// `handle_open_failed`.
    Open {
        /// The name that it has from now on.
        socket: SocketId,
        /// The local port wanted; another one is taken when this is not free. 0: any.
        port: u16,
    },
    /// Send a binding request.
    Send(Transmit),
}

/// A STUN binding request to send. Over TCP: connect from the socket's port, send, keep the connection
/// open until the probe is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// From this socket.
    pub socket: SocketId,
    /// To this address.
    pub to: SocketAddr,
    /// With this CHANGE-REQUEST.
    pub change: Change,
    /// With this RESPONSE-PORT (RFC 5780 section 7.5). Only a lifetime test asks for it.
    pub response_port: Option<u16>,
    /// With this transaction id; a repetition has the same.
    pub id: [u8; 12],
}

/// A binding success response, as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its transaction id.
    pub id: [u8; 12],
    /// XOR-MAPPED-ADDRESS, or MAPPED-ADDRESS from old servers.
    pub mapped: SocketAddr,
    /// OTHER-ADDRESS, or CHANGED-ADDRESS from old servers.
    pub other: Option<SocketAddr>,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Mapping tests, controls, one end of the hairpin test.
    Main,
    /// The hairpin test's other end.
    Partner,
    /// One filtering test, with this change wanted of the given server of the [`Setup`].
    Filter(Change),
    /// One sample of how ports are assigned.
    Sample,
}

/// A request and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What its socket is for.
    pub purpose: Purpose,
    /// From this socket.
    pub socket: SocketId,
    /// The socket's local address.
    pub local: SocketAddr,
    /// The server asked, as an index into the setup's list; `None` for a hairpin request.
    pub server: Option<usize>,
    /// Where it went.
    pub to: SocketAddr,
    /// From where the answer is wanted.
    pub change: Change,
    /// Its place among the first sendings: the order in which a NAT made new mappings, when none was lost.
    pub order: u32,
    /// When it was first sent.
    pub sent: Duration,
    /// The first valid answer. For a hairpin request: the request's own arrival, with its source as `mapped`.
    pub heard: Option<Heard>,
}

/// An answer that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When.
    pub at: Duration,
    /// From where.
    pub from: SocketAddr,
    /// The mapping that it tells.
    pub mapped: SocketAddr,
}

/// All that a probe saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observations {
    /// Every request in the order of sending.
    pub asked: Vec<Asked>,
    /// Each server's second address, where it has told a usable one.
    pub alternates: Vec<Option<SocketAddr>>,
    /// Answers that were ignored: unknown, repeated, of another family, from the wrong place.
    pub ignored: u32,
}
