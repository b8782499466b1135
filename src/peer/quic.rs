//! Waits: QUIC over a punched hole, at a TURN server, or over a socket of our own.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{
    AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig,
    UdpPoller, VarInt,
};
use rustls::{ClientConfig as TlsClient, ServerConfig as TlsServer};
use tokio::io::Interest;

use crate::punch::UdpHole;
use crate::turn::Allocation;

/// What may be on its way in one direction: 1 Gbit/s over a round trip of 130 ms.
const WINDOW: u32 = 16 << 20;

/// A connection that says nothing for this long is dead; the session asks quiet paths earlier.
const IDLE: VarInt = VarInt::from_u32(15_000);

/// Datagrams that wait to be received or sent, bytes.
const DATAGRAMS: usize = 1 << 20;

fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config.stream_receive_window(VarInt::from_u32(WINDOW));
    config.receive_window(VarInt::from_u32(WINDOW));
    config.send_window(WINDOW.into());
    config.max_concurrent_bidi_streams(VarInt::from_u32(1));
    config.max_concurrent_uni_streams(VarInt::from_u32(0));
    config.max_idle_timeout(Some(IdleTimeout::from(IDLE)));
    config.initial_rtt(Duration::from_millis(100));
    config.datagram_receive_buffer_size(Some(DATAGRAMS));
    config.datagram_send_buffer_size(DATAGRAMS);
    Arc::new(config)
}

/// # Errors
/// When the TLS configuration has no cipher that QUIC needs.
pub(super) fn client(tls: Arc<TlsClient>) -> io::Result<ClientConfig> {
    let crypto = QuicClientConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    Ok(config)
}

/// # Errors
/// As [`client`].
pub(super) fn server(tls: Arc<TlsServer>) -> io::Result<ServerConfig> {
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport());
    config.migration(true);
    Ok(config)
}

/// STUN is told from QUIC by the bit that QUIC always sets.
fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.grease_quic_bit(false);
    config
}

/// An endpoint that talks to one peer through a hole.
///
/// # Errors
/// Those of the system.
pub(super) fn through(hole: UdpHole, server: Option<ServerConfig>) -> io::Result<(Endpoint, SocketAddr)> {
    let peer = hole.peer();
    let state = UdpSocketState::new(hole.socket().into())?;
    let socket = Arc::new(HoleSocket { hole, state, shown: peer });
    let endpoint = Endpoint::new_with_abstract_socket(endpoint_config(), server, socket, Arc::new(TokioRuntime))?;
    Ok((endpoint, peer))
}

/// An endpoint on a socket of our own.
///
/// # Errors
/// Those of the system.
pub(super) fn on(socket: std::net::UdpSocket, server: Option<ServerConfig>) -> io::Result<Endpoint> {
    Endpoint::new(endpoint_config(), server, socket, Arc::new(TokioRuntime))
}

/// An endpoint at a TURN server, which holds the allocation for as long as it lives.
///
/// # Errors
/// Those of the system.
pub(super) fn relayed(allocation: Allocation, server: Option<ServerConfig>) -> io::Result<Endpoint> {
    let socket = Arc::new(Relayed { allocation });
    Endpoint::new_with_abstract_socket(endpoint_config(), server, socket, Arc::new(TokioRuntime))
}

/// An allocation as quinn wants a socket: one datagram at a time.
#[derive(Debug)]
struct Relayed {
    allocation: Allocation,
}

impl AsyncUdpSocket for Relayed {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Taking { socket: self })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.allocation.try_send(transmit.contents, transmit.destination) {
            // To whom nobody let in: an answer to a stranger, which is lost as on any network.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            sent => sent,
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buf), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else { return Poll::Ready(Ok(0)) };
        let (bytes, from) = ready!(self.allocation.poll_recv(cx))?;
        // What is too long for QUIC is nothing of it.
        let len = if bytes.len() <= buf.len() { bytes.len() } else { 0 };
        buf[..len].copy_from_slice(&bytes[..len]);
        *meta = RecvMeta { addr: from, len, stride: len, ecn: None, dst_ip: None };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.allocation.relayed())
    }
}

#[derive(Debug)]
struct Taking {
    socket: Arc<Relayed>,
}

impl UdpPoller for Taking {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.allocation.poll_writable(cx)
    }
}

/// A hole as quinn wants a socket: many datagrams at a time, and ICE beneath. Whichever address of the peer ICE has nominated,
/// QUIC sees the first one: it is ICE that looks after paths.
struct HoleSocket {
    hole: UdpHole,
    state: UdpSocketState,
    shown: SocketAddr,
}

impl fmt::Debug for HoleSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HoleSocket").field(&self.hole).finish()
    }
}

impl HoleSocket {
    /// Takes out what is ICE's or a stranger's.
    fn sort(&self, bufs: &[IoSliceMut<'_>], meta: &mut [RecvMeta]) {
        let peer = self.hole.peer();
        for (buf, meta) in bufs.iter().zip(meta) {
            let (stride, len) = (meta.stride.max(1), meta.len.min(buf.len()));
            // Datagrams come together only when they are of one size and from one source.
            let ice = buf[..len].chunks(stride).filter(|datagram| self.hole.takes(meta.addr, datagram)).count();
            if ice > 0 || meta.addr != peer {
                meta.len = 0;
            }
            meta.addr = self.shown;
        }
    }
}

impl AsyncUdpSocket for HoleSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable { socket: self })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let to = Transmit { destination: self.hole.peer(), src_ip: None, ecn: transmit.ecn, ..*transmit };
        let socket = self.hole.socket();
        socket.try_io(Interest::WRITABLE, || self.state.send(socket.into(), &to))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let socket = self.hole.socket();
        loop {
            if socket.poll_recv_ready(cx)?.is_pending() {
                self.hole.poll_keep(cx);
                return Poll::Pending;
            }
            match socket.try_io(Interest::READABLE, || self.state.recv(socket.into(), bufs, meta)) {
                Ok(got) => {
                    self.sort(bufs, &mut meta[..got]);
                    return Poll::Ready(Ok(got));
                }
                // Not ready after all, or an earlier packet's error (ICMP).
                Err(error) => tracing::trace!(%error, "receiving"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.hole.local())
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

#[derive(Debug)]
struct Writable {
    socket: Arc<HoleSocket>,
}

impl UdpPoller for Writable {
    /// quinn asks from one task per connection, and there is one connection.
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.socket.hole.socket().poll_send_ready(cx))?;
        Poll::Ready(Ok(()))
    }
}
