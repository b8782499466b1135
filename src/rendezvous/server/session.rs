//! Waits: one connection at the server, from its first byte to its last.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::server::TlsStream;

use super::super::frames::Frames;
use super::super::wire::Reason;
use super::Shared;
use super::registry::{Conn, Next};
use crate::frame::ws::{self, ByteStream};
use crate::key::{PeerId, tls};

/// From the connection to a proven key.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a peer may take nothing of what is sent to it.
const STALL: Duration = Duration::from_secs(30);
/// How long the last words may take.
const PARTING: Duration = Duration::from_secs(2);
/// Bytes that are written at once: four TLS records.
const BATCH: usize = 64 * 1024;
/// The first byte of TLS: a record of the handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// The first byte of a websocket's request: of GET.
const HTTP_GET: u8 = b'G';

/// A connection that counts; dropping it takes it off the count.
struct Arrived {
    shared: Arc<Shared>,
    ip: IpAddr,
    shaking: bool,
}

impl Arrived {
    fn shaken(&mut self, proved: bool) {
        if std::mem::take(&mut self.shaking) {
            self.shared.with(|registry, _| registry.handle_handshake(self.ip, proved));
        }
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        self.shaken(false);
        self.shared.with(|registry, _| registry.handle_left(self.ip));
    }
}

/// Serves a connection that the registry has let in.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, from: SocketAddr) {
    let mut arrived = Arrived { shared: shared.clone(), ip: from.ip(), shaking: true };
    match timeout(HANDSHAKE, begin(&shared, stream)).await {
        Ok(Ok(Begun::Stun(stream))) => {
            arrived.shaken(true);
            shared.stun.serve(stream, from).await;
        }
        Ok(Ok(Begun::Peer(stream, peer))) => {
            arrived.shaken(true);
            talk(&shared, *stream, peer, from.ip()).await;
        }
        Ok(Ok(Begun::Web(stream, peer))) => {
            arrived.shaken(true);
            talk(&shared, *stream, peer, from.ip()).await;
        }
        Ok(Err(error)) => tracing::debug!(%from, %error, "no peer"),
        Err(_) => tracing::debug!(%from, "a handshake takes too long"),
    }
}

/// What a connection turns out to be.
enum Begun {
    Stun(TcpStream),
    Peer(Box<TlsStream<TcpStream>>, PeerId),
    Web(Box<TlsStream<ByteStream<TcpStream>>>, PeerId),
}

async fn begin(shared: &Shared, stream: TcpStream) -> io::Result<Begun> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match first[0] {
        TLS_HANDSHAKE => {
            stream.set_nodelay(true)?;
            let (stream, peer) = shake(shared, stream).await?;
            Ok(Begun::Peer(Box::new(stream), peer))
        }
        HTTP_GET => {
            stream.set_nodelay(true)?;
            let conf = ws::Conf::default().max_message(super::super::WS_MESSAGE);
            let accepted = ws::accept(stream, &conf).await.map_err(io::Error::other)?;
            let (stream, peer) = shake(shared, accepted.socket.into_bytes()).await?;
            Ok(Begun::Web(Box::new(stream), peer))
        }
        // The two most significant bits of STUN are zeros, and of its types the first byte is 0 or 1 (RFC 8489 section 5).
        0 | 1 => Ok(Begun::Stun(stream)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it begins neither as TLS nor as HTTP or STUN")),
    }
}

async fn shake<S: AsyncRead + AsyncWrite + Unpin>(shared: &Shared, stream: S) -> io::Result<(TlsStream<S>, PeerId)> {
    let stream = shared.tls.accept(stream).await?;
    let proven = stream.get_ref().1;
    if proven.alpn_protocol() != Some(super::super::ALPN) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it speaks another protocol"));
    }
    let peer = tls::peer_of(proven.peer_certificates());
    let peer = peer.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it has proved no key"))?;
    Ok((stream, peer))
}

/// A registration; dropping it takes it back.
struct Registered<'a> {
    shared: &'a Shared,
    conn: Conn,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.leave(self.conn);
    }
}

async fn talk<S: AsyncRead + AsyncWrite>(shared: &Shared, stream: S, peer: PeerId, ip: IpAddr) {
    let bell = Arc::new(Notify::new());
    let conn = shared.register(peer, ip, &bell);
    let _registered = Registered { shared, conn };
    let (reading, writing) = split(stream);
    let mut written = pin!(write(shared, conn, writing, &bell));
    let ended = tokio::select! {
        ended = read(shared, conn, reading) => ended,
        () = &mut written => return,
    };
    if let Some(why) = ended {
        shared.with(|registry, _| registry.handle_violation(conn, why));
        // The peer need not hear why.
        let _ = timeout(PARTING, written).await;
    }
}

/// Reads until the connection ends; gives the reason if it is the peer's fault.
async fn read<S: AsyncRead + AsyncWrite>(shared: &Shared, conn: Conn, reading: ReadHalf<S>) -> Option<Reason> {
    let mut frames = Frames::new(reading);
    let silence = shared.with(|registry, _| registry.silence());
    loop {
        match timeout(silence, frames.fill()).await {
            Err(_) => return Some(Reason::Silent),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a peer's connection broke");
                return None;
            }
            Ok(Ok(false)) => return None,
            Ok(Ok(true)) => {}
        }
        if let Err(error) = handle(shared, conn, &mut frames) {
            tracing::debug!(%error, "a peer is dismissed");
            return Some(Reason::Violation);
        }
    }
}

/// Everything that has come, in one turn.
fn handle<R: AsyncRead + Unpin>(
    shared: &Shared,
    conn: Conn,
    frames: &mut Frames<R>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    shared.with(|registry, now| {
        while let Some(frame) = frames.take()? {
            registry.handle(now, conn, frame)?;
        }
        Ok(())
    })
}

async fn write<S: AsyncRead + AsyncWrite>(shared: &Shared, conn: Conn, mut writing: WriteHalf<S>, bell: &Notify) {
    let mut out = Vec::new();
    loop {
        let next = shared.with(|registry, now| registry.poll_transmit(now, conn, &mut out, BATCH));
        if !out.is_empty() {
            let sent = async {
                writing.write_all(&out).await?;
                writing.flush().await
            };
            match timeout(STALL, sent).await {
                Ok(Ok(())) => out.clear(),
                _ => return,
            }
            if next != Next::End {
                continue;
            }
        }
        // An idle peer holds no memory for what it might get.
        out = Vec::new();
        match next {
            Next::End => {
                let _ = timeout(PARTING, writing.shutdown()).await;
                return;
            }
            Next::Wait => bell.notified().await,
            // Whichever comes first.
            Next::At(when) => drop(timeout_at(when.into(), bell.notified()).await),
        }
    }
}
