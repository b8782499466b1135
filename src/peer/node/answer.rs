//! Waits: being reached: at the doors, and through rendezvous servers.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::builder::NodeError;
use super::doors::{back, comes_back, knock};
use super::inner::{Inner, canonical, tcp_path};
use super::meeting::{Meet, MeetError, Meeting};
use super::secure::{answer_begun, answer_hole, answer_quic, answer_stream};
use super::{news, relayed};
use crate::base::task::Nursery;
use crate::key::PeerId;
use crate::key::tls::Allowed;
use crate::nat::Proto;
use crate::net::{Changes, Family, Local, is_elsewhere};
use crate::peer::greeting::{Greeting, Topic};
use crate::peer::session::SessionId;
use crate::peer::{PathInfo, PathKind, quic};
use crate::punch::Hole;
use crate::rendezvous::Signal;

/// Callers that are looked at in one moment; more wait.
const AT_ONCE: usize = 256;

/// Of these, one peer's conversations at one place: a race begins five, and a peer may have many sessions. What is refused is ended at
/// once, and begins anew with the next race.
const OF_ONE: usize = 128;

/// With so many at the QUIC door a further one has to show that it is where it says: forged packets take no more places.
const UNPROVED: usize = AT_ONCE / 2;

/// How long a caller has to say what it wants.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// Between attempts to come to a place that could not be reached.
const LATER: Duration = Duration::from_secs(10);

/// After an error of the system, such as no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes whoever comes to the TCP door.
pub(super) async fn at_tcp(node: Arc<Inner>) {
    let Some(doors) = &node.doors else { return };
    let mut callers: Nursery<()> = Nursery::new(&Handle::current());
    loop {
        tokio::select! {
            accepted = doors.tcp.accept(), if callers.len() < AT_ONCE => match accepted {
                Ok((stream, _)) => callers.begin(at_the_door(node.clone(), stream)),
                Err(error) => {
                    tracing::debug!(%error, "accepting");
                    sleep(PAUSE).await;
                }
            },
            _ = callers.next(), if !callers.is_empty() => {}
        }
    }
}

async fn at_the_door(node: Arc<Inner>, stream: TcpStream) {
    if let Err(error) = let_in(&node, stream).await {
        tracing::debug!(%error, "someone at the door was not let in");
    }
}

