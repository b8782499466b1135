//! Decides: what peers say over the channel, as bytes; what a stranger may say is checked here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use bytes::{BufMut, Bytes, BytesMut};

use super::shape::{Assigned, Shape};
use crate::nat::Proto;
use crate::net::is_elsewhere;

/// The longest message.
pub(super) const MOST: usize = 4096;

/// Candidates that are taken of a peer; more are an attempt to make us spray.
pub(super) const CANDIDATES: usize = 16;

const VERSION: u8 = 5;

/// Where a peer may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) proto: Proto,
    pub(super) kind: CandidateKind,
    /// How a TCP candidate is used; a UDP one has none.
    pub(super) tcp: Option<TcpType>,
    pub(super) addr: SocketAddr,
}

/// RFC 8445 section 4, and RFC 6544 section 3 for what a gateway has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CandidateKind {
    Host,
    ServerReflexive,
    NatAssisted,
}

/// RFC 6544 section 4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TcpType {
    /// It connects and does not listen: nobody calls it.
    Active,
    /// It only listens.
    Passive,
    /// It listens and connects from the same port.
    SimultaneousOpen,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The first, to be answered at once with `Pong`: the sender's secrets; `tie` decides who controls.
    Hello { tie: u64, ufrag: String, password: String },
    /// To be answered at once as well.
    Ping,
    /// The answer to either.
    Pong,
    /// Where the sender may be reached, and what its NAT does; `more` while it still looks for addresses elsewhere.
    Offer { more: bool, candidates: Vec<Candidate>, shape: Option<Shape> },
    /// Where else it may be reached, found after the offer.
    More { candidates: Vec<Candidate> },
}

/// What one end tells the other where people carry it: its secrets and its candidates, with a length before each.
pub(super) fn words(hello: &Message, offer: &Message) -> Bytes {
    let mut out = BytesMut::new();
    for message in [hello, offer] {
        let bytes = message.encode();
        out.put_u16(bytes.len() as u16);
        out.put_slice(&bytes);
    }
    out.freeze()
}

/// Both messages, of one who is not ourselves.
pub(super) fn read_words(bytes: &[u8]) -> Result<(Message, Message), MessageError> {
    let mut input = Input(bytes);
    let mut next = || {
        let len = usize::from(u16::from_be_bytes(input.take()?));
        let (message, rest) = input.0.split_at_checked(len).ok_or(MessageError)?;
        input.0 = rest;
        Message::decode(message)
    };
    let (hello, offer) = (next()?, next()?);
    let right = matches!((&hello, &offer), (Message::Hello { .. }, Message::Offer { .. }));
    if right && input.0.is_empty() { Ok((hello, offer)) } else { Err(MessageError) }
}

/// A message that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer's message can not be read: it may be of another version")]
pub struct MessageError;

impl Message {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        match self {
            Self::Hello { tie, ufrag, password } => {
                out.put_u8(1);
                out.put_u64(*tie);
                for text in [ufrag, password] {
                    out.put_u8(text.len() as u8);
                    out.put_slice(text.as_bytes());
                }
            }
            Self::Ping => out.put_u8(2),
            Self::Pong => out.put_u8(3),
            Self::Offer { more, candidates, shape } => {
                out.put_slice(&[4, u8::from(*more)]);
                encode_candidates(candidates, &mut out);
                encode_shape(*shape, &mut out);
            }
            Self::More { candidates } => {
                out.put_u8(5);
                encode_candidates(candidates, &mut out);
            }
        }
        out.freeze()
    }

    /// Reads a message. Candidates that can be nobody's, or this machine's own alone, are left out.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut input = Input(bytes);
        if input.byte()? != VERSION {
            return Err(MessageError);
        }
        let message = match input.byte()? {
            1 => {
                Self::Hello { tie: u64::from_be_bytes(input.take()?), ufrag: input.text(4)?, password: input.text(22)? }
            }
            2 => Self::Ping,
            3 => Self::Pong,
            4 => Self::Offer { more: input.flag()?, candidates: candidates(&mut input)?, shape: shape(&mut input)? },
            5 => Self::More { candidates: candidates(&mut input)? },
            _ => return Err(MessageError),
        };
        if input.0.is_empty() { Ok(message) } else { Err(MessageError) }
    }
}

fn encode_candidates(candidates: &[Candidate], out: &mut BytesMut) {
    out.put_u8(candidates.len() as u8);
    candidates.iter().for_each(|candidate| candidate.encode(out));
}

fn candidates(input: &mut Input<'_>) -> Result<Vec<Candidate>, MessageError> {
    let count = usize::from(input.byte()?);
    let mut candidates = Vec::new();
    for _ in 0..count {
        let candidate = Candidate::decode(input)?;
        if candidate.is_usable() && candidates.len() < CANDIDATES && !candidates.contains(&candidate) {
            candidates.push(candidate);
        }
    }
    Ok(candidates)
}

