//! Waits: a pipe's end as a TLS client.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::identity::{self, Identity, TlsError};
use crate::pipe::connect::Stream;
use crate::pipe::core::{Held, held};
use crate::pipe::transport::OverIo;
use crate::pipe::{Addr, Dest, OpenFailure};

/// How an end acts as a TLS client: whom it trusts, as whom it shows itself, which protocols it
/// offers. The server's certificate is always verified, its name included.
#[derive(Clone, Debug)]
pub struct TlsClient {
    roots: Arc<RootCertStore>,
    identity: Option<Identity>,
    alpn: Vec<Vec<u8>>,
    server_name: Option<String>,
}

impl TlsClient {
    /// Trusts the roots that this system trusts.
    ///
    /// # Errors
    /// [`TlsError::SystemRoots`] when none can be read.
    pub fn system() -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let reason = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
            return Err(TlsError::SystemRoots { reason });
        }
        Ok(Self::trusting_store(roots))
    }

    /// Trusts these roots (PEM text) and no others.
    ///
    /// # Errors
    /// [`TlsError::Pem`] or [`TlsError::Refused`] when they can not be read.
    pub fn trusting(roots_pem: &str) -> Result<Self, TlsError> {
        Ok(Self::trusting_store(identity::roots(roots_pem.as_bytes())?))
    }

    fn trusting_store(roots: RootCertStore) -> Self {
        Self { roots: Arc::new(roots), identity: None, alpn: Vec::new(), server_name: None }
    }

    /// Shows this certificate to a server that asks for one.
    pub fn identity(self, identity: Identity) -> Self {
        Self { identity: Some(identity), ..self }
    }

    /// Offers these protocols (ALPN, RFC 7301), the preferred first.
    pub fn alpn(self, protocols: &[&str]) -> Self {
        Self { alpn: protocols.iter().map(|p| p.as_bytes().to_vec()).collect(), ..self }
    }

    /// The name that the server's certificate must have. Default: the destination's host, `localhost` over a Unix socket.
    pub fn server_name(self, name: impl Into<String>) -> Self {
        Self { server_name: Some(name.into()), ..self }
    }

    fn config(&self) -> Result<ClientConfig, TlsError> {
        let builder =
            ClientConfig::builder_with_provider(identity::provider()).with_safe_default_protocol_versions()?;
        let builder = builder.with_root_certificates(self.roots.clone());
        let mut config = match &self.identity {
            Some(Identity { chain, key }) => builder.with_client_auth_cert(chain.clone(), key.clone_key())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        Ok(config)
    }

    /// For a library that makes its own connections.
    #[cfg(feature = "mqtt")]
    pub(crate) fn rustls(&self) -> Result<Arc<ClientConfig>, TlsError> {
        self.config().map(Arc::new)
    }

    fn name(&self, stream: &Stream, dest: &Dest) -> Result<ServerName<'static>, OpenFailure> {
        let host = match (&self.server_name, dest) {
            (Some(name), _) => name.clone(),
            #[cfg(unix)]
            (None, _) if matches!(stream, Stream::Unix(_)) => THIS_HOST.to_owned(),
            (None, Dest::Host(host, _)) => host.clone(),
            (None, Dest::Addr(addr)) => addr.ip().to_string(),
            (None, Dest::Text(text)) => {
                text.rsplit_once(':').map_or(&**text, |(host, _)| host.trim_matches(['[', ']'])).to_owned()
            }
            (None, Dest::Path(_)) => THIS_HOST.to_owned(),
        };
        let wrong = |_| OpenFailure::Options { reason: "the server's name can not stand in a certificate" };
        ServerName::try_from(host).map_err(wrong)
    }

    /// Shakes hands over a connected stream.
    pub(crate) async fn connect(&self, stream: Stream, dest: &Dest, limit: Duration) -> Result<Held, OpenFailure> {
        let failed = |source: io::Error| OpenFailure::Tls { dest: dest.to_string(), source };
        let connector = TlsConnector::from(Arc::new(self.config().map_err(|error| failed(error.into()))?));
        let name = self.name(&stream, dest)?;
        match stream {
            Stream::Tcp(socket) => {
                let local = socket.local_addr().map_err(failed)?.into();
                let peer = socket.peer_addr().map_err(failed)?.into();
                shake(connector, name, socket, (local, peer), dest, limit).await
            }
            #[cfg(unix)]
            Stream::Unix(socket) => shake(connector, name, socket, (Addr::Unnamed, Addr::Unnamed), dest, limit).await,
        }
    }
}

/// Who is at the other end of a Unix socket.
const THIS_HOST: &str = "localhost";

async fn shake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connector: TlsConnector,
    name: ServerName<'static>,
    socket: S,
    (local, peer): (Addr, Addr),
    dest: &Dest,
    limit: Duration,
) -> Result<Held, OpenFailure> {
    match tokio::time::timeout(limit, connector.connect(name, socket)).await {
        Ok(Ok(stream)) => {
            let shown = super::certificate(stream.get_ref().1);
            Ok(held(OverIo::new(stream, local, peer).certified(shown)))
        }
        Ok(Err(source)) => Err(OpenFailure::Tls { dest: dest.to_string(), source }),
        Err(_) => Err(OpenFailure::TlsTimedOut { dest: dest.to_string(), limit }),
    }
}
