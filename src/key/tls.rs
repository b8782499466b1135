//! Decides: TLS 1.3 between ends that know each other by their keys: no names, no authorities, no certificates.
//!
//! Each end shows its bare public key (RFC 7250) and proves that it holds the secret one. A client names the one
//! peer that it wants; a server says whom it lets in. The same configurations serve QUIC. Nothing is
//! resumed: each connection proves both keys anew.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use zeroize::Zeroizing;

use super::file::PKCS8;
use super::{Identity, PeerId};

/// An Ed25519 public key as SubjectPublicKeyInfo (RFC 8410 section 4) up to the key itself.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// The name that both ends put where TLS libraries ask for a server's name. It is not sent over TCP, says
/// nothing and is not verified: the key is.
pub const SERVER_NAME: &str = "natpipe.invalid";

/// [`SERVER_NAME`] as rustls wants it.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).unwrap_or(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
}

/// Whom a server lets in.
#[derive(Clone)]
pub struct Allowed(Rule);

#[derive(Clone)]
enum Rule {
    Anyone,
    Only(Arc<HashSet<PeerId>>),
    By(Arc<dyn Fn(PeerId) -> bool + Send + Sync>),
}

impl Allowed {
    /// Everybody who proves a key, whichever it is.
    pub fn anyone() -> Self {
        Self(Rule::Anyone)
    }

    /// These peers.
    pub fn only(peers: impl IntoIterator<Item = PeerId>) -> Self {
        Self(Rule::Only(Arc::new(peers.into_iter().collect())))
    }

    /// Those for whom `rule` says so, asked at each handshake. It must not block.
    pub fn by(rule: impl Fn(PeerId) -> bool + Send + Sync + 'static) -> Self {
        Self(Rule::By(Arc::new(rule)))
    }

    /// Whether this peer is let in.
    pub fn lets_in(&self, peer: PeerId) -> bool {
        match &self.0 {
            Rule::Anyone => true,
            Rule::Only(peers) => peers.contains(&peer),
            Rule::By(rule) => rule(peer),
        }
    }
}

impl fmt::Debug for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::Anyone => f.write_str("Allowed(anyone)"),
            Rule::Only(peers) => write!(f, "Allowed({} peers)", peers.len()),
            Rule::By(_) => f.write_str("Allowed(by a rule)"),
        }
    }
}