impl Candidate {
    /// As our own are: what listens connects from the same port too, but what a gateway has opened leads only inwards.
    pub(super) fn new(proto: Proto, kind: CandidateKind, addr: SocketAddr) -> Self {
        let tcp = match kind {
            CandidateKind::NatAssisted => TcpType::Passive,
            CandidateKind::Host | CandidateKind::ServerReflexive => TcpType::SimultaneousOpen,
        };
        Self { proto, kind, tcp: (proto == Proto::Tcp).then_some(tcp), addr }
    }

    /// Whether packets or connections to it may come to something.
    pub(super) fn may_be_called(&self) -> bool {
        self.tcp != Some(TcpType::Active)
    }

    /// One bit each for TCP and IPv6, two for the kind, two for the type over TCP.
    fn encode(&self, out: &mut BytesMut) {
        let proto = if self.proto == Proto::Tcp { 1 } else { 0 };
        let kind = match self.kind {
            CandidateKind::Host => 0,
            CandidateKind::ServerReflexive => 1,
            CandidateKind::NatAssisted => 2,
        };
        let family = if self.addr.is_ipv6() { 8 } else { 0 };
        let tcp = match self.tcp {
            None => 0,
            Some(TcpType::Active) => 1,
            Some(TcpType::Passive) => 2,
            Some(TcpType::SimultaneousOpen) => 3,
        };
        out.put_u8(proto | kind << 1 | family | tcp << 4);
        match self.addr.ip() {
            IpAddr::V4(ip) => out.put_slice(&ip.octets()),
            IpAddr::V6(ip) => out.put_slice(&ip.octets()),
        }
        out.put_u16(self.addr.port());
    }

    fn decode(input: &mut Input<'_>) -> Result<Self, MessageError> {
        let flags = input.byte()?;
        let (proto, tcp) = match (flags & 1, flags >> 4) {
            (0, 0) => (Proto::Udp, None),
            (1, 1) => (Proto::Tcp, Some(TcpType::Active)),
            (1, 2) => (Proto::Tcp, Some(TcpType::Passive)),
            (1, 3) => (Proto::Tcp, Some(TcpType::SimultaneousOpen)),
            _ => return Err(MessageError),
        };
        let kind = match flags >> 1 & 3 {
            0 => CandidateKind::Host,
            1 => CandidateKind::ServerReflexive,
            2 => CandidateKind::NatAssisted,
            _ => return Err(MessageError),
        };
        let ip: IpAddr = match flags & 8 {
            0 => Ipv4Addr::from(input.take::<4>()?).into(),
            _ => Ipv6Addr::from(input.take::<16>()?).into(),
        };
        let port = u16::from_be_bytes(input.take()?);
        Ok(Self { proto, kind, tcp, addr: SocketAddr::new(ip, port) })
    }

    fn is_usable(&self) -> bool {
        is_usable(self.addr)
    }
}

/// What its NAT does: nothing known, or kept, counted, random, first, each with what goes with it.
fn encode_shape(shape: Option<Shape>, out: &mut BytesMut) {
    let Some(Shape { addr, ports }) = shape else { return out.put_u8(0) };
    let (kind, a, b) = match ports {
        Assigned::Kept => (1, 0, 0),
        Assigned::Counted { last, by } => (2, last, by.cast_unsigned()),
        Assigned::Random { low, high } => (3, low, high),
        Assigned::First => (4, 0, 0),
    };
    out.put_u8(kind);
    out.put_slice(&addr.ip().octets());
    for number in [addr.port(), a, b] {
        out.put_u16(number);
    }
}

fn shape(input: &mut Input<'_>) -> Result<Option<Shape>, MessageError> {
    let kind = input.byte()?;
    if kind == 0 {
        return Ok(None);
    }
    let addr = SocketAddrV4::new(Ipv4Addr::from(input.take::<4>()?), u16::from_be_bytes(input.take()?));
    let (a, b) = (u16::from_be_bytes(input.take()?), u16::from_be_bytes(input.take()?));
    let ports = match kind {
        1 => Assigned::Kept,
        2 if b != 0 => Assigned::Counted { last: a, by: b.cast_signed() },
        3 if a != 0 && a <= b => Assigned::Random { low: a, high: b },
        4 => Assigned::First,
        _ => return Err(MessageError),
    };
    Ok(is_usable(addr.into()).then_some(Shape { addr, ports }))
}

