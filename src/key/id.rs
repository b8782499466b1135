//! Decides: who a peer is: its public key, as text and back.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD_NOCASE, Encoding};
use ed25519_dalek::VerifyingKey;

/// Bytes of an Ed25519 public key (RFC 8032 section 5.1.5).
pub(crate) const LEN: usize = 32;

/// Characters of the short form: 40 bits, enough for people to tell their peers apart, too few to trust.
const SHORT: usize = 8;

/// A peer: its Ed25519 public key. Who can sign with the secret key is this peer, wherever it is.
///
/// As text it is 52 letters and digits (base32, RFC 4648 section 6, in lower case), read in either case.
///
/// ```
/// use natpipe::{Identity, PeerId};
///
/// let peer = Identity::generate()?.peer_id();
/// assert_eq!(peer.to_string().parse::<PeerId>()?, peer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId([u8; LEN]);

/// Why a text or bytes are no peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIdError {
    /// The text has another length than 52 characters: it was cut, or is something else.
    #[error("a peer is 52 letters and digits, this is {0} long")]
    Length(usize),
    /// A character that can not occur.
    #[error("a peer has no such character as the one at place {0}")]
    Character(usize),
    /// The bytes are no key that anybody could hold: something was changed.
    #[error("this is no valid key; was it changed on the way?")]
    Key,
}

impl PeerId {
    /// A peer from the bytes of its key.
    ///
    /// # Errors
    /// [`PeerIdError::Key`] when they are no point of the curve, or not in its one shortest form (RFC 8032
    /// section 5.1.3), or a point of small order, for which anybody could sign.
    pub fn from_bytes(bytes: [u8; LEN]) -> Result<Self, PeerIdError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| PeerIdError::Key)?;
        let other_form = key.to_edwards().compress().to_bytes() != bytes;
        if other_form || key.is_weak() { Err(PeerIdError::Key) } else { Ok(Self(bytes)) }
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }

    /// The first letters, for people. Others may have the same: never compare these.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(SHORT);
        text
    }

    /// Takes the key of an identity, which is valid.
    pub(super) fn of(key: &VerifyingKey) -> Self {
        Self(key.to_bytes())
    }

    /// The same key for X25519 (RFC 7748).
    pub(super) fn montgomery(&self) -> Option<[u8; LEN]> {
        Some(VerifyingKey::from_bytes(&self.0).ok()?.to_montgomery().to_bytes())
    }
}

/// The alphabet of peers and tickets: read in either case, written in lower case.
pub(super) fn alphabet() -> Encoding {
    BASE32_NOPAD_NOCASE
}

/// Bytes as text in that alphabet.
pub(super) fn encode(bytes: &[u8]) -> String {
    alphabet().encode(bytes).to_ascii_lowercase()
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        let length = alphabet().encode_len(LEN);
        if text.len() != length {
            return Err(PeerIdError::Length(text.chars().count()));
        }
        let bytes = alphabet().decode(text.as_bytes()).map_err(|error| PeerIdError::Character(error.position + 1))?;
        Self::from_bytes(bytes.try_into().map_err(|_| PeerIdError::Key)?)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&encode(&self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Identity;

    #[test]
    fn a_peer_is_read_in_either_case_and_shown_in_lower_case() {
        let peer = Identity::from_seed([7; 32]).peer_id();
        let text = peer.to_string();
        assert_eq!(text.len(), 52);
        assert_eq!(text, text.to_lowercase());
        assert_eq!(text.parse(), Ok(peer));
        assert_eq!(text.to_uppercase().parse(), Ok(peer));
        assert!(text.starts_with(&peer.short()));
    }

    #[test]
    fn what_is_no_peer_says_why() {
        let text = Identity::from_seed([7; 32]).peer_id().to_string();
        assert_eq!(text[..51].parse::<PeerId>(), Err(PeerIdError::Length(51)));
        assert_eq!(text.replacen(&text[3..4], "!", 1).len(), 52);
        let mut changed = text.clone();
        changed.replace_range(3..4, "!");
        assert_eq!(changed.parse::<PeerId>(), Err(PeerIdError::Character(4)));
        assert_eq!("".parse::<PeerId>(), Err(PeerIdError::Length(0)));
    }

    #[test]
    fn keys_for_which_anybody_can_sign_are_refused() {
        let neutral: [u8; 32] = std::array::from_fn(|at| u8::from(at == 0));
        assert_eq!(PeerId::from_bytes(neutral), Err(PeerIdError::Key));
        assert_eq!(PeerId::from_bytes([0xFF; 32]), Err(PeerIdError::Key), "a second form of another key");
        let refused = (0..=255u8).filter(|n| PeerId::from_bytes([*n; 32]).is_err()).count();
        assert!(refused > 64, "about half of all bytes are no point of the curve, {refused} of 256 were refused");
    }
}
