//! Waits: a punched hole made safe: both ends prove their keys, and a pipe runs over it that loses nothing at its end.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio::time::timeout;

use super::answer::punched_path;
use super::call::Called;
use super::handle::Peer;
use super::secure::{answer_hole, answer_stream, call_quic, call_stream, quic_server};
use crate::key::tls::Allowed;
use crate::key::{Identity, NoRandomness, PeerId};
use crate::nat::Proto;
use crate::peer::greeting::Greeting;
use crate::peer::session::{Carrier, ChannelKind, ChannelPipe, Keep, Role, SessionId, Shared};
use crate::peer::{Ended, Multipath, PathInfo, quic};
use crate::pipe::{NetConf, OpenError, Pipe};
use crate::punch::{Channel, Hole, Punched};

/// How long the other end has to open the pipe when it has proved itself.
const OPEN: Duration = Duration::from_secs(10);

/// How long it is kept when the hole is closed: there is no other way.
const NO_OTHER: Duration = Duration::from_secs(30);

/// What the first message of an introduction begins with; a public key follows.
const FIRST: &[u8] = b"natpipe-hole/1 ";

/// Why a hole could not be made safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecureError {
    /// The other end did not prove in time that it has this key, or the hole closed meanwhile.
    #[error("the other end of the hole did not prove to be {}: {source}", .peer.short())]
    Proof {
        /// Who was expected.
        peer: PeerId,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// It has proved itself and then went away, or opened no pipe.
    #[error("the other end proved itself and then opened no pipe")]
    Ended(#[from] Ended),
    /// No pipe can be made.
    #[error(transparent)]
    Pipe(#[from] OpenError),
    /// The system gave no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Why two ends do not know each other.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntroduceError {
    /// The channel broke.
    #[error("the channel to the peer broke while the keys were exchanged")]
    Channel(#[source] io::Error),
    /// Nothing came through it.
    #[error("nobody came to the other end of the channel within {limit:?}")]
    Silent {
        /// How long it was awaited.
        limit: Duration,
    },
    /// What came is no key.
    #[error("the other end of the channel is no `natpipe punch`, or of another version")]
    NotAPeer,
    /// It is our own: the channel comes back to us.
    #[error("the channel leads back to ourselves")]
    Ourselves,
}

/// Tells the other end of a channel who we are, and hears who it is: the first message each way, before
/// [`Puncher::punch`](crate::punch::Puncher::punch). Who carries the channel could put keys of its own there, so where it is
/// not trusted the answer has to be compared with what is known of the peer.
///
/// # Errors
/// [`IntroduceError`], within `patience`.
pub async fn introduce(channel: &mut impl Channel, me: PeerId, patience: Duration) -> Result<PeerId, IntroduceError> {
    let exchange = async {
        channel.send(Bytes::from([FIRST, me.as_bytes()].concat())).await.map_err(IntroduceError::Channel)?;
        channel.recv().await.map_err(IntroduceError::Channel)
    };
    let said = timeout(patience, exchange).await.map_err(|_| IntroduceError::Silent { limit: patience })??;
    let key = said.strip_prefix(FIRST).and_then(|key| <[u8; 32]>::try_from(key).ok());
    let peer = key.and_then(|key| PeerId::from_bytes(key).ok()).ok_or(IntroduceError::NotAPeer)?;
    if peer == me { Err(IntroduceError::Ourselves) } else { Ok(peer) }
}

/// Makes a hole safe, together with the same call at the other end: TLS 1.3 over TCP, QUIC over UDP, both keys proved. The pipe
/// is a stream, the same one at both ends; the peer can be told goodbye, and more pipes be opened to it where the other end
/// is the one that takes them.
///
/// # Errors
/// [`SecureError`], within 20 seconds; at the end that waits for the other's QUIC within 30. Dropping the future closes the hole.
pub async fn secure(punched: Punched, me: &Identity, them: PeerId, conf: NetConf) -> Result<(Peer, Pipe), SecureError> {
    let proto = if matches!(punched.hole, Hole::Udp(_)) { Proto::Udp } else { Proto::Tcp };
    let info = punched_path(proto, punched.local, punched.peer);
    let keep = if punched.controlling {
        let greeting = Greeting { kind: info.kind, session: SessionId(random()?), secret: None };
        let carrier = call(punched.hole, me, them, &greeting).await;
        begin(Role::Caller, them, greeting.session, proved(them, carrier)?, info)
    } else {
        let (greeting, carrier) = proved(them, answer(punched.hole, me, them).await)?;
        begin(Role::Answerer, them, greeting.session, carrier, info)
    };
    let id =
        if punched.controlling { keep.0.open(ChannelKind::Stream).ok_or(Ended::Lost)? } else { opened(&keep).await? };
    let pipe = Pipe::over(ChannelPipe::new(keep.clone(), id, ChannelKind::Stream), conf)?;
    // Nothing happens to such a peer that anybody would have to be told of.
    let (events, _) = broadcast::channel(1);
    Ok((Peer::new(Called { keep, events }), pipe))
}

fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    crate::peer::random().ok_or(NoRandomness)
}

fn proved<T>(peer: PeerId, result: io::Result<T>) -> Result<T, SecureError> {
    result.map_err(|source| SecureError::Proof { peer, source })
}

async fn call(hole: Hole, me: &Identity, them: PeerId, greeting: &Greeting) -> io::Result<Carrier> {
    match hole {
        Hole::Udp(hole) => {
            let (endpoint, to) = quic::through(*hole, None)?;
            call_quic(me, them, endpoint, to, greeting).await
        }
        Hole::Tcp { stream } => call_stream(me, them, stream, greeting).await,
    }
}

async fn answer(hole: Hole, me: &Identity, them: PeerId) -> io::Result<(Greeting, Carrier)> {
    let allowed = Allowed::only([them]);
    let (_, greeting, carrier) = match hole {
        Hole::Udp(hole) => answer_hole(quic::through(*hole, Some(quic_server(me, allowed)?))?.0).await?,
        Hole::Tcp { stream } => answer_stream(me, allowed, stream).await?,
    };
    Ok((greeting, carrier))
}

fn begin(role: Role, peer: PeerId, session: SessionId, carrier: Carrier, info: PathInfo) -> Arc<Keep> {
    let keep = Shared::begin(&Handle::current(), peer, session, role, Multipath::Off, NO_OTHER);
    keep.0.attach(carrier, info);
    keep
}

/// The channel that the other end opens.
async fn opened(keep: &Keep) -> Result<u32, SecureError> {
    match timeout(OPEN, poll_fn(|cx| keep.0.poll_accept(cx))).await.unwrap_or(Err(Ended::Lost))? {
        (id, ChannelKind::Stream) => Ok(id),
        (_, ChannelKind::Datagram) => Err(Ended::Protocol.into()),
    }
}
