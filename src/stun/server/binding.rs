//! Decides: what a server answers to a packet, from which of its addresses, or that it stays silent.

use std::net::SocketAddr;
use std::time::Instant;

use super::addresses::{Addresses, Corner};
use super::limit::{Limiter, Limits};
use crate::stun::address::canonical;
use crate::stun::attribute::{BINDING, Change, Class, kind};
use crate::stun::build::{NoRoom, Writer};
use crate::stun::message::Message;

/// How many times as long as its request a reply may be, headers of lower layers not counted.
const MOST_AMPLIFICATION: usize = 3;
/// Bytes of FINGERPRINT with its header.
const FINGERPRINT: usize = 8;
/// How many types UNKNOWN-ATTRIBUTES lists: as many as fit into a reply to the shortest request that has one.
const MOST_UNKNOWN: usize = 8;

/// Where a reply goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The socket to send it from.
    pub from: Corner,
    /// Whom to send it to.
    pub to: SocketAddr,
    /// How many bytes of the output it takes.
    pub len: usize,
}

/// What a server has seen, since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Packets.
    pub received: u64,
    /// Requests that got their address.
    pub answered: u64,
    /// Requests that got an error.
    pub refused: u64,
    /// Requests over their source's limit, not answered.
    pub limited: u64,
    /// Packets that are no STUN message, or have a wrong fingerprint.
    pub malformed: u64,
    /// Messages that are no Binding requests.
    pub not_requests: u64,
    /// Requests from what can be no host's address.
    pub bogus: u64,
}

/// A STUN server's state: answers Binding requests of RFC 8489 (with RFC 5780's tests) and RFC 3489, in memory that does
/// not grow, and without allocating. It keeps nothing about a client but how much it asked.
///
/// It can not be used to amplify: a reply is at most three times its request and leaves out what has no room; a reply
/// goes to the address that asked, by RESPONSE-PORT to another port of it; each source has a limit.
///
/// ```
/// use std::time::Instant;
/// use natpipe::stun::{Addresses, Binding, Corner, Limits, Message, Request, TransactionId};
///
/// let now = Instant::now();
/// let mut server = Binding::new(Addresses::one("192.0.2.1:3478".parse().unwrap()), Limits::default(), [1, 2], now);
/// let request = Request::new().encode(TransactionId::modern([9; 12]), &Default::default()).unwrap();
/// let mut out = [0; 1500];
/// let client = "198.51.100.7:4000".parse().unwrap();
/// let reply = server.handle(now, Corner::PRIMARY, client, &request, &mut out).unwrap();
/// assert_eq!(Message::parse(&out[..reply.len]).unwrap().mapped(), Some(client));
/// ```
#[derive(Debug)]
pub struct Binding {
    addresses: Addresses,
    limiter: Limiter,
    counters: Counters,
}

/// How a request came.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    local: Corner,
    from: SocketAddr,
    stream: bool,
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    BadRequest,
    Unknown { kinds: [u16; MOST_UNKNOWN], count: usize },
}

impl Binding {
    /// A server with these addresses, of one family. `keys` must be random and secret: they place sources in a table.
    pub fn new(addresses: Addresses, limits: Limits, keys: [u64; 2], now: Instant) -> Self {
        Self { addresses, limiter: Limiter::new(limits, keys, now), counters: Counters::default() }
    }

