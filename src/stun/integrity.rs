//! Decides: the keys, and the checksums that close a message: MESSAGE-INTEGRITY, its SHA256 form, FINGERPRINT.

use std::fmt;

use crc::{CRC_32_ISO_HDLC, Crc, Table};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;
use stun_rs::{Algorithm, AlgorithmId, HMACKey};

use super::attribute::HEADER_LEN;

pub(super) const SHA1_LEN: usize = 20;
pub(super) const SHA256_LEN: usize = 32;
pub(super) const FINGERPRINT_LEN: usize = 4;

/// What a FINGERPRINT is XORed with, so that it differs from another CRC-32 in the same packet (RFC 8489 section 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// Sixteen bytes a step: 16 KiB of tables for a checksum on each packet.
static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// How a long-term key is made from the password (RFC 8489 section 18.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PasswordAlgorithm {
    /// MD5, what servers before RFC 8489 know.
    #[default]
    Md5,
    /// SHA-256.
    Sha256,
}

/// A text that the OpaqueString profile of RFC 8265 forbids (control characters, for example). Whoever configured the
/// credentials must change it.
#[derive(Debug, thiserror::Error)]
#[error("a user name, realm or password holds characters that RFC 8265 forbids")]
pub struct KeyError {
    #[source]
    source: stun_rs::StunError,
}

/// An HMAC key. Printing it does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(HMACKey);

impl Key {
    /// The short-term key: the password (RFC 8489 section 9.1.1).
    ///
    /// # Errors
    /// [`KeyError`] if the password may not be one.
    pub fn short_term(password: &str) -> Result<Self, KeyError> {
        HMACKey::new_short_term(password).map(Self).map_err(|source| KeyError { source })
    }

    /// The long-term key: a hash of user name, realm and password (RFC 8489 section 9.2.2).
    ///
    /// # Errors
    /// [`KeyError`] if realm or password may not be used.
    pub fn long_term(
        username: &str,
        realm: &str,
        password: &str,
        algorithm: PasswordAlgorithm,
    ) -> Result<Self, KeyError> {
        let algorithm = match algorithm {
            PasswordAlgorithm::Md5 => AlgorithmId::MD5,
            PasswordAlgorithm::Sha256 => AlgorithmId::SHA256,
        };
        HMACKey::new_long_term(username, realm, password, Algorithm::from(algorithm))
            .map(Self)
            .map_err(|source| KeyError { source })
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The value of MESSAGE-INTEGRITY at `at` in `message`.
pub(super) fn sha1(key: &Key, message: &[u8], at: usize) -> [u8; SHA1_LEN] {
    mac::<Hmac<Sha1>>(key, message, at, SHA1_LEN).finalize().into_bytes().into()
}

/// The value of MESSAGE-INTEGRITY-SHA256 at `at` in `message`.
pub(super) fn sha256(key: &Key, message: &[u8], at: usize) -> [u8; SHA256_LEN] {
    mac::<Hmac<Sha256>>(key, message, at, SHA256_LEN).finalize().into_bytes().into()
}

/// Compares in constant time.
pub(super) fn is_sha1(key: &Key, message: &[u8], at: usize, value: &[u8]) -> bool {
    mac::<Hmac<Sha1>>(key, message, at, SHA1_LEN).verify_slice(value).is_ok()
}

/// Compares in constant time.
pub(super) fn is_sha256(key: &Key, message: &[u8], at: usize, value: &[u8]) -> bool {
    mac::<Hmac<Sha256>>(key, message, at, SHA256_LEN).verify_slice(value).is_ok()
}

/// The value of FINGERPRINT at `at` in `message`.
pub(super) fn fingerprint(message: &[u8], at: usize) -> [u8; FINGERPRINT_LEN] {
    let mut digest = CRC.digest();
    for part in parts(message, at, &length_with(at, FINGERPRINT_LEN)) {
        digest.update(part);
    }
    (digest.finalize() ^ FINGERPRINT_XOR).to_be_bytes()
}

fn mac<M: Mac + hmac::digest::KeyInit>(key: &Key, message: &[u8], at: usize, value_len: usize) -> M {
    // HMAC takes keys of any length, so this fails for none.
    let mut mac = <M as Mac>::new_from_slice(key.bytes()).expect("HMAC takes any key");
    for part in parts(message, at, &length_with(at, value_len)) {
        mac.update(part);
    }
    mac
}

/// The header's length field as if the message ended with the attribute at `at`.
fn length_with(at: usize, value_len: usize) -> [u8; 2] {
    ((at + 4 + value_len - HEADER_LEN) as u16).to_be_bytes()
}

fn parts<'a>(message: &'a [u8], at: usize, length: &'a [u8; 2]) -> [&'a [u8]; 3] {
    [&message[..2], length, &message[4..at]]
}
