//! Holds: a certificate with its key, read from PEM or made on the spot, and what can be wrong with it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What is wrong with certificates, keys or roots.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The text is no PEM, or lacks what was looked for in it.
    #[error("no {what} can be read from {place}: {reason}")]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// Where.
        place: String,
        /// Why it failed.
        reason: String,
    },
    /// The certificate and the key do not fit, or rustls refuses them.
    #[error("certificate or key refused: {0}")]
    Refused(#[from] rustls::Error),
    /// The system has no root certificates that can be read.
    #[error("the system's root certificates cannot be read: {reason}; install ca-certificates or give a root")]
    SystemRoots {
        /// Why it failed.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("a self-signed certificate cannot be made: {reason}")]
    Generate {
        /// Why it failed.
        reason: String,
    },
}

impl From<TlsError> for std::io::Error {
    fn from(error: TlsError) -> Self {
        Self::new(std::io::ErrorKind::InvalidInput, error)
    }
}

/// A certificate chain with its private key. The key never shows in logs.
pub struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A chain and its key from PEM text, the end's own certificate first.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when either can not be read.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| pem("private key", "the text", error))?;
        Ok(Self { chain: certificates(chain, "the text")?, key })
    }

    /// The same from two files.
    ///
    /// # Errors
    /// [`TlsError::Pem`] when either can not be read.
    pub fn from_files(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        let read =
            |what, path: &Path| std::fs::read(path).map_err(|error| pem(what, &path.display().to_string(), error));
        Self::from_pem(&read("certificate", chain)?, &read("private key", key)?)
    }

    /// A certificate that signs itself, for these names or addresses, made on the spot: for tests
    /// and local use. Give [`root_pem`](Self::root_pem) to those who are to trust it.
    ///
    /// # Errors
    /// [`TlsError::Generate`] when a name can not stand in a certificate.
    pub fn self_signed(names: &[&str]) -> Result<Self, TlsError> {
        let names = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let failed = |error: rcgen::Error| TlsError::Generate { reason: error.to_string() };
        let made = rcgen::generate_simple_self_signed(names).map_err(failed)?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
            .map_err(|reason| TlsError::Generate { reason: reason.to_owned() })?;
        Ok(Self { chain: vec![made.cert.der().clone()], key })
    }

    /// The certificate as PEM text, for those who are to trust it.
    pub fn root_pem(&self) -> String {
        let encode = |der: &CertificateDer<'_>| {
            let text = base64(der);
            let lines: Vec<&str> =
                text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
        };
        self.chain.iter().map(encode).collect()
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.chain.len())
    }
}

pub(super) fn certificates(text: &[u8], place: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let certificates = read.map_err(|error| pem("certificate", place, error))?;
    if certificates.is_empty() { Err(pem("certificate", place, "there is none in it")) } else { Ok(certificates) }
}

pub(super) fn roots(text: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text, "the root's text")? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn pem(what: &'static str, place: &str, reason: impl fmt::Display) -> TlsError {
    TlsError::Pem { what, place: place.to_owned(), reason: reason.to_string() }
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) & 63;
            text.push(if place <= group.len() { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    text
}
