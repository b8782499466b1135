//! Decides: the first bytes on an authenticated path: what it is for.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::PathKind;
use super::offer::Offer;
use super::session::SessionId;
use crate::key::{Secret, TicketAddress};

const VERSION: u8 = 1;

/// Bytes of a greeting.
pub(super) const LEN: usize = 2 + 16 + 1 + 16;

/// The caller's first word on every path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) kind: PathKind,
    pub(super) session: SessionId,
    /// Of a one-time ticket.
    pub(super) secret: Option<Secret>,
}

/// The first bytes are no greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's first word can not be understood: it may be of another version")]
pub(super) struct NoGreeting;

impl Greeting {
    pub(super) fn to_bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..2].copy_from_slice(&[VERSION, self.kind.to_byte()]);
        bytes[2..18].copy_from_slice(&self.session.0);
        if let Some(secret) = &self.secret {
            bytes[18] = 1;
            bytes[19..].copy_from_slice(secret.as_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; LEN]) -> Result<Self, NoGreeting> {
        let (&[version, kind], rest) = bytes.split_first_chunk::<2>().ok_or(NoGreeting)?;
        let (session, rest) = rest.split_first_chunk::<16>().ok_or(NoGreeting)?;
        let (&[has], secret) = rest.split_first_chunk::<1>().ok_or(NoGreeting)?;
        let secret = <[u8; 16]>::try_from(secret).map_err(|_| NoGreeting)?;
        let kind = PathKind::from_byte(kind).filter(|_| version == VERSION && has <= 1).ok_or(NoGreeting)?;
        Ok(Self { kind, session: SessionId(*session), secret: (has == 1).then(|| Secret::from_bytes(secret)) })
    }
}

/// What a conversation over the rendezvous is about, in its first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    /// The first word: what the caller wants. Where that is a relayed stream, `hello` is what TLS says first in it, so that no
    /// round trip is spent on asking for the stream. The caller's own addresses follow, for the answerer to connect to.
    Meet { greeting: Greeting, hello: Bytes, addresses: Vec<SocketAddr> },
    /// A hole is to be punched for it, over this protocol; the rest of the conversation is the punch's.
    Punch { session: SessionId, tcp: bool },
    /// They are to meet at a TURN server; what the caller has for it. The rest of the conversation is about that.
    Turn { session: SessionId, offer: Offer },
    /// The answerer's answer to [`Meet`](Self::Meet), now and whenever there are more: where it is reached beside what the ticket
    /// says.
    Here { addresses: Vec<TicketAddress> },
    /// The answerer's first word to who has called it: its network is another one, and it is reached there. `left` where it is on
    /// none of the session's paths any more; `number` is higher in each of these words than in the one before.
    Moved { session: SessionId, number: u64, left: bool, addresses: Vec<TicketAddress> },
}

/// Addresses that are taken of a caller; more would make us knock at many doors.
const ADDRESSES: usize = 8;

/// The longest first flight of TLS that is taken: ours has some 250 bytes.
const HELLO: usize = 4096;

/// Flags of an address of [`Topic::Here`], beside its family.
const UDP: u8 = 0x10;
const TCP: u8 = 0x20;

impl Topic {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Meet { greeting, hello, addresses } => {
                let mut bytes = vec![1];
                bytes.extend_from_slice(&greeting.to_bytes());
                let len = u16::try_from(hello.len()).ok().filter(|len| usize::from(*len) <= HELLO).unwrap_or(0);
                bytes.extend_from_slice(&len.to_be_bytes());
                bytes.extend_from_slice(&hello[..len.into()]);
                addresses.iter().take(ADDRESSES).for_each(|address| write_address(&mut bytes, 0, *address));
                bytes
            }
            Self::Punch { session, tcp } => [&[2, u8::from(*tcp)][..], &session.0].concat(),
            Self::Turn { session, offer } => [&[3][..], &session.0, &offer.to_bytes()].concat(),
            Self::Here { addresses } => {
                let mut bytes = vec![4];
                write_ours(&mut bytes, addresses);
                bytes
            }
            Self::Moved { session, number, left, addresses } => {
                let mut bytes = [&[5, u8::from(*left)][..], &session.0, &number.to_be_bytes()].concat();
                write_ours(&mut bytes, addresses);
                bytes
            }
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, NoGreeting> {
        match bytes.split_first().ok_or(NoGreeting)? {
            (1, rest) => {
                let (greeting, rest) = rest.split_first_chunk::<LEN>().ok_or(NoGreeting)?;
                let (len, rest) = rest.split_first_chunk::<2>().ok_or(NoGreeting)?;
                let len = usize::from(u16::from_be_bytes(*len));
                let (hello, rest) = rest.split_at_checked(len).filter(|_| len <= HELLO).ok_or(NoGreeting)?;
                let addresses = addresses(rest)?.into_iter().map(|(_, address)| address).collect();
                let greeting = Greeting::from_bytes(greeting)?;
                Ok(Self::Meet { greeting, hello: Bytes::copy_from_slice(hello), addresses })
            }
            (2, [tcp @ (0 | 1), session @ ..]) => {
                let session = <[u8; 16]>::try_from(session).map_err(|_| NoGreeting)?;
                Ok(Self::Punch { session: SessionId(session), tcp: *tcp == 1 })
            }
            (3, rest) => {
                let (session, offer) = rest.split_first_chunk::<16>().ok_or(NoGreeting)?;
                let offer = Offer::from_bytes(offer).map_err(|_| NoGreeting)?;
                Ok(Self::Turn { session: SessionId(*session), offer })
            }
            (4, rest) => Ok(Self::Here { addresses: theirs(rest)? }),
            (5, [left @ (0 | 1), rest @ ..]) => {
                let (session, rest) = rest.split_first_chunk::<16>().ok_or(NoGreeting)?;
                let (number, rest) = rest.split_first_chunk::<8>().ok_or(NoGreeting)?;
                Ok(Self::Moved {
                    session: SessionId(*session),
                    number: u64::from_be_bytes(*number),
                    left: *left == 1,
                    addresses: theirs(rest)?,
                })
            }
            _ => Err(NoGreeting),
        }
    }
}