    /// Looks at a datagram that came to the socket `local` from `from`, and writes the reply, if there is to be one, to
    /// `out`. With 1,500 bytes of `out` there is room for all but long PADDING, which is then left out.
    pub fn handle(
        &mut self,
        now: Instant,
        local: Corner,
        from: SocketAddr,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Option<Reply> {
        let arrival = Arrival { local, from, stream: false };
        self.reply(now, arrival, bytes, out)
    }

    /// The same for a message that came over TCP or TLS, cut out by [`next_message`](crate::stun::next_message). The
    /// reply's length; it goes back over the same connection. Changes of address and port are refused.
    pub fn handle_stream(
        &mut self,
        now: Instant,
        local: Corner,
        from: SocketAddr,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Option<usize> {
        let arrival = Arrival { local, from, stream: true };
        self.reply(now, arrival, bytes, out).map(|reply| reply.len)
    }

    /// What was seen so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn reply(&mut self, now: Instant, arrival: Arrival, bytes: &[u8], out: &mut [u8]) -> Option<Reply> {
        let request = self.admit(now, arrival.from, bytes)?;
        let most = out.len().min(bytes.len() * MOST_AMPLIFICATION);
        let out = &mut out[..most];
        match self.check(&request, arrival) {
            Ok(change) => {
                let from = arrival.local.changed(change);
                let len = self.success(&request, arrival, from, out).ok()?;
                self.counters.answered += 1;
                // Checked above not to be with a stream; a request without it is answered where it came from.
                let port = request.response_port().unwrap_or(arrival.from.port());
                let mut to = arrival.from;
                to.set_port(port);
                Some(Reply { from, to, len })
            }
            Err(refusal) => {
                let len = error(&request, refusal, out).ok()?;
                self.counters.refused += 1;
                Some(Reply { from: arrival.local, to: arrival.from, len })
            }
        }
    }

    /// The request in `bytes`, if it is one and its source may make it.
    fn admit<'a>(&mut self, now: Instant, from: SocketAddr, bytes: &'a [u8]) -> Option<Message<'a>> {
        self.counters.received += 1;
        let Some(message) = Message::parse(bytes).ok().filter(|message| message.fingerprint() != Some(false)) else {
            self.counters.malformed += 1;
            return None;
        };
        let count = if message.class() != Class::Request || message.method() != BINDING {
            &mut self.counters.not_requests
        } else if !can_be_host(from) {
            &mut self.counters.bogus
        } else if !self.limiter.take(now, from.ip()) {
            &mut self.counters.limited
        } else {
            return Some(message);
        };
        *count += 1;
        None
    }

    /// Whether the request can be granted, and from where it wants its answer.
    fn check(&self, request: &Message<'_>, arrival: Arrival) -> Result<Change, Refusal> {
        refuse_unknown(request)?;
        let change = match request.get(kind::CHANGE_REQUEST) {
            Some(_) => request.change().ok_or(Refusal::BadRequest)?,
            None => Change::default(),
        };
        if change.is_any() && (arrival.stream || !self.addresses.has_alternate()) {
            return Err(Refusal::unknown(kind::CHANGE_REQUEST));
        }
        if let Some(value) = request.get(kind::RESPONSE_PORT) {
            let port = request.response_port().filter(|port| *port != 0 && value.len() <= 4);
            port.ok_or(Refusal::BadRequest)?;
            // RFC 5780 section 7.5: not with PADDING, whose fragments would all go to the other port, nor over TCP.
            if arrival.stream || request.get(kind::PADDING).is_some() {
                return Err(Refusal::BadRequest);
            }
        }
        Ok(change)
    }

    fn success(&self, request: &Message<'_>, arrival: Arrival, from: Corner, out: &mut [u8]) -> Result<usize, NoRoom> {
        let signed = request.fingerprint().is_some();
        let most = out.len() - if signed { FINGERPRINT } else { 0 };
        let mut writer = Writer::new(out, Class::Success, BINDING, request.id())?;
        let (other, origin) = (self.addresses.other_than(arrival.local), self.addresses.at(from));
        let mapped = canonical(arrival.from);
        if request.id().is_classic() {
            writer.address(kind::MAPPED_ADDRESS, mapped)?;
            add(&mut writer, most, kind::CHANGED_ADDRESS, other)?;
            add(&mut writer, most, kind::SOURCE_ADDRESS, origin)?;
        } else {
            writer.xor_address(kind::XOR_MAPPED_ADDRESS, mapped)?;
            add(&mut writer, most, kind::OTHER_ADDRESS, other)?;
            add(&mut writer, most, kind::RESPONSE_ORIGIN, origin)?;
            // A client compares it with the XORed one to find devices that rewrite addresses in packets.
            add(&mut writer, most, kind::MAPPED_ADDRESS, Some(mapped))?;
        }
        let padding = request.get(kind::PADDING).map(<[u8]>::len);
        if let Some(padding) = padding.filter(|len| writer.len() + 4 + len.next_multiple_of(4) <= most) {
            writer.padding(padding)?;
        }
        if signed {
            writer.fingerprint()?;
        }
        Ok(writer.finish())
    }
}

impl Refusal {
    fn unknown(kind: u16) -> Self {
        let mut kinds = [0; MOST_UNKNOWN];
        kinds[0] = kind;
        Self::Unknown { kinds, count: 1 }
    }
}

fn refuse_unknown(request: &Message<'_>) -> Result<(), Refusal> {
    let (mut kinds, mut count) = ([0; MOST_UNKNOWN], 0);
    for (place, kind) in kinds.iter_mut().zip(request.not_understood()) {
        *place = kind;
        count += 1;
    }
    if count == 0 { Ok(()) } else { Err(Refusal::Unknown { kinds, count }) }
}

/// Adds an address that is there, if the message stays within `most` bytes.
fn add(writer: &mut Writer<'_>, most: usize, kind: u16, address: Option<SocketAddr>) -> Result<(), NoRoom> {
    let Some(address) = address else { return Ok(()) };
    let len = if address.is_ipv4() { 12 } else { 24 };
    if writer.len() + len <= most {
        writer.address(kind, address)?;
    }
    Ok(())
}

fn error(request: &Message<'_>, refusal: Refusal, out: &mut [u8]) -> Result<usize, NoRoom> {
    let mut writer = Writer::new(out, Class::Error, BINDING, request.id())?;
    match refusal {
        Refusal::BadRequest => writer.error(400, "Bad Request")?,
        Refusal::Unknown { kinds, count } => {
            writer.error(420, "Unknown Attribute")?.unknown_attributes(&kinds[..count])?
        }
    };
    if request.fingerprint().is_some() {
        writer.fingerprint()?;
    }
    Ok(writer.finish())
}

/// Whether a reply to this address could reach one host that asked.
fn can_be_host(from: SocketAddr) -> bool {
    let from = canonical(from);
    let broadcast = matches!(from, SocketAddr::V4(from) if from.ip().is_broadcast());
    from.port() != 0 && !from.ip().is_unspecified() && !from.ip().is_multicast() && !broadcast
}
