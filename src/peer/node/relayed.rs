//! Waits: meeting at a TURN server: whichever end has one asks it for an address, tells it to the other over a conversation, and QUIC
//! runs between them.
//!
//! ```text
//! caller   ── what it has ──►  answerer     each: a relayed address, and where its own datagrams come from
//!          ◄── what it has ──
//!          ── where from ───►               so that the answerer's server lets them in
//! ```
//!
//! Where the answerer has a relayed address the caller goes there, from its own one and straight. Where only the caller has one, the
//! answerer says hello to it until the caller knows where it comes from. An end that may only be reached through servers never
//! goes straight.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::Endpoint;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::inner::Inner;
use super::secure::{answer_hole, call_quic, quic_server};
use crate::base::task::Nursery;
use crate::key::tls::Allowed;
use crate::key::{PeerId, ServerUrl};
use crate::nat::Proto;
use crate::net::{Family, Local, SocketOptions, socket};
use crate::peer::greeting::{Greeting, Topic};
use crate::peer::offer::Offer;
use crate::peer::session::{Carrier, SessionId};
use crate::peer::{PathInfo, PathKind, quic};
use crate::punch::Channel;
use crate::stun;
use crate::turn::{Allocation, Client};

/// How long the other end may take for its next word: it asks servers first.
const WORD: Duration = Duration::from_secs(15);

/// How long a TURN server may take to give an address.
const ALLOCATE: Duration = Duration::from_secs(10);

/// How long servers are asked which address they see.
const SEEN: Duration = Duration::from_secs(3);

/// How often hello is said, and for how long.
const HELLO: Duration = Duration::from_millis(200);
const HELLOS: Duration = Duration::from_secs(10);

/// The caller's half. What comes is authenticated.
pub(super) async fn call(
    node: &Inner,
    via: &[ServerUrl],
    peer: PeerId,
    channel: &mut impl Channel,
    greeting: &Greeting,
) -> Result<(Carrier, PathInfo), String> {
    let own = allocate(node).await?;
    let topic = Topic::Turn { session: greeting.session, offer: offer(own.as_ref(), Vec::new()) };
    channel.send(topic.to_bytes().into()).await.map_err(said)?;
    let theirs = word(channel).await?;
    let carrier = match (theirs.relayed, own) {
        (Some(to), own) => {
            let seen = if node.ways.direct { seen(node, via, theirs.server).await } else { Vec::new() };
            channel.send(offer(None, seen).to_bytes().into()).await.map_err(said)?;
            towards(node, peer, to, own, greeting).await?
        }
        (None, Some(own)) => from_own(node, peer, own, &theirs, greeting).await?,
        (None, None) => return Err("neither end has a TURN server".into()),
    };
    Ok((carrier, path()))
}

/// To the answerer's relayed address, from our own and straight, whichever comes through.
async fn towards(
    node: &Inner,
    peer: PeerId,
    to: SocketAddr,
    own: Option<Allocation>,
    greeting: &Greeting,
) -> Result<Carrier, String> {
    let mut ways: Nursery<Result<Carrier, String>> = Nursery::new(&Handle::current());
    if let Some(own) = own {
        let (me, greeting) = (node.me.clone(), greeting.clone());
        ways.begin(async move {
            own.permit(to.ip()).await.map_err(said)?;
            let endpoint = quic::relayed(own, None).map_err(said)?;
            call_quic(&me, peer, endpoint, to, &greeting).await.map_err(said)
        });
    }
    if node.ways.direct {
        let (me, greeting) = (node.me.clone(), greeting.clone());
        ways.begin(async move {
            let endpoint = quic::on(plain(to)?, None).map_err(said)?;
            call_quic(&me, peer, endpoint, to, &greeting).await.map_err(said)
        });
    }
    let mut last = "it may be reached through servers only, and has no TURN server".to_owned();
    while !ways.is_empty() {
        match ways.next().await {
            Some(Ok(carrier)) => return Ok(carrier),
            Some(Err(why)) => last = why,
            None => {}
        }
    }
    Err(last)
}

/// From our relayed address to wherever the answerer's hello comes from.
async fn from_own(
    node: &Inner,
    peer: PeerId,
    own: Allocation,
    theirs: &Offer,
    greeting: &Greeting,
) -> Result<Carrier, String> {
    if theirs.seen.is_empty() {
        return Err("the peer does not know its own address, or tells nobody".into());
    }
    permit(&own, &theirs.seen).await?;
    let word = hello(greeting.session);
    let heard = async {
        loop {
            let (bytes, from) = own.recv_from().await.map_err(said)?;
            if bytes[..] == word[..] {
                return Ok(from);
            }
        }
    };
    let from: Result<SocketAddr, String> =
        timeout(HELLOS, heard).await.unwrap_or_else(|_| Err("nothing of the peer comes to the TURN server".into()));
    let from = from?;
    let endpoint = quic::relayed(own, None).map_err(said)?;
    call_quic(&node.me, peer, endpoint, from, greeting).await.map_err(said)
}

