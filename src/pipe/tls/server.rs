//! Waits: a pipe's end as a TLS server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::identity::{self, Identity, TlsError};
use crate::pipe::Addr;
use crate::pipe::core::{Held, held};
use crate::pipe::transport::OverIo;

/// How an end acts as a TLS server: what it shows, whom it lets in, which protocols it speaks.
#[derive(Clone, Debug)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
}

impl TlsServer {
    /// Shows this certificate, lets everybody in.
    ///
    /// # Errors
    /// [`TlsError::Refused`] when certificate and key do not fit.
    pub fn new(identity: Identity) -> Result<Self, TlsError> {
        let builder =
            ServerConfig::builder_with_provider(identity::provider()).with_safe_default_protocol_versions()?;
        let config = builder.with_no_client_auth().with_single_cert(identity.chain, identity.key)?;
        Ok(Self { config: Arc::new(config) })
    }

    /// Shows this certificate and lets in only clients whose certificate one of these roots (PEM
    /// text) has signed.
    ///
    /// # Errors
    /// [`TlsError::Pem`] or [`TlsError::Refused`] when something can not be read or does not fit.
    pub fn with_client_roots(identity: Identity, roots_pem: &str) -> Result<Self, TlsError> {
        let roots = Arc::new(identity::roots(roots_pem.as_bytes())?);
        let refused = |error: rustls::server::VerifierBuilderError| TlsError::Pem {
            what: "client root",
            place: "the root's text".into(),
            reason: error.to_string(),
        };
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, identity::provider()).build().map_err(refused)?;
        let builder =
            ServerConfig::builder_with_provider(identity::provider()).with_safe_default_protocol_versions()?;
        let config = builder.with_client_cert_verifier(verifier).with_single_cert(identity.chain, identity.key)?;
        Ok(Self { config: Arc::new(config) })
    }

    /// Speaks these protocols (ALPN, RFC 7301), the preferred first.
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    /// Shakes hands with a client.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        socket: S,
        local: Addr,
        peer: Addr,
        limit: Duration,
    ) -> io::Result<Held> {
        let shaken = tokio::time::timeout(limit, TlsAcceptor::from(self.config.clone()).accept(socket)).await;
        let stream = shaken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let shown = super::certificate(stream.get_ref().1);
        Ok(held(OverIo::new(stream, local, peer).certified(shown)))
    }
}
