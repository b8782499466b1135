//! Decides: how requests and answers are written in a simulated packet: what STUN says, in few bytes.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use crate::nat::probe::Change;

/// A binding request or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Tell me my mapping, answering from there.
    Request {
        /// Transaction id.
        id: [u8; 12],
        /// From where to answer.
        change: Change,
    },
    /// Your mapping.
    Answer {
        /// The request's.
        id: [u8; 12],
        /// Where the request came from.
        mapped: SocketAddr,
        /// The server's second address.
        other: Option<SocketAddr>,
    },
}

const REQUEST: u8 = 1;
const ANSWER: u8 = 2;

impl Message {
    /// The message's bytes.
    pub fn encode(self) -> Bytes {
        let mut out = Vec::with_capacity(56);
        match self {
            Self::Request { id, change } => {
                out.extend([REQUEST, change as u8]);
                out.extend(id);
            }
            Self::Answer { id, mapped, other } => {
                out.extend([ANSWER, u8::from(other.is_some())]);
                out.extend(id);
                write(&mut out, mapped);
                other.into_iter().for_each(|other| write(&mut out, other));
            }
        }
        out.into()
    }

    /// Reads it back; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[kind, flag], rest) = bytes.split_first_chunk::<2>()?;
        let (&id, rest) = rest.split_first_chunk::<12>()?;
        match (kind, flag) {
            (REQUEST, 0) => Some(Self::Request { id, change: Change::None }),
            (REQUEST, 1) => Some(Self::Request { id, change: Change::Port }),
            (REQUEST, 2) => Some(Self::Request { id, change: Change::Both }),
            (ANSWER, 0 | 1) => {
                let (mapped, rest) = read(rest)?;
                let other = if flag == 1 { Some(read(rest)?.0) } else { None };
                Some(Self::Answer { id, mapped, other })
            }
            _ => None,
        }
    }
}

fn write(out: &mut Vec<u8>, address: SocketAddr) {
    out.push(if address.is_ipv4() { 4 } else { 16 });
    match address.ip() {
        IpAddr::V4(v4) => out.extend(v4.octets()),
        IpAddr::V6(v6) => out.extend(v6.octets()),
    }
    out.extend(address.port().to_be_bytes());
}

fn read(bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (ip, rest): (IpAddr, _) = match length {
        4 => rest.split_first_chunk::<4>().map(|(ip, rest)| ((*ip).into(), rest))?,
        16 => rest.split_first_chunk::<16>().map(|(ip, rest)| ((*ip).into(), rest))?,
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}
