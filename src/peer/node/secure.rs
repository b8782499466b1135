//! Waits: paths that are encrypted and whose both ends are proved, out of any stream and any hole.

use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Endpoint, Incoming};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::{Connect, TlsAcceptor, TlsConnector};

use crate::key::tls::{self, Allowed, SERVER_NAME};
use crate::key::{Identity, PeerId};
use crate::peer::greeting::{Greeting, LEN};
use crate::peer::quic;
use crate::peer::session::Carrier;
use crate::peer::session::Stream;

/// What peers speak, as TLS names it (RFC 7301).
const ALPN: &[&[u8]] = &[b"natpipe-peer/1"];

/// What TLS takes at once: a longest record of a session with what stands around it, so that it goes out by one call and no end of
/// it as a TLS record of its own. With more than 128 KiB the allocator gives what was encrypted back to the system each time.
const AT_ONCE: usize = 96 << 10;

/// How long both ends have to prove themselves.
const HANDSHAKE: Duration = Duration::from_secs(10);

async fn in_time<T>(done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(HANDSHAKE, done).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// As the caller, who knows whom to expect. The first records can follow without waiting.
pub(super) async fn call_stream(
    identity: &Identity,
    peer: PeerId,
    stream: impl Stream + 'static,
    greeting: &Greeting,
) -> io::Result<Carrier> {
    let config = tls::client_config(identity, peer, ALPN).map_err(io::Error::other)?;
    in_time(async {
        let mut stream = TlsConnector::from(config).connect(tls::server_name(), stream).await?;
        stream.write_all(&greeting.to_bytes()).await?;
        stream.get_mut().1.set_buffer_limit(Some(AT_ONCE));
        Ok(Carrier::Stream(Box::new(stream)))
    })
    .await
}

/// A connection whose first flight goes another way, ahead of the stream.
pub(super) struct Begun<S>(Connect<S>);

/// As the caller: the first flight of TLS, for the other end to have sooner than the stream would bring it, and what goes on with
/// the answer. Nothing is sent here.
pub(super) fn begin_stream<S: Stream>(identity: &Identity, peer: PeerId, stream: S) -> io::Result<(Bytes, Begun<S>)> {
    let config = tls::client_config(identity, peer, ALPN).map_err(io::Error::other)?;
    let (mut hello, mut written) = (Vec::new(), Ok(0));
    let connecting = TlsConnector::from(config).connect_with(tls::server_name(), stream, |session| {
        written = session.write_tls(&mut hello);
    });
    written?;
    Ok((hello.into(), Begun(connecting)))
}

impl<S: Stream + 'static> Begun<S> {
    /// Both ends proved.
    pub(super) async fn finish(self, greeting: &Greeting) -> io::Result<Carrier> {
        in_time(async {
            let mut stream = self.0.await?;
            stream.write_all(&greeting.to_bytes()).await?;
            stream.get_mut().1.set_buffer_limit(Some(AT_ONCE));
            Ok(Carrier::Stream(Box::new(stream)))
        })
        .await
    }
}

/// As the one who is called, with what came ahead of the stream.
pub(super) async fn answer_begun(
    identity: &Identity,
    allowed: Allowed,
    hello: Bytes,
    stream: impl Stream + 'static,
) -> io::Result<(PeerId, Greeting, Carrier)> {
    let (read, write) = tokio::io::split(stream);
    answer_stream(identity, allowed, tokio::io::join(Cursor::new(hello).chain(read), write)).await
}

/// As the one who is called.
pub(super) async fn answer_stream(
    identity: &Identity,
    allowed: Allowed,
    stream: impl Stream + 'static,
) -> io::Result<(PeerId, Greeting, Carrier)> {
    let config = tls::server_config(identity, allowed, ALPN).map_err(io::Error::other)?;
    in_time(async {
        let mut stream = TlsAcceptor::from(config).accept(stream).await?;
        let peer = tls::peer_of(stream.get_ref().1.peer_certificates());
        let mut first = [0; LEN];
        stream.read_exact(&mut first).await?;
        let greeting = Greeting::from_bytes(&first).map_err(invalid)?;
        stream.get_mut().1.set_buffer_limit(Some(AT_ONCE));
        Ok((peer.ok_or(io::ErrorKind::PermissionDenied)?, greeting, Carrier::Stream(Box::new(stream))))
    })
    .await
}

/// As the caller, from this endpoint to where the peer is.
pub(super) async fn call_quic(
    identity: &Identity,
    peer: PeerId,
    endpoint: Endpoint,
    to: SocketAddr,
    greeting: &Greeting,
) -> io::Result<Carrier> {
    let config = quic::client(tls::client_config(identity, peer, ALPN).map_err(io::Error::other)?)?;
    in_time(async {
        let connecting = endpoint.connect_with(config, to, SERVER_NAME).map_err(io::Error::other)?;
        let connection = connecting.await?;
        let (mut send, recv) = connection.open_bi().await?;
        send.write_all(&greeting.to_bytes()).await?;
        Ok(Carrier::Quic { connection, send, recv, endpoint: Some(endpoint) })
    })
    .await
}

/// What an endpoint needs to be called.
pub(super) fn quic_server(identity: &Identity, allowed: Allowed) -> io::Result<quinn::ServerConfig> {
    quic::server(tls::server_config(identity, allowed, ALPN).map_err(io::Error::other)?)
}

/// As the one who is called; with the endpoint, where it is for this caller alone.
pub(super) async fn answer_quic(
    endpoint: Option<Endpoint>,
    incoming: Incoming,
) -> io::Result<(PeerId, Greeting, Carrier)> {
    in_time(async {
        let connection = incoming.await?;
        let proved = connection.peer_identity().and_then(|proof| proof.downcast::<Vec<CertificateDer<'static>>>().ok());
        let peer = tls::peer_of(proved.as_deref().map(Vec::as_slice)).ok_or(io::ErrorKind::PermissionDenied)?;
        let (send, mut recv) = connection.accept_bi().await?;
        let mut first = [0; LEN];
        recv.read_exact(&mut first).await.map_err(io::Error::other)?;
        let greeting = Greeting::from_bytes(&first).map_err(invalid)?;
        Ok((peer, greeting, Carrier::Quic { connection, send, recv, endpoint }))
    })
    .await
}

/// The same on an endpoint through a hole, where only the peer can come.
pub(super) async fn answer_hole(endpoint: Endpoint) -> io::Result<(PeerId, Greeting, Carrier)> {
    let incoming = in_time(async { endpoint.accept().await.ok_or_else(|| io::ErrorKind::NotConnected.into()) }).await?;
    answer_quic(Some(endpoint), incoming).await
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// An identity that many tasks share.
pub(super) type Me = Arc<Identity>;
