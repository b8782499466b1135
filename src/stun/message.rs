//! Decides: what a message says: a view on its bytes that has checked each length and copies nothing.

use std::net::SocketAddr;

use super::address;
use super::attribute::{Change, Class, ErrorCode, HEADER_LEN, MAGIC_COOKIE, TransactionId, kind};
use super::integrity::{self, Key};

/// Why bytes are not a STUN message. The sender is broken or speaks another protocol; drop and count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Fewer bytes than a header.
    #[error("{len} bytes are no STUN message")]
    Short {
        /// How many bytes there were.
        len: usize,
    },
    /// The first two bits are not zero: another protocol (RFC 8489 section 5).
    #[error("first byte {first:#04x} is not STUN's")]
    NotStun {
        /// The first byte.
        first: u8,
    },
    /// The announced length is not what follows, or not whole words.
    #[error("announces {announced} bytes, {present} follow")]
    Length {
        /// What the header says.
        announced: usize,
        /// What follows the header.
        present: usize,
    },
    /// An attribute goes beyond the message's end.
    #[error("attribute {kind:#06x} is {announced} bytes long, {left} are left")]
    Attribute {
        /// Its type.
        kind: u16,
        /// What its header says.
        announced: usize,
        /// What is left of the message.
        left: usize,
    },
}

/// A well-formed STUN message, borrowed: header and attributes of RFC 8489, and of RFC 3489, whose 16-byte ids other
/// parsers refuse. Attributes behind MESSAGE-INTEGRITY and FINGERPRINT are skipped as RFC 8489 section 14 says.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    class: Class,
    method: u16,
}

impl<'a> Message<'a> {
    /// Reads `bytes`, which must be one whole message and nothing more. Allocates nothing.
    ///
    /// # Errors
    /// [`ParseError`] if it is none. FINGERPRINT and integrity are not checked here: see
    /// [`fingerprint`](Self::fingerprint) and [`integrity`](Self::integrity).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(ParseError::Short { len: bytes.len() })?;
        if header[0] & 0xC0 != 0 {
            return Err(ParseError::NotStun { first: header[0] });
        }
        let announced = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if announced != rest.len() || announced % 4 != 0 {
            return Err(ParseError::Length { announced, present: rest.len() });
        }
        check_attributes(rest)?;
        let (class, method) = split_type(u16::from_be_bytes([header[0], header[1]]));
        Ok(Self { bytes, class, method })
    }

    /// Request, indication, success or error.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The method, 12 bits; [`BINDING`](super::BINDING) is 1.
    pub fn method(&self) -> u16 {
        self.method
    }

    /// The header's last sixteen bytes.
    pub fn id(&self) -> TransactionId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.bytes[4..HEADER_LEN]);
        TransactionId(id)
    }

    /// Its attributes in order, without those that stand behind an integrity attribute where they prove nothing.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { bytes: self.bytes, at: HEADER_LEN, rank: 0 }
    }

    /// The value of the first attribute of this type (RFC 8489 section 14: later ones do not count).
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.find(kind).map(|found| found.value)
    }

    /// The same as text; `None` also if it is no UTF-8.
    pub fn text(&self, kind: u16) -> Option<&'a str> {
        self.get(kind).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The address in an attribute that is not XORed; `None` also if the value is no address.
    pub fn address(&self, kind: u16) -> Option<SocketAddr> {
        self.get(kind).and_then(address::read)
    }

    /// The address in an attribute that is XORed, TURN's relayed and peer addresses included.
    pub fn xor_address(&self, kind: u16) -> Option<SocketAddr> {
        self.address(kind).map(|found| address::xor(found, &self.id()))
    }

    /// The sender's address as the server saw it: XOR-MAPPED-ADDRESS under either number, else MAPPED-ADDRESS.
    pub fn mapped(&self) -> Option<SocketAddr> {
        self.xor_address(kind::XOR_MAPPED_ADDRESS)
            .or_else(|| self.xor_address(kind::XOR_MAPPED_ADDRESS_OLD))
            .or_else(|| self.address(kind::MAPPED_ADDRESS))
    }

    /// The server's other address: OTHER-ADDRESS (RFC 5780), else CHANGED-ADDRESS (RFC 3489).
    pub fn other_address(&self) -> Option<SocketAddr> {
        self.address(kind::OTHER_ADDRESS).or_else(|| self.address(kind::CHANGED_ADDRESS))
    }

    /// Where the server says that it answered from: RESPONSE-ORIGIN (RFC 5780), else SOURCE-ADDRESS (RFC 3489).
    pub fn origin(&self) -> Option<SocketAddr> {
        self.address(kind::RESPONSE_ORIGIN).or_else(|| self.address(kind::SOURCE_ADDRESS))
    }

    /// CHANGE-REQUEST; `None` also if its value is not four bytes.
    pub fn change(&self) -> Option<Change> {
        self.get(kind::CHANGE_REQUEST).and_then(Change::from_value)
    }

    /// RESPONSE-PORT (RFC 5780 section 7.5).
    pub fn response_port(&self) -> Option<u16> {
        let port = self.get(kind::RESPONSE_PORT)?.first_chunk::<2>()?;
        Some(u16::from_be_bytes(*port))
    }

    /// ERROR-CODE; `None` also if its code is not between 300 and 699.
    pub fn error(&self) -> Option<ErrorCode<'a>> {
        let (head, reason) = self.get(kind::ERROR_CODE)?.split_first_chunk::<4>()?;
        let (class, number) = (u16::from(head[2] & 7), u16::from(head[3]));
        let known = (3..=6).contains(&class) && number < 100;
        known.then(|| ErrorCode { code: class * 100 + number, reason: String::from_utf8_lossy(reason) })
    }

    /// The types in UNKNOWN-ATTRIBUTES, as the server gave them.
    pub fn unknown_attributes(&self) -> impl Iterator<Item = u16> + use<'a> {
        let value = self.get(kind::UNKNOWN_ATTRIBUTES).unwrap_or_default();
        value.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair))
    }

    /// The comprehension-required types in this message that a Binding message has no use for.
    pub fn not_understood(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.attributes().map(|a| a.kind).filter(|kind| !super::attribute::is_understood(*kind))
    }

    /// Whether FINGERPRINT is right; `None` if there is none (RFC 8489 section 14.7).
    pub fn fingerprint(&self) -> Option<bool> {
        let found = self.find(kind::FINGERPRINT)?;
        Some(found.value == integrity::fingerprint(self.bytes, found.at))
    }

    /// Whether the message was made with `key`: MESSAGE-INTEGRITY-SHA256 if it is there, else MESSAGE-INTEGRITY; `None`
    /// if there is neither (RFC 8489 sections 14.5 and 14.6). Truncated SHA256 values count as wrong.
    pub fn integrity(&self, key: &Key) -> Option<bool> {
        if let Some(found) = self.find(kind::MESSAGE_INTEGRITY_SHA256) {
            return Some(integrity::is_sha256(key, self.bytes, found.at, found.value));
        }
        let found = self.find(kind::MESSAGE_INTEGRITY)?;
        Some(integrity::is_sha1(key, self.bytes, found.at, found.value))
    }

    fn find(&self, kind: u16) -> Option<Attribute<'a>> {
        self.attributes().find(|attribute| attribute.kind == kind)
    }
}

