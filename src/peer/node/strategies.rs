//! Waits: each way to a peer by itself: straight, by relay, punched.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::answer::{punched_path, relay_path};
use super::doors::{endpoint_at, knock};
use super::inner::{Inner, tcp_path};
use super::secure::{Begun, call_quic, call_stream};
use crate::key::{PeerId, ServerUrl};
use crate::nat::Proto;
use crate::net::Local;
use crate::peer::greeting::{Greeting, Topic};
use crate::peer::session::Carrier;
use crate::peer::{PathInfo, PathKind, quic};
use crate::punch::Hole;
use crate::rendezvous::{RelayStream, Signal};

/// Punching TCP begins this much after UDP, so that both do not take the same ports of a NAT that counts.
const TCP_LATER: Duration = Duration::from_millis(100);

/// What a strategy has come to.
pub(super) type Found = Result<(Carrier, PathInfo), String>;

pub(super) type Strategy = std::pin::Pin<Box<dyn Future<Output = Found> + Send>>;

pub(super) fn said(error: impl fmt::Display) -> String {
    error.to_string()
}

/// Straight to an address.
pub(super) fn direct(
    node: &Arc<Inner>,
    peer: PeerId,
    from: Local,
    to: SocketAddr,
    proto: Proto,
    greeting: &Greeting,
) -> Strategy {
    let (node, greeting) = (node.clone(), greeting.clone());
    Box::pin(async move {
        match proto {
            Proto::Tcp => direct_tcp(&node, peer, &from, to, &greeting).await.map_err(said),
            Proto::Udp => direct_quic(&node, peer, &from, to, &greeting).await.map_err(said),
        }
    })
}

async fn direct_tcp(
    node: &Inner,
    peer: PeerId,
    from: &Local,
    to: SocketAddr,
    greeting: &Greeting,
) -> io::Result<(Carrier, PathInfo)> {
    let stream = knock(from, to).await?;
    let info = tcp_path(PathKind::Direct, &stream);
    Ok((call_stream(&node.me, peer, stream, greeting).await?, info))
}

async fn direct_quic(
    node: &Inner,
    peer: PeerId,
    from: &Local,
    to: SocketAddr,
    greeting: &Greeting,
) -> io::Result<(Carrier, PathInfo)> {
    let endpoint = endpoint_at(from)?;
    let local = endpoint.local_addr().ok();
    let carrier = call_quic(&node.me, peer, endpoint, to, greeting).await?;
    Ok((carrier, PathInfo { kind: PathKind::Direct, proto: Proto::Udp, local, remote: Some(to), rtt: None }))
}

pub(super) async fn relay(begun: Begun<RelayStream>, failed: oneshot::Receiver<String>, greeting: &Greeting) -> Found {
    // The conversation tells earlier than a stream could that the peer is not there.
    tokio::select! {
        carrier = begun.finish(greeting) => Ok((carrier.map_err(said)?, relay_path())),
        Ok(why) = failed => Err(why),
    }
}

pub(super) async fn punch(
    node: &Inner,
    servers: &[ServerUrl],
    peer: PeerId,
    mut signal: Signal,
    proto: Proto,
    greeting: &Greeting,
) -> Found {
    let tcp = proto == Proto::Tcp;
    if tcp {
        sleep(TCP_LATER).await;
    }
    signal.send(Topic::Punch { session: greeting.session, tcp }.to_bytes()).await.map_err(said)?;
    let puncher = node.puncher(servers).await;
    let punched = puncher.punch(proto, &mut signal).await.map_err(said)?;
    let info = punched_path(proto, punched.local, punched.peer);
    let carrier = match punched.hole {
        Hole::Udp(hole) => {
            let (endpoint, to) = quic::through(*hole, None).map_err(said)?;
            call_quic(&node.me, peer, endpoint, to, greeting).await
        }
        Hole::Tcp { stream } => call_stream(&node.me, peer, stream, greeting).await,
    };
    Ok((carrier.map_err(said)?, info))
}