/// Whether packets may be sent there on a stranger's word.
fn is_usable(addr: SocketAddr) -> bool {
    let odd = matches!(addr.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() || ip.is_unicast_link_local());
    is_elsewhere(addr) && !odd
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(MessageError)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, MessageError> {
        Ok(self.take::<1>()?[0])
    }

    fn flag(&mut self) -> Result<bool, MessageError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(MessageError),
        }
    }

    /// Characters of ICE's alphabet (RFC 8445 section 5.3), at least so many.
    fn text(&mut self, least: usize) -> Result<String, MessageError> {
        let len = usize::from(self.byte()?);
        if len < least || self.0.len() < len {
            return Err(MessageError);
        }
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        let good = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'+' || *byte == b'/';
        if !text.iter().all(good) {
            return Err(MessageError);
        }
        String::from_utf8(text.to_vec()).map_err(|_| MessageError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(addr: &str) -> Candidate {
        Candidate::new(Proto::Udp, CandidateKind::Host, addr.parse().unwrap())
    }

    fn offer(candidates: Vec<Candidate>) -> Message {
        Message::Offer { more: false, candidates, shape: shape(Assigned::Random { low: 40000, high: 40511 }) }
    }

    fn shape(ports: Assigned) -> Option<Shape> {
        Some(Shape { addr: "198.51.100.7:40001".parse().unwrap(), ports })
    }

    fn hello() -> Message {
        Message::Hello { tie: 7, ufrag: "abcd".into(), password: "p".repeat(22) }
    }

    #[test]
    fn each_message_is_read_as_it_was_written() {
        let tcp = Candidate::new(Proto::Tcp, CandidateKind::ServerReflexive, "[2001:db8::1]:5".parse().unwrap());
        let assisted = Candidate::new(Proto::Tcp, CandidateKind::NatAssisted, "192.0.2.1:5".parse().unwrap());
        let active = Candidate { tcp: Some(TcpType::Active), ..tcp };
        let offers =
            [None, shape(Assigned::Kept), shape(Assigned::First), shape(Assigned::Counted { last: 9, by: -3 })]
                .map(|shape| Message::Offer { more: true, candidates: vec![tcp], shape });
        let more = Message::More { candidates: vec![tcp] };
        let all = vec![candidate("192.0.2.1:9"), tcp, assisted, active];
        let others = [hello(), offer(all), Message::Ping, Message::Pong, more];
        for message in offers.into_iter().chain(others) {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn words_are_read_as_they_were_written_and_nothing_else_is() {
        let whole = words(&hello(), &offer(vec![candidate("192.0.2.1:9")]));
        assert_eq!(read_words(&whole), Ok((hello(), offer(vec![candidate("192.0.2.1:9")]))));
        assert!((0..whole.len()).all(|len| read_words(&whole[..len]).is_err()));
        assert_eq!(read_words(&[&whole[..], &[0]].concat()), Err(MessageError));
        assert_eq!(read_words(&words(&hello(), &hello())), Err(MessageError));
    }

    #[test]
    fn nothing_that_is_cut_or_longer_or_newer_is_read() {
        for whole in [hello().encode(), offer(vec![candidate("192.0.2.1:9")]).encode()] {
            for len in 0..whole.len() {
                assert_eq!(Message::decode(&whole[..len]), Err(MessageError), "{len}");
            }
            assert_eq!(Message::decode(&[&whole[..], &[0]].concat()), Err(MessageError));
        }
        assert_eq!(Message::decode(&[VERSION + 1, 2]), Err(MessageError));
    }

    #[test]
    fn a_candidate_of_no_kind_is_refused_and_one_that_only_connects_is_not_called() {
        let whole = offer(vec![candidate("192.0.2.1:9")]).encode();
        // UDP with a TCP type, TCP without one, a kind that is none, bits that mean nothing.
        for flags in [0x10, 0x01, 0x06, 0x40, 0x80, 0x31 | 0x40] {
            let mut bytes = whole.to_vec();
            bytes[4] = flags;
            assert_eq!(Message::decode(&bytes), Err(MessageError), "{flags:#x}");
        }
        let tcp = Candidate::new(Proto::Tcp, CandidateKind::Host, "192.0.2.1:9".parse().unwrap());
        assert!(tcp.may_be_called() && !Candidate { tcp: Some(TcpType::Active), ..tcp }.may_be_called());
    }

    #[test]
    fn a_shape_that_would_aim_at_nobody_or_everybody_is_left_out() {
        let aimed =
            |addr: &str| Shape { addr: addr.parse().unwrap(), ports: Assigned::Random { low: 1024, high: 65535 } };
        for addr in ["127.0.0.1:5", "224.0.0.1:5", "255.255.255.255:5", "0.0.0.0:5"] {
            let said = Message::Offer { more: false, candidates: vec![], shape: Some(aimed(addr)) };
            let read = Message::decode(&said.encode());
            assert_eq!(read, Ok(Message::Offer { more: false, candidates: vec![], shape: None }), "{addr}");
        }
        let empty =
            Message::Offer { more: false, candidates: vec![], shape: shape(Assigned::Random { low: 9, high: 8 }) };
        assert_eq!(Message::decode(&empty.encode()), Err(MessageError));
    }

    #[test]
    fn candidates_that_are_nobodys_or_too_many_are_left_out() {
        let bad =
            ["127.0.0.1:5", "224.0.0.1:5", "0.0.0.0:5", "255.255.255.255:5", "192.0.2.1:0", "[::1]:5", "[fe80::1]:5"];
        let mut all: Vec<Candidate> = bad.map(candidate).to_vec();
        all.extend((1..=40).map(|port| candidate(&format!("192.0.2.1:{port}"))));
        let Ok(Message::Offer { candidates, .. }) = Message::decode(&offer(all).encode()) else { panic!() };
        assert_eq!(candidates.len(), CANDIDATES);
        assert!(candidates.iter().all(|candidate| candidate.addr.ip().to_string() == "192.0.2.1"));
    }
}