fn write_ours(to: &mut Vec<u8>, addresses: &[TicketAddress]) {
    for address in addresses.iter().take(ADDRESSES) {
        let flags = if address.udp { UDP } else { 0 } | if address.tcp { TCP } else { 0 };
        write_address(to, flags, address.addr);
    }
}

fn theirs(bytes: &[u8]) -> Result<Vec<TicketAddress>, NoGreeting> {
    let of = |(flags, addr): (u8, SocketAddr)| TicketAddress { addr, udp: flags & UDP > 0, tcp: flags & TCP > 0 };
    Ok(addresses(bytes)?.into_iter().map(of).collect())
}

fn write_address(to: &mut Vec<u8>, flags: u8, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            to.push(4 | flags);
            to.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            to.push(6 | flags);
            to.extend_from_slice(&ip.octets());
        }
    }
    to.extend_from_slice(&address.port().to_be_bytes());
}

/// The first few, with their flags; all have to be well formed.
fn addresses(mut bytes: &[u8]) -> Result<Vec<(u8, SocketAddr)>, NoGreeting> {
    let mut taken = Vec::new();
    while !bytes.is_empty() {
        let (address, after) = address(bytes).ok_or(NoGreeting)?;
        bytes = after;
        if taken.len() < ADDRESSES {
            taken.push(address);
        }
    }
    Ok(taken)
}

fn address(bytes: &[u8]) -> Option<((u8, SocketAddr), &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (ip, rest): (IpAddr, &[u8]) = match first & 0x0F {
        4 => rest.split_first_chunk::<4>().map(|(ip, rest)| ((*ip).into(), rest))?,
        6 => rest.split_first_chunk::<16>().map(|(ip, rest)| ((*ip).into(), rest))?,
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some(((first & 0xF0, (ip, u16::from_be_bytes(*port)).into()), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(secret: Option<Secret>) -> Greeting {
        Greeting { kind: PathKind::UdpPunch, session: SessionId([7; 16]), secret }
    }

    #[test]
    fn a_greeting_is_read_as_it_was_written() {
        for greeting in [greeting(None), greeting(Some(Secret::from_bytes([9; 16])))] {
            assert_eq!(Greeting::from_bytes(&greeting.to_bytes()), Ok(greeting));
        }
        let mut newer = greeting(None).to_bytes();
        newer[0] = VERSION + 1;
        assert_eq!(Greeting::from_bytes(&newer), Err(NoGreeting));
    }

    #[test]
    fn topics_are_read_as_they_were_written_and_nothing_else_is() {
        let addresses = vec!["192.0.2.1:5".parse().unwrap(), "[2001:db8::1]:6".parse().unwrap()];
        let hello = Bytes::from_static(b"client hello");
        let meet = Topic::Meet { greeting: greeting(None), hello, addresses };
        let here = |port, udp, tcp| TicketAddress { addr: ([192, 0, 2, 9], port).into(), udp, tcp };
        let addresses = vec![here(7, true, false), here(8, false, true)];
        let moved =
            Topic::Moved { session: SessionId([4; 16]), number: 1 << 40, left: true, addresses: addresses.clone() };
        let here = Topic::Here { addresses };
        let offer = Offer { relayed: Some("198.51.100.1:9".parse().unwrap()), ..Offer::default() };
        let turn = Topic::Turn { session: SessionId([3; 16]), offer };
        for topic in [meet.clone(), Topic::Punch { session: SessionId([3; 16]), tcp: true }, turn, here, moved] {
            let bytes = topic.to_bytes();
            assert_eq!(Topic::from_bytes(&bytes), Ok(topic));
            assert_eq!(Topic::from_bytes(&[&bytes[..], &[0]].concat()), Err(NoGreeting));
        }
        let whole = meet.to_bytes();
        let cut = (0..whole.len()).filter(|len| Topic::from_bytes(&whole[..*len]).is_ok()).count();
        assert_eq!(cut, 2, "without addresses, or with the first alone");
    }

    #[test]
    fn of_many_addresses_a_few_are_taken() {
        let addresses = (1..=40).map(|port| ([192, 0, 2, 1], port).into()).collect::<Vec<SocketAddr>>();
        let mut bytes = Topic::Meet { greeting: greeting(None), hello: Bytes::new(), addresses: vec![] }.to_bytes();
        for address in &addresses {
            bytes.extend([4, 192, 0, 2, 1]);
            bytes.extend(address.port().to_be_bytes());
        }
        let Ok(Topic::Meet { addresses, .. }) = Topic::from_bytes(&bytes) else { panic!() };
        assert_eq!(addresses.len(), ADDRESSES);
    }

    #[test]
    fn a_first_flight_that_is_longer_than_any_is_not_taken() {
        let mut bytes = vec![1];
        bytes.extend(greeting(None).to_bytes());
        bytes.extend(5000_u16.to_be_bytes());
        bytes.extend([0; 5000]);
        assert_eq!(Topic::from_bytes(&bytes), Err(NoGreeting));
    }
}
