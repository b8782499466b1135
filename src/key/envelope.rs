//! Decides: envelopes: what hides from everybody but the addressee who has written a sealed message.
//!
//! A server knows from whom a message came; a broker's users would have to be told. So the message travels in an envelope:
//! version (1), a fresh X25519 key (32), then the writer's key (32) and the message, encrypted (ChaCha20-Poly1305) under a key that
//! HKDF-SHA256 makes of the Diffie-Hellman result between the fresh key and the addressee's identity. It proves nothing: anybody can
//! write any name in it, and only the sealed message itself tells whether that is true.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};

use super::seal::{self, Ephemeral, SealError, dh, nonce, point};
use super::{Identity, PeerId};

const VERSION: u8 = 1;
const SALT: &[u8] = b"natpipe envelope, version 1";
const HEAD: usize = 1 + 32;
const TAG: usize = 16;

/// Bytes that an envelope adds.
pub const OVERHEAD: usize = HEAD + 32 + TAG;
/// The longest envelope.
pub const MAX_LEN: usize = OVERHEAD + seal::OVERHEAD + seal::MAX_TEXT;

/// Puts a sealed message into an envelope.
///
/// # Errors
/// [`SealError::Forged`] when `to` is no key of a peer, [`SealError::TooLong`].
pub fn close(from: PeerId, to: PeerId, sealed: &[u8], fresh: &Ephemeral) -> Result<Vec<u8>, SealError> {
    if sealed.len() > MAX_LEN - OVERHEAD {
        return Err(SealError::TooLong(sealed.len()));
    }
    let public = fresh.public();
    let key = key(&*dh(fresh.secret(), &point(to)?)?, &public, to)?;
    let mut envelope = Vec::with_capacity(OVERHEAD + sealed.len());
    envelope.push(VERSION);
    envelope.extend_from_slice(&public);
    envelope.extend_from_slice(from.as_bytes());
    envelope.extend_from_slice(sealed);
    // A fresh key encrypts once.
    let tag = key.seal_in_place_separate_tag(nonce(0), Aad::from([VERSION]), &mut envelope[HEAD..]);
    envelope.extend_from_slice(tag.map_err(|_| SealError::TooLong(sealed.len()))?.as_ref());
    Ok(envelope)
}

/// The writer's name, which is not proved, and the sealed message.
///
/// # Errors
/// [`SealError::Format`], [`SealError::Version`], and [`SealError::Forged`] when it is for somebody else or was changed.
pub fn open(identity: &Identity, envelope: &[u8]) -> Result<([u8; 32], Vec<u8>), SealError> {
    let (version, rest) = envelope.split_first().ok_or(SealError::Format)?;
    if *version != VERSION {
        return Err(SealError::Version(*version));
    }
    if envelope.len() < OVERHEAD + seal::OVERHEAD || envelope.len() > MAX_LEN {
        return Err(SealError::Format);
    }
    let (public, rest) = rest.split_first_chunk::<32>().ok_or(SealError::Format)?;
    let key = key(&*dh(&identity.scalar(), public)?, public, identity.peer_id())?;
    let mut content = rest.to_vec();
    let opened = key.open_in_place(nonce(0), Aad::from([VERSION]), &mut content).map_err(|_| SealError::Forged)?;
    let (from, sealed) = opened.split_first_chunk::<32>().ok_or(SealError::Format)?;
    Ok((*from, sealed.to_vec()))
}

fn key(shared: &[u8; 32], public: &[u8; 32], to: PeerId) -> Result<LessSafeKey, SealError> {
    let secret = Salt::new(HKDF_SHA256, SALT).extract(shared);
    let info: [&[u8]; 2] = [public, to.as_bytes()];
    let okm = secret.expand(&info, &CHACHA20_POLY1305).map_err(|_| SealError::Forged)?;
    Ok(LessSafeKey::new(UnboundKey::from(okm)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> (Identity, Identity) {
        (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]))
    }

    #[test]
    fn only_the_addressee_opens_it_and_two_of_the_same_differ() {
        let (ann, bob) = peers();
        let sealed = vec![7; seal::OVERHEAD + 5];
        let close = || close(ann.peer_id(), bob.peer_id(), &sealed, &Ephemeral::random().unwrap()).unwrap();
        let (one, other) = (close(), close());
        assert_eq!(open(&bob, &one), Ok((*ann.peer_id().as_bytes(), sealed.clone())));
        assert_eq!(open(&ann, &one), Err(SealError::Forged));
        assert!(
            one.iter().zip(&other).filter(|(a, b)| a == b).count() < one.len() / 4,
            "nothing tells them to be alike"
        );
        let shown = |part: &[u8]| one.windows(part.len()).any(|window| window == part);
        assert!(!shown(ann.peer_id().as_bytes()) && !shown(bob.peer_id().as_bytes()));
    }

    #[test]
    fn what_was_changed_or_cut_is_refused() {
        let (ann, bob) = peers();
        let whole = close(ann.peer_id(), bob.peer_id(), &[7; seal::OVERHEAD], &Ephemeral::random().unwrap()).unwrap();
        for len in 0..whole.len() {
            assert!(open(&bob, &whole[..len]).is_err(), "{len}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(open(&bob, &changed).is_err(), "{at}");
        }
        assert_eq!(open(&bob, &vec![VERSION; MAX_LEN + 1]), Err(SealError::Format));
        // A point of small order: its author knows the result without any key.
        let mut small = whole;
        small[1..33].fill(0);
        assert_eq!(open(&bob, &small), Err(SealError::Forged));
    }
}
