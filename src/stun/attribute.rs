//! Holds: the numbers of STUN: attribute types, methods, classes, error codes, and the sizes on the wire.

use std::borrow::Cow;
use std::fmt;

/// Bytes of a message's header (RFC 8489 section 5).
pub const HEADER_LEN: usize = 20;
/// The constant that tells a message of RFC 5389 and later from one of RFC 3489.
pub const MAGIC_COOKIE: u32 = 0x2112_A442;
/// The Binding method (RFC 8489 section 18.2).
pub const BINDING: u16 = 0x0001;
/// The longest message: its header and what 16 bits can announce, in whole words.
pub const MAX_MESSAGE_LEN: usize = HEADER_LEN + 0xFFFC;

/// What a message is: the two class bits of its type (RFC 8489 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Wants a response.
    Request,
    /// Wants none.
    Indication,
    /// What was asked for was done.
    Success,
    /// What was asked for was refused; ERROR-CODE says why.
    Error,
}

/// A 16-byte transaction id, the header's last sixteen bytes: the magic cookie and 12 random bytes in RFC 5389 and
/// later, 16 random bytes in RFC 3489.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(pub(super) [u8; 16]);

impl TransactionId {
    /// An id of RFC 5389 and later. The bytes must come from a cryptographic source (RFC 8489 section 5).
    pub fn modern(random: [u8; 12]) -> Self {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        id[4..].copy_from_slice(&random);
        Self(id)
    }

    /// An id of RFC 3489. Sixteen bytes that would read as a modern id have one bit turned.
    pub fn classic(mut random: [u8; 16]) -> Self {
        if random[..4] == MAGIC_COOKIE.to_be_bytes() {
            random[0] ^= 0x80;
        }
        Self(random)
    }

    /// Whether it is of RFC 3489: no magic cookie.
    pub fn is_classic(&self) -> bool {
        self.0[..4] != MAGIC_COOKIE.to_be_bytes()
    }

    /// The sixteen bytes as on the wire.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// ERROR-CODE: a number from 300 to 699 and words for people (RFC 8489 section 14.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorCode<'a> {
    /// From 300 to 699, for example 401.
    pub code: u16,
    /// What the server says about it; bytes that are no UTF-8 are replaced.
    pub reason: Cow<'a, str>,
}

/// CHANGE-REQUEST: from where the server shall answer (RFC 5780 section 7.2, RFC 3489 section 11.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Change {
    /// From its other IP address.
    pub ip: bool,
    /// From its other port.
    pub port: bool,
}

impl Change {
    pub(super) fn from_value(value: &[u8]) -> Option<Self> {
        let flags = *<&[u8; 4]>::try_from(value).ok()?.last()?;
        Some(Self { ip: flags & 4 != 0, port: flags & 2 != 0 })
    }

    pub(super) fn to_value(self) -> [u8; 4] {
        [0, 0, 0, u8::from(self.ip) << 2 | u8::from(self.port) << 1]
    }

    /// Whether it asks for an answer from another place than the one that was asked.
    pub fn is_any(self) -> bool {
        self.ip || self.port
    }
}

/// Attribute types by their RFC names. Below [`OPTIONAL`](kind::OPTIONAL) a receiver must know a type to accept the message.
pub mod kind {
    /// RFC 8489 section 14.1; the only address that an RFC 3489 client reads.
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    /// RFC 3489 section 11.2.2. Reserved today; refused, since it makes a server a reflector.
    pub const RESPONSE_ADDRESS: u16 = 0x0002;
    /// RFC 5780 section 7.2.
    pub const CHANGE_REQUEST: u16 = 0x0003;
    /// RFC 3489 section 11.2.5: where the answer was sent from.
    pub const SOURCE_ADDRESS: u16 = 0x0004;
    /// RFC 3489 section 11.2.3: where answers come from when IP address and port are changed.
    pub const CHANGED_ADDRESS: u16 = 0x0005;
    /// RFC 8489 section 14.3.
    pub const USERNAME: u16 = 0x0006;
    /// RFC 8489 section 14.5: HMAC-SHA1.
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    /// RFC 8489 section 14.8.
    pub const ERROR_CODE: u16 = 0x0009;
    /// RFC 8489 section 14.13.
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    /// RFC 8489 section 14.9.
    pub const REALM: u16 = 0x0014;
    /// RFC 8489 section 14.10.
    pub const NONCE: u16 = 0x0015;
    /// RFC 8489 section 14.6: HMAC-SHA256.
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    /// RFC 8489 section 14.12.
    pub const PASSWORD_ALGORITHM: u16 = 0x001D;
    /// RFC 8489 section 14.4.
    pub const USERHASH: u16 = 0x001E;
    /// RFC 8489 section 14.2.
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// RFC 8445 section 16.1.
    pub const PRIORITY: u16 = 0x0024;
    /// RFC 8445 section 16.1.
    pub const USE_CANDIDATE: u16 = 0x0025;
    /// RFC 5780 section 7.6.
    pub const PADDING: u16 = 0x0026;
    /// RFC 5780 section 7.5.
    pub const RESPONSE_PORT: u16 = 0x0027;
    /// From here on a receiver that does not know a type skips it.
    pub const OPTIONAL: u16 = 0x8000;
    /// RFC 8489 section 14.11.
    pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
    /// XOR-MAPPED-ADDRESS under the number that drafts before RFC 5389 gave it; some servers still do.
    pub const XOR_MAPPED_ADDRESS_OLD: u16 = 0x8020;
    /// RFC 8489 section 14.14.
    pub const SOFTWARE: u16 = 0x8022;
    /// RFC 8489 section 14.15.
    pub const ALTERNATE_SERVER: u16 = 0x8023;
    /// RFC 8489 section 14.7.
    pub const FINGERPRINT: u16 = 0x8028;
    /// RFC 8445 section 16.1.
    pub const ICE_CONTROLLED: u16 = 0x8029;
    /// RFC 8445 section 16.1.
    pub const ICE_CONTROLLING: u16 = 0x802A;
    /// RFC 5780 section 7.3: where the answer was sent from.
    pub const RESPONSE_ORIGIN: u16 = 0x802B;
    /// RFC 5780 section 7.4: where answers come from when IP address and port are changed.
    pub const OTHER_ADDRESS: u16 = 0x802C;
}

/// Whether a Binding message may carry `attribute`: it is known here, or may be skipped (RFC 8489 section 6.3).
pub(super) fn is_understood(attribute: u16) -> bool {
    use kind::*;
    attribute >= OPTIONAL
        || matches!(
            attribute,
            MAPPED_ADDRESS
                | CHANGE_REQUEST
                | SOURCE_ADDRESS
                | CHANGED_ADDRESS
                | USERNAME
                | MESSAGE_INTEGRITY
                | ERROR_CODE
                | UNKNOWN_ATTRIBUTES
                | REALM
                | NONCE
                | MESSAGE_INTEGRITY_SHA256
                | PASSWORD_ALGORITHM
                | USERHASH
                | XOR_MAPPED_ADDRESS
                | PRIORITY
                | USE_CANDIDATE
                | PADDING
                | RESPONSE_PORT
        )
}
