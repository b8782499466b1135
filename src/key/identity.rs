//! Holds: the secret key of a peer, which shows itself nowhere.

use std::fmt;

use ed25519_dalek::SigningKey;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::PeerId;

/// Bytes of an Ed25519 secret key (RFC 8032 section 5.1.5).
pub(super) const SEED_LEN: usize = 32;

/// The secret key of a peer. Memory that held it is wiped when it is dropped; it never shows in logs.
///
/// Clones are the same peer.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
}

/// The system gave no random bytes: a machine that has just begun, or a sandbox without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes, without which no key can be made")]
pub struct NoRandomness;

/// Random bytes of the system, fit for keys.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

impl Identity {
    /// A peer that has not been there before.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate() -> Result<Self, NoRandomness> {
        let seed = Zeroizing::new(random::<SEED_LEN>()?);
        Ok(Self { key: SigningKey::from_bytes(&seed) })
    }

    /// The identity that these 32 bytes make (the private key of RFC 8032). Whoever knows them is this peer.
    pub fn from_seed(seed: [u8; SEED_LEN]) -> Self {
        let seed = Zeroizing::new(seed);
        Self { key: SigningKey::from_bytes(&seed) }
    }

    /// Who this is, for everybody to know.
    pub fn peer_id(&self) -> PeerId {
        PeerId::of(&self.key.verifying_key())
    }

    pub(super) fn seed(&self) -> Zeroizing<[u8; SEED_LEN]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The same key for X25519 (RFC 7748).
    pub(super) fn scalar(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_scalar_bytes())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity(of {:?})", self.peer_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generated_identity_is_another_and_a_seed_always_the_same() {
        assert_ne!(Identity::generate().unwrap().peer_id(), Identity::generate().unwrap().peer_id());
        assert_eq!(Identity::from_seed([1; 32]).peer_id(), Identity::from_seed([1; 32]).peer_id());
    }

    #[test]
    fn the_first_key_of_rfc_8032_has_its_public_key() {
        let hex =
            |text: &str| -> [u8; 32] { data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap() };
        let identity = Identity::from_seed(hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"));
        let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(identity.peer_id().as_bytes(), &public);
    }

    #[test]
    fn the_secret_does_not_show() {
        let identity = Identity::from_seed([0xAB; 32]);
        let shown = format!("{identity:?} {identity:#?}").to_lowercase();
        assert!(!shown.contains("171") && !shown.contains("abab"), "{shown}");
        assert!(shown.contains(&identity.peer_id().short()));
    }
}