async fn let_in(node: &Arc<Inner>, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if comes_back(&stream).await? {
        let mut word = [0; 17];
        timeout(FIRST_WORD, stream.read_exact(&mut word)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let mut session = [0; 16];
        session.copy_from_slice(&word[1..]);
        node.came_back(SessionId(session), stream);
        return Ok(());
    }
    let info = tcp_path(PathKind::Direct, &stream);
    let (peer, greeting, carrier) = answer_stream(&node.me, node.allowed.clone(), stream).await?;
    node.admit(peer, &greeting, carrier, PathInfo { kind: greeting.kind, ..info });
    Ok(())
}

/// Takes whoever comes to the QUIC door.
pub(super) async fn at_quic(node: Arc<Inner>) {
    let Some(doors) = &node.doors else { return };
    let mut callers: Nursery<()> = Nursery::new(&Handle::current());
    loop {
        tokio::select! {
            incoming = doors.quic.accept(), if callers.len() < AT_ONCE => {
                let Some(incoming) = incoming else { return };
                if callers.len() >= UNPROVED && incoming.may_retry() {
                    // Who really is at its address comes again.
                    let _ = incoming.retry().is_ok();
                    continue;
                }
                callers.begin(at_the_quic_door(node.clone(), doors.port, incoming));
            }
            _ = callers.next(), if !callers.is_empty() => {}
        }
    }
}

async fn at_the_quic_door(node: Arc<Inner>, port: u16, incoming: Incoming) {
    // The door itself is at no address, or at all.
    let local = incoming.local_ip().map(|ip| canonical(SocketAddr::new(ip, port)));
    let remote = Some(canonical(incoming.remote_address()));
    let info = PathInfo { kind: PathKind::Direct, proto: Proto::Udp, local, remote, rtt: None };
    match answer_quic(None, incoming).await {
        Ok((peer, greeting, carrier)) => node.admit(peer, &greeting, carrier, info),
        Err(error) => tracing::debug!(%error, "someone at the QUIC door was not let in"),
    }
}

/// Notices changes of this machine's network, and of the ports that gateways open, and tells who has called us.
pub(super) async fn at_changes(node: Arc<Inner>) {
    let mut changes = match Changes::watch() {
        Ok(changes) => changes,
        Err(error) => return tracing::warn!(%error, "changes of the network will not be noticed"),
    };
    let mut known = node.mapped();
    let mut telling;
    for number in 1.. {
        tokio::select! {
            change = changes.next() => match change {
                Ok(change) => node.handle_change(change),
                Err(error) => return tracing::warn!(%error, "changes of the network are not noticed any more"),
            },
            _ = node.more_addresses(&known) => tracing::debug!("a gateway has opened a port: callers are told"),
        }
        known = node.mapped();
        // What was to be said of the network before is of no use.
        telling = Nursery::new(&node.runtime);
        telling.begin(news::tell_callers(node.clone(), number));
    }
}

/// Goes to all places where the node is to be met. One is enough: the others are tried again.
///
/// # Errors
/// When nobody can be met at any.
pub(super) async fn everywhere(node: &Arc<Inner>, places: Vec<Meet>, tasks: &mut Nursery<()>) -> Result<(), NodeError> {
    let mut going = Nursery::new(&node.runtime);
    for place in places {
        let node = node.clone();
        going.begin(async move {
            let met = go(&node, &place).await;
            (place, met)
        });
    }
    let (mut met_somewhere, mut refused) = (going.is_empty(), None);
    while !going.is_empty() {
        let Some((place, met)) = going.next().await else { continue };
        match met {
            Ok(_) => met_somewhere = true,
            Err(error) => {
                tracing::warn!(%place, %error, "others can not be met there now");
                let source = Box::new(error);
                refused.get_or_insert(NodeError::Meeting { place: place.to_string(), source });
                tasks.begin(at_place(node.clone(), place));
            }
        }
    }
    refused.filter(|_| !met_somewhere).map_or(Ok(()), Err)
}

async fn go(node: &Inner, place: &Meet) -> Result<Meeting, MeetError> {
    let meeting = node.meeting(place).await?;
    meeting.ready().await?;
    Ok(meeting)
}

/// Goes to a place where nobody could be met yet, again and again until it stands.
pub(super) async fn at_place(node: Arc<Inner>, place: Meet) {
    loop {
        match node.meeting(&place).await {
            Ok(_) => return,
            Err(error) => tracing::debug!(%place, %error, "others can not be met there yet"),
        }
        sleep(LATER).await;
    }
}

/// Takes the conversations that others begin, wherever the node comes to be.
pub(super) async fn at_meetings(node: Arc<Inner>, mut entered: mpsc::Receiver<Meeting>) {
    let mut hearing: Nursery<()> = Nursery::new(&Handle::current());
    loop {
        tokio::select! {
            Some(meeting) = entered.recv() => hearing.begin(at_meeting(node.clone(), meeting)),
            _ = hearing.next(), if !hearing.is_empty() => {}
        }
    }
}

/// At one place, until we are there no more.
async fn at_meeting(node: Arc<Inner>, meeting: Meeting) {
    let (mut callers, mut counts) = (Nursery::new(&Handle::current()), HashMap::<PeerId, usize>::new());
    loop {
        tokio::select! {
            signal = meeting.accept(), if callers.len() < AT_ONCE => {
                let Ok(signal) = signal else {
                    if let Some(why) = meeting.why_over() {
                        tracing::warn!(%why, "others can not be met at a place any more");
                    }
                    return;
                };
                let (serves, peer) = (node.serves(&meeting), signal.peer());
                let count = counts.entry(peer).or_default();
                if *count >= OF_ONE {
                    tracing::debug!(%peer, "too many conversations with one peer");
                    continue;
                }
                *count += 1;
                let talked = talk(node.clone(), signal, serves);
                callers.begin(async move {
                    talked.await;
                    peer
                });
            }
            peer = callers.next(), if !callers.is_empty() => {
                let Some(count) = peer.as_ref().and_then(|peer| counts.get_mut(peer)) else { continue };
                *count -= 1;
                counts.retain(|_, count| *count > 0);
            }
        }
    }
}

async fn talk(node: Arc<Inner>, signal: Signal, serves: bool) {
    let peer = signal.peer();
    let is_caller = serves && node.allowed.lets_in(peer);
    if !is_caller && node.called(peer).is_none() {
        tracing::info!(%peer, "a peer that is not allowed, or that looks for us where we are not met, was turned away");
        return;
    }
    let topic = match timeout(FIRST_WORD, signal.recv()).await {
        Ok(Ok(word)) => Topic::from_bytes(&word),
        _ => return,
    };
    match topic {
        Ok(Topic::Moved { session, number, left, addresses }) => {
            node.handle_moved(peer, session, number, left, addresses);
        }
        Ok(_) if !is_caller => tracing::info!(%peer, "a peer that is not allowed was turned away"),
        Ok(Topic::Meet { greeting, hello, addresses }) => meet(&node, peer, &signal, greeting, hello, addresses).await,
        Ok(Topic::Punch { tcp, .. }) => {
            let proto = if tcp { Proto::Tcp } else { Proto::Udp };
            if let Err(error) = punched(&node, peer, signal, proto).await {
                tracing::debug!(%error, %proto, "punching for a caller");
            }
        }
        Ok(Topic::Turn { session, offer }) => {
            let (via, mut signal) = (node.servers(), signal);
            if let Err(error) = relayed::answer(&node, &via, peer, &mut signal, session, offer).await {
                tracing::debug!(error, "meeting a caller at a TURN server");
            }
        }
        Ok(Topic::Here { .. }) => tracing::debug!(%peer, "an answer to what was not asked"),
        Err(error) => tracing::debug!(%error, %peer, "a conversation about nothing"),
    }
}

/// Relays, and connects back, whichever is wanted; both may come to be. The caller is told meanwhile where else we are reached.
async fn meet(
    node: &Arc<Inner>,
    peer: PeerId,
    signal: &Signal,
    greeting: Greeting,
    hello: Bytes,
    addresses: Vec<SocketAddr>,
) {
    let mut ways: Nursery<io::Result<()>> = Nursery::new(&Handle::current());
    if greeting.kind == PathKind::Relay && node.ways.relay {
        let (node, stream) = (node.clone(), signal.relay_stream());
        ways.begin(async move {
            let answered = answer_begun(&node.me, Allowed::only([peer]), hello, stream?).await?;
            let (peer, greeting, carrier) = answered;
            node.admit(peer, &greeting, carrier, relay_path());
            Ok(())
        });
    }
    if node.ways.direct {
        for to in addresses.into_iter().filter(|to| is_elsewhere(*to)) {
            ways.begin(connect_back(node.clone(), peer, greeting.session, to));
        }
    }
    let connected = async {
        while !ways.is_empty() {
            if let Some(Err(error)) = ways.next().await {
                tracing::debug!(%error, "a way to a caller");
            }
        }
    };
    tokio::join!(connected, node.tell_ports(signal));
}

async fn connect_back(node: Arc<Inner>, peer: PeerId, session: SessionId, to: SocketAddr) -> io::Result<()> {
    let mut stream = knock(&Local::any(Family::of(to.ip())), to).await?;
    stream.write_all(&back(session)).await?;
    let info = tcp_path(PathKind::Reverse, &stream);
    let (peer, greeting, carrier) = answer_stream(&node.me, Allowed::only([peer]), stream).await?;
    node.admit(peer, &greeting, carrier, info);
    Ok(())
}

/// The other half of a caller's punch.
async fn punched(
    node: &Arc<Inner>,
    peer: PeerId,
    mut signal: Signal,
    proto: Proto,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    if !node.ways.direct {
        return Ok(());
    }
    let punched = node.puncher(&node.servers()).await.punch(proto, &mut signal).await?;
    let info = punched_path(proto, punched.local, punched.peer);
    let (peer, greeting, carrier) = match punched.hole {
        Hole::Udp(hole) => {
            let server = super::secure::quic_server(&node.me, Allowed::only([peer]))?;
            answer_hole(quic::through(*hole, Some(server))?.0).await?
        }
        Hole::Tcp { stream } => answer_stream(&node.me, Allowed::only([peer]), stream).await?,
    };
    node.admit(peer, &greeting, carrier, info);
    Ok(())
}

pub(super) fn relay_path() -> PathInfo {
    PathInfo { kind: PathKind::Relay, proto: Proto::Tcp, local: None, remote: None, rtt: None }
}

pub(super) fn punched_path(proto: Proto, local: SocketAddr, remote: SocketAddr) -> PathInfo {
    let kind = if proto == Proto::Tcp { PathKind::TcpPunch } else { PathKind::UdpPunch };
    PathInfo { kind, proto, local: Some(local), remote: Some(remote), rtt: None }
}