/// Whether a datagram is STUN of RFC 5389 or later, told from what else shares the socket by header alone: two zero
/// bits, the cookie, and a length that is the datagram's.
pub fn is_stun(bytes: &[u8]) -> bool {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else { return false };
    let announced = usize::from(u16::from_be_bytes([header[2], header[3]]));
    header[0] & 0xC0 == 0 && header[4..8] == MAGIC_COOKIE.to_be_bytes() && announced == rest.len()
}

/// One attribute as it stands in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type; the names are in [`kind`].
    pub kind: u16,
    /// Its value without padding.
    pub value: &'a [u8],
    /// Where its header begins in the message.
    at: usize,
}

/// The attributes of a checked message.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
    /// How far the closing sequence MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256, FINGERPRINT has come.
    rank: u8,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        loop {
            let attribute = self.step()?;
            let rank = rank(attribute.kind);
            if self.rank == 0 || rank > self.rank {
                self.rank = rank;
                return Some(attribute);
            }
        }
    }
}

impl<'a> Attributes<'a> {
    fn step(&mut self) -> Option<Attribute<'a>> {
        let at = self.at;
        let (head, rest) = self.bytes.get(at..)?.split_first_chunk::<4>()?;
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        self.at = at + 4 + len.next_multiple_of(4);
        Some(Attribute { kind: u16::from_be_bytes([head[0], head[1]]), value: rest.get(..len)?, at })
    }
}

/// The place in the sequence that may close a message, 0 for all that stand before it.
fn rank(attribute: u16) -> u8 {
    match attribute {
        kind::MESSAGE_INTEGRITY => 1,
        kind::MESSAGE_INTEGRITY_SHA256 => 2,
        kind::FINGERPRINT => 3,
        _ => 0,
    }
}

fn check_attributes(mut rest: &[u8]) -> Result<(), ParseError> {
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let announced = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let outside = ParseError::Attribute { kind, announced, left: after.len() };
        rest = after.get(announced.next_multiple_of(4)..).ok_or(outside)?;
    }
    Ok(())
}

/// The type's class and method, whose bits are mixed (RFC 8489 section 5).
fn split_type(bits: u16) -> (Class, u16) {
    let class = match bits & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    (class, bits & 0x000F | (bits & 0x00E0) >> 1 | (bits & 0x3E00) >> 2)
}

pub(super) fn join_type(class: Class, method: u16) -> u16 {
    let class = match class {
        Class::Request => 0x0000,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    class | method & 0x000F | (method & 0x0070) << 1 | (method & 0x0F80) << 2
}
