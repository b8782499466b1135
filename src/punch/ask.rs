//! Waits: STUN servers, asked from the sockets that will punch and from fresh ones, over UDP and TCP.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::Rng as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::{timeout, timeout_at};

use super::bases::{shared, udp_socket};
use super::shape::Assigned;
use crate::nat::Rng;
use crate::net::{Family, Local, socket};
use crate::stun::{Event, Message, Proof, Query, Request, Timing, TransactionId, drive_from, next_message};

/// How long servers are given: a candidate that comes later would hold up the others.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// A request is sent again after so long, and then after twice that: a lost one must not hold up the others.
const AGAIN: Duration = Duration::from_millis(100);

/// How much longer than the first one took four times over the other servers are given: what they say only shows whether the NAT
/// takes another port for each, but without it a NAT that does would be taken for one that does not. It is enough for two lost
/// packets.
const MORE: Duration = Duration::from_millis(350);

/// How often it is looked whether the first has answered.
const LOOK: Duration = Duration::from_millis(10);

/// The longest answer of a STUN server over TCP.
const ROOM: usize = 2048;

/// What each server sees of this socket, in the order of the servers; those that do not answer are left out.
pub(super) async fn udp(socket: &UdpSocket, servers: &[SocketAddr]) -> Vec<(SocketAddr, SocketAddr)> {
    let mut seen = ask(socket, servers).await;
    // A server's other address shows what a second server would.
    if let [(one, other)] = seen[..]
        && let Some(other) = other.filter(|other| other.port() != one.0.port())
    {
        seen.extend(ask(socket, &[SocketAddr::new(one.0.ip(), other.port())]).await);
    }
    seen.into_iter().map(|(pair, _)| pair).collect()
}

type Answered = ((SocketAddr, SocketAddr), Option<SocketAddr>);

async fn ask(socket: &UdpSocket, servers: &[SocketAddr]) -> Vec<Answered> {
    let Some(server) = servers.first() else { return Vec::new() };
    let mut query = Query::new(&Request::new().timing(timing()), servers, random(), Instant::now())
        .stagger(Duration::ZERO)
        .wanted(servers.len());
    query.handle_timeout(Instant::now());
    let sockets = [(Family::of(server.ip()), socket)];
    let (mut seen, begun): (Vec<Answered>, Instant) = (Vec::new(), Instant::now());
    let mut until = begun + PATIENCE;
    loop {
        let look = until.min(Instant::now() + LOOK);
        let over = timeout_at(look.into(), drive_from(&mut query, &sockets)).await.is_ok();
        while let Some(event) = query.poll_event() {
            match event {
                Event::Answered(answer) => {
                    if seen.is_empty() {
                        until = until.min(begun + begun.elapsed() * 4 + MORE);
                    }
                    seen.push(((answer.asked, answer.mapped), answer.other));
                }
                Event::Failed(error) => tracing::debug!(%error, "no external address"),
            }
        }
        if over || Instant::now() >= until {
            break;
        }
    }
    let place = |server: &SocketAddr| servers.iter().position(|known| known == server);
    seen.sort_by_key(|((server, _), _)| place(server));
    seen
}

fn timing() -> Timing {
    Timing::default().rto(AGAIN).requests(5).last_wait(8)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// Sockets that no server has seen yet, and the server that each is to be asked from.
pub(super) fn fresh_udp(local: &Local, server: SocketAddr) -> Vec<(UdpSocket, SocketAddr)> {
    fresh(local).filter_map(|local| Some((udp_socket(&local, None).ok()?, server))).collect()
}

/// Where fresh sockets are to be bound; a port that is taken costs one of many.
fn fresh(local: &Local) -> impl Iterator<Item = Local> {
    let mut rng = Rng::new(rand::rng().next_u64());
    let at = |port| Local { addr: SocketAddr::new(local.addr.ip(), port), ..local.clone() };
    Assigned::samples(&mut rng).into_iter().map(at)
}

/// The local and the external port of each, in the order in which they were sent from.
pub(super) async fn answers(fresh: Vec<(UdpSocket, SocketAddr)>) -> Vec<(u16, u16)> {
    let asked = fresh.iter().map(|(socket, server)| async move {
        let seen = ask(socket, &[*server]).await;
        Some((socket.local_addr().ok()?.port(), seen.first()?.0.1.port()))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// What each server sees of this port over TCP, and the connections, which stay open: a NAT may drop the mapping with them.
pub(super) async fn tcp(local: &Local, servers: &[SocketAddr]) -> (Vec<TcpStream>, Vec<(SocketAddr, SocketAddr)>) {
    let asked = servers.iter().map(|server| async move {
        let answer = timeout(PATIENCE, ask_tcp(local, *server)).await;
        (*server, answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
    });
    let (mut streams, mut seen) = (Vec::new(), Vec::new());
    for (server, answer) in join_all(asked).await {
        match answer {
            Ok((stream, mapped)) => {
                streams.push(stream);
                seen.push((server, mapped));
            }
            Err(error) => tracing::debug!(%error, %server, "no external TCP address"),
        }
    }
    (streams, seen)
}

/// The local and external ports of fresh connections, in the order in which they were begun.
pub(super) async fn fresh_tcp(local: &Local, server: SocketAddr) -> Vec<(u16, u16)> {
    let asked = fresh(local).map(|local| async move {
        let (stream, mapped) = timeout(PATIENCE, ask_tcp(&local, server)).await.ok()?.ok()?;
        Some((stream.local_addr().ok()?.port(), mapped.port()))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

async fn ask_tcp(local: &Local, server: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let socket = socket::stream(local, &shared())?;
    let mut stream = TcpSocket::from_std_stream(socket.into()).connect(server).await?;
    let id = TransactionId::modern(random());
    let request = Request::new().encode(id, &Proof::default()).map_err(io::Error::other)?;
    stream.write_all(&request).await?;
    let mut buf = Vec::with_capacity(ROOM);
    loop {
        if let Some(len) = next_message(&buf, ROOM).map_err(io::Error::other)? {
            let message = Message::parse(&buf[..len]).map_err(io::Error::other)?;
            let ours = message.id() == id;
            let mapped = message.mapped().filter(|_| ours).ok_or(io::ErrorKind::InvalidData)?;
            return Ok((stream, mapped));
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
