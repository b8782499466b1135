//! Holds: who a smart socket is: 16 bytes that it keeps over all of its connections.

use std::fmt;
use std::str::FromStr;

/// The name of a socket, not of a connection: it is kept over reconnects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity([u8; 16]);

impl Identity {
    /// A new one that nobody else has: a random UUID (RFC 9562 section 5.4).
    pub fn random() -> Self {
        let mut bytes: [u8; 16] = rand::random();
        bytes[6] = bytes[6] & 0x0F | 0x40;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        Self(bytes)
    }

    /// The bytes as they stand in HELLO.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<[u8; 16]> for Identity {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

/// The text is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an identity is 32 hexadecimal digits (dashes may stand between them), not `{text}`")]
pub struct NotAnIdentity {
    text: String,
}

impl FromStr for Identity {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        let wrong = || NotAnIdentity { text: text.to_owned() };
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(wrong());
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_as_it_is_written_with_dashes_or_without() {
        let identity = Identity::random();
        assert_eq!(identity.to_string().parse(), Ok(identity));
        let dashed: Identity = "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap();
        assert_eq!(dashed.to_string(), "00112233445566778899aabbccddeeff");
        for wrong in ["", "0011", "00112233445566778899aabbccddeefg", "é0112233445566778899aabbccddee"] {
            assert!(wrong.parse::<Identity>().is_err(), "{wrong}");
        }
    }
}