/// The answerer's half, after the caller's first word.
pub(super) async fn answer(
    node: &Arc<Inner>,
    via: &[ServerUrl],
    peer: PeerId,
    channel: &mut impl Channel,
    session: SessionId,
    theirs: Offer,
) -> Result<(), String> {
    if !node.ways.relay {
        return Err("relays are ruled out here".into());
    }
    let own = allocate(node).await.unwrap_or_else(|why| {
        tracing::debug!(why, "no relayed address");
        None
    });
    // With an address of our own the caller comes there, and we go nowhere.
    let straight = theirs.relayed.filter(|_| own.is_none() && node.ways.direct);
    let seen = if straight.is_some() { seen(node, via, theirs.server).await } else { Vec::new() };
    channel.send(offer(own.as_ref(), seen).to_bytes().into()).await.map_err(said)?;
    let (endpoint, hellos) = match (own, straight) {
        (Some(own), _) => {
            let more = word(channel).await?;
            let from: Vec<IpAddr> = theirs.relayed.iter().map(SocketAddr::ip).chain(more.seen).collect();
            permit(&own, &from).await?;
            (quic::relayed(own, Some(server(node, peer)?)).map_err(said)?, None)
        }
        (None, Some(to)) => {
            let socket = plain(to)?;
            let greeter = socket.try_clone().map_err(said)?;
            let endpoint = quic::on(socket, Some(server(node, peer)?)).map_err(said)?;
            (endpoint, Some((greeter, to)))
        }
        (None, None) => return Ok(()),
    };
    let (peer, greeting, carrier) = greeted(endpoint, hellos, session).await?;
    node.admit(peer, &greeting, carrier, path());
    Ok(())
}

/// Waits for the caller, and says hello meanwhile where it does not know where to find us.
async fn greeted(
    endpoint: Endpoint,
    hellos: Option<(std::net::UdpSocket, SocketAddr)>,
    session: SessionId,
) -> Result<(PeerId, Greeting, Carrier), String> {
    let greeting = async {
        let Some((socket, to)) = hellos else { return std::future::pending().await };
        loop {
            // One that is lost, or that the system does not take now, is followed by another.
            let _ = socket.send_to(&hello(session), to);
            sleep(HELLO).await;
        }
    };
    tokio::select! {
        answered = answer_hole(endpoint) => answered.map_err(said),
        () = greeting => unreachable!("it says hello for ever"),
    }
}

fn server(node: &Inner, peer: PeerId) -> Result<quinn::ServerConfig, String> {
    quic_server(&node.me, Allowed::only([peer])).map_err(said)
}

/// An address at the first of our servers that gives one; none where we have no server.
async fn allocate(node: &Inner) -> Result<Option<Allocation>, String> {
    let mut why = None;
    for server in &node.turn {
        match timeout(ALLOCATE, Client::new(server.clone()).allocate()).await {
            Ok(Ok(allocation)) => return Ok(Some(allocation)),
            Ok(Err(error)) => why = Some(told(&error)),
            Err(_) => why = Some(format!("the TURN server {server} takes too long")),
        }
    }
    why.map_or(Ok(None), Err)
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", told(cause)),
        None => error.to_string(),
    }
}

fn offer(own: Option<&Allocation>, seen: Vec<IpAddr>) -> Offer {
    Offer { relayed: own.map(Allocation::relayed), server: own.and_then(Allocation::server_addr), seen }
}

/// Lets all of these in that the server allows; none is an error.
async fn permit(own: &Allocation, ips: &[IpAddr]) -> Result<(), String> {
    let mut last = Err("nobody is to be let in".to_owned());
    for ip in ips {
        match own.permit(*ip).await {
            Ok(()) => last = Ok(()),
            Err(error) if last.is_err() => last = Err(error.to_string()),
            Err(error) => tracing::debug!(%error, "one address is not let in"),
        }
    }
    last
}

/// Where our datagrams come from, as servers see them.
async fn seen(node: &Inner, via: &[ServerUrl], also: Option<SocketAddr>) -> Vec<IpAddr> {
    let servers = node.stun_servers(via).await.into_iter().chain(also);
    let client = servers.fold(stun::Client::new().family(Family::V4), stun::Client::server);
    match timeout(SEEN, client.ask()).await {
        Ok(Ok(answer)) => vec![answer.mapped.ip().to_canonical()],
        Ok(Err(error)) => {
            tracing::debug!(%error, "no server tells which address it sees");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// The other end's next word.
async fn word(channel: &mut impl Channel) -> Result<Offer, String> {
    let word: Bytes = match timeout(WORD, channel.recv()).await {
        Ok(word) => word.map_err(said)?,
        Err(_) => return Err("the peer says nothing of TURN".into()),
    };
    Offer::from_bytes(&word).map_err(said)
}

/// Says where the answerer is; whoever else says it gains nothing, since only the peer can prove its key.
fn hello(session: SessionId) -> [u8; 17] {
    let mut word = [0; 17];
    word[1..].copy_from_slice(&session.0);
    word
}

fn plain(to: SocketAddr) -> Result<std::net::UdpSocket, String> {
    let local = Local::any(Family::of(to.ip()));
    Ok(socket::datagram(&local, &SocketOptions::default()).map_err(said)?.into())
}

fn path() -> PathInfo {
    PathInfo { kind: PathKind::Relay, proto: Proto::Udp, local: None, remote: None, rtt: None }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