/// Connects as `identity` to exactly `expected`, offering the protocols `alpn` (RFC 7301). The handshake fails
/// with anybody else. For the server's name give [`server_name`].
///
/// # Errors
/// When rustls refuses the key.
pub fn client_config(identity: &Identity, expected: PeerId, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, Error> {
    let provider = provider();
    let verifier = Arc::new(Verifier { allowed: Allowed::only([expected]), algorithms: algorithms(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(identity)?)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// Accepts as `identity` those whom `allowed` lets in, who all prove their keys; [`peer_of`] tells who it
/// was. Protocols as for [`client_config`].
///
/// # Errors
/// When rustls refuses the key.
pub fn server_config(identity: &Identity, allowed: Allowed, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, Error> {
    let provider = provider();
    let verifier = Arc::new(Verifier { allowed, algorithms: algorithms(&provider) });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(identity)?)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Who the other end of a finished handshake is, from what `peer_certificates()` of rustls gives, or
/// `peer_identity()` of quinn. `None` before the handshake has ended, or with other configurations.
pub fn peer_of(certificates: Option<&[CertificateDer<'_>]>) -> Option<PeerId> {
    match certificates? {
        [key] => read_spki(key),
        _ => None,
    }
}

fn read_spki(spki: &[u8]) -> Option<PeerId> {
    PeerId::from_bytes(spki.strip_prefix(&SPKI)?.try_into().ok()?).ok()
}

fn spki(peer: PeerId) -> Vec<u8> {
    [&SPKI[..], peer.as_bytes()].concat()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn algorithms(provider: &CryptoProvider) -> WebPkiSupportedAlgorithms {
    provider.signature_verification_algorithms
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, Error> {
    let pkcs8 = Zeroizing::new([&PKCS8[..], &identity.seed()[..]].concat());
    let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))?;
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki(identity.peer_id()))], key)))
}

/// Verifies either end: a bare Ed25519 key of somebody who is let in.
#[derive(Debug)]
struct Verifier {
    allowed: Allowed,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn check(&self, key: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let peer = read_spki(key).filter(|_| chain.is_empty()).ok_or(CertificateError::BadEncoding)?;
        if self.allowed.lets_in(peer) { Ok(()) } else { Err(CertificateError::ApplicationVerificationFailure.into()) }
    }

    fn signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

/// TLS 1.2 is not offered, so rustls does not ask.
fn only_tls13() -> Error {
    Error::General("bare keys are for TLS 1.3".to_owned())
}

/// What rustls asks of both verifiers in the same words.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(only_tls13())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            key: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.signature(message, key, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(key, chain).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(key, chain).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{ClientConnection, ServerConnection};

    fn peer(n: u8) -> Identity {
        Identity::from_seed([n; 32])
    }

    /// Both ends in memory until the handshake has ended, or the first error of either.
    fn shake(
        client: Arc<ClientConfig>,
        server: Arc<ServerConfig>,
    ) -> Result<(ClientConnection, ServerConnection), Error> {
        let mut client = ClientConnection::new(client, server_name())?;
        let mut server = ServerConnection::new(server)?;
        for _ in 0..10 {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut input = &bytes[..];
            while !input.is_empty() {
                server.read_tls(&mut input).unwrap();
                server.process_new_packets()?;
            }
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut input = &bytes[..];
            while !input.is_empty() {
                client.read_tls(&mut input).unwrap();
                client.process_new_packets()?;
            }
            if !client.is_handshaking() && !server.is_handshaking() && !client.wants_write() {
                return Ok((client, server));
            }
        }
        panic!("the handshake does not end");
    }

    #[test]
    fn both_ends_learn_who_the_other_is() {
        let client = client_config(&peer(1), peer(2).peer_id(), &[b"natpipe/1"]).unwrap();
        let server = server_config(&peer(2), Allowed::anyone(), &[b"natpipe/1"]).unwrap();
        let (client, server) = shake(client, server).unwrap();
        assert_eq!(peer_of(client.peer_certificates()), Some(peer(2).peer_id()));
        assert_eq!(peer_of(server.peer_certificates()), Some(peer(1).peer_id()));
        assert_eq!(client.alpn_protocol(), Some(&b"natpipe/1"[..]));
        assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }

    #[test]
    fn a_server_with_another_key_is_refused() {
        let client = client_config(&peer(1), peer(2).peer_id(), &[]).unwrap();
        let server = server_config(&peer(3), Allowed::anyone(), &[]).unwrap();
        let refused = shake(client, server).unwrap_err();
        assert_eq!(refused, Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
    }

    #[test]
    fn a_client_who_is_not_allowed_is_refused() {
        let client = || client_config(&peer(1), peer(2).peer_id(), &[]).unwrap();
        let serving = |allowed| server_config(&peer(2), allowed, &[]).unwrap();
        assert!(shake(client(), serving(Allowed::only([peer(1).peer_id()]))).is_ok());
        assert!(shake(client(), serving(Allowed::only([peer(4).peer_id()]))).is_err());
        assert!(shake(client(), serving(Allowed::by(|_| false))).is_err());
    }

    #[test]
    fn who_shows_a_key_without_holding_it_is_refused() {
        // The server shows the key of peer 2 and signs with that of peer 3.
        let showing = CertifiedKey::new(
            vec![CertificateDer::from(spki(peer(2).peer_id()))],
            certified(&peer(3)).unwrap().key.clone(),
        );
        let server = server_config(&peer(2), Allowed::anyone(), &[]).unwrap();
        let mut lying = (*server).clone();
        lying.cert_resolver = Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(showing)));
        let client = client_config(&peer(1), peer(2).peer_id(), &[]).unwrap();
        let refused = shake(client, Arc::new(lying)).unwrap_err();
        assert_eq!(refused, Error::InvalidCertificate(CertificateError::BadSignature));
    }

    #[test]
    fn a_client_without_a_key_is_refused() {
        let server = server_config(&peer(2), Allowed::anyone(), &[]).unwrap();
        let client = client_config(&peer(1), peer(2).peer_id(), &[]).unwrap();
        let mut bare = (*client).clone();
        bare.client_auth_cert_resolver = Arc::new(Nobody);
        assert!(shake(Arc::new(bare), server).is_err());
    }

    #[derive(Debug)]
    struct Nobody;

    impl rustls::client::ResolvesClientCert for Nobody {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            None
        }

        fn has_certs(&self) -> bool {
            false
        }
    }

    #[test]
    fn what_is_no_bare_ed25519_key_names_nobody() {
        assert_eq!(peer_of(None), None);
        let key = CertificateDer::from(spki(peer(1).peer_id()));
        assert_eq!(peer_of(Some(std::slice::from_ref(&key))), Some(peer(1).peer_id()));
        assert_eq!(peer_of(Some(&[key.clone(), key])), None);
        assert_eq!(peer_of(Some(&[CertificateDer::from(vec![0x30; 44])])), None);
    }
}
