//! Waits: our own candidates: sockets on random ports, and what STUN servers see of them.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng as _;
use socket2::Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::PunchError;
use super::message::{CANDIDATES, Candidate, CandidateKind};
use crate::nat::Proto;
use crate::net::{Family, Local, Route, SocketError, SocketOptions, SocketStep, socket};
use crate::stun::{Event, Message, Proof, Query, Request, Timing, TransactionId, drive_from, next_message};

/// How long servers are given: a candidate that comes later would hold up the others.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest answer of a STUN server over TCP.
const ROOM: usize = 2048;

/// A UDP socket and the address that servers see of it.
#[derive(Debug)]
pub(super) struct UdpBase {
    pub(super) socket: UdpSocket,
    pub(super) local: SocketAddr,
    pub(super) mapped: Option<SocketAddr>,
}

/// A TCP port that is shared by a listener, many attempts and the connection to a STUN server, which holds its mapping.
#[derive(Debug)]
pub(super) struct TcpBase {
    pub(super) local: Local,
    pub(super) mapped: Option<SocketAddr>,
    pub(super) _held: Socket,
    pub(super) _server: Option<TcpStream>,
}

/// All that we have.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) udp: Vec<UdpBase>,
    pub(super) tcp: Vec<TcpBase>,
}

impl Gathered {
    /// As many as the peer takes: what the world sees first, since a machine may have many addresses of its own.
    pub(super) fn offered(&self) -> Vec<Candidate> {
        let mut all = self.candidates();
        all.sort_by_key(|candidate| candidate.kind != CandidateKind::ServerReflexive);
        all.truncate(CANDIDATES);
        all
    }

    /// Host candidates, and server-reflexive ones where they differ.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let udp = self.udp.iter().map(|base| (Proto::Udp, base.local, base.mapped));
        let tcp = self.tcp.iter().map(|base| (Proto::Tcp, base.local.addr, base.mapped));
        let mut all = Vec::new();
        for (proto, addr, mapped) in udp.chain(tcp) {
            all.push(Candidate { proto, kind: CandidateKind::Host, addr });
            let mapped = mapped.filter(|mapped| *mapped != addr);
            all.extend(mapped.map(|addr| Candidate { proto, kind: CandidateKind::ServerReflexive, addr }));
        }
        all
    }
}

/// Sockets on every route, each asked for its external address; those that can not be made are left out unless none can.
pub(super) async fn gather(proto: Proto, routes: &[Route], servers: &[SocketAddr]) -> Result<Gathered, PunchError> {
    let (mut gathered, mut refused) = (Gathered::default(), None);
    for route in routes {
        let fitting: Vec<SocketAddr> =
            servers.iter().copied().filter(|server| Family::of(server.ip()) == route.family()).collect();
        let made = match proto {
            Proto::Udp => udp(route, &fitting).await.map(|base| gathered.udp.push(base)),
            Proto::Tcp => tcp(route, &fitting).await.map(|base| gathered.tcp.push(base)),
        };
        refused = made.err().or(refused);
    }
    match refused {
        _ if !gathered.candidates().is_empty() => Ok(gathered),
        Some(error) => Err(error.into()),
        None => Err(PunchError::NoRoute),
    }
}

async fn udp(route: &Route, servers: &[SocketAddr]) -> Result<UdpBase, SocketError> {
    let local = route.local();
    let socket = registered(&local, UdpSocket::from_std(socket::datagram(&local, &SocketOptions::default())?.into()))?;
    let addr = registered(&local, socket.local_addr())?;
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    let timing = Timing::default().rto(Duration::from_millis(250)).requests(4).last_wait(2);
    let mut query = Query::new(&Request::new().timing(timing), servers, seed, Instant::now());
    query.handle_timeout(Instant::now());
    drive_from(&mut query, &[(route.family(), &socket)]).await;
    let answers = std::iter::from_fn(|| query.poll_event()).filter_map(|event| match event {
        Event::Answered(answer) => Some(answer.mapped),
        Event::Failed(_) => None,
    });
    let mapped = answers.into_iter().next();
    Ok(UdpBase { socket, local: addr, mapped })
}

async fn tcp(route: &Route, servers: &[SocketAddr]) -> Result<TcpBase, SocketError> {
    let wanted = route.local();
    let held = socket::stream(&wanted, &shared())?;
    let bound = held.local_addr().and_then(|addr| addr.as_socket().ok_or(io::ErrorKind::AddrNotAvailable.into()));
    let local = Local { addr: registered(&wanted, bound)?, ..wanted };
    for server in servers {
        match timeout(PATIENCE, ask(&local, *server)).await {
            Ok(Ok((stream, mapped))) => {
                return Ok(TcpBase { local, mapped: Some(mapped), _held: held, _server: Some(stream) });
            }
            Ok(Err(error)) => tracing::debug!(%error, %server, "no external TCP address"),
            Err(_) => tracing::debug!(%server, "no external TCP address in time"),
        }
    }
    Ok(TcpBase { local, mapped: None, _held: held, _server: None })
}

/// Several sockets on one port.
pub(super) fn shared() -> SocketOptions {
    SocketOptions { reuse_addr: true, reuse_port: true, nodelay: true, ..SocketOptions::default() }
}

async fn ask(local: &Local, server: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    let socket = socket::stream(local, &shared())?;
    let mut stream = TcpSocket::from_std_stream(socket.into()).connect(server).await?;
    let mut id = [0; 12];
    rand::rng().fill_bytes(&mut id);
    let request = Request::new().encode(TransactionId::modern(id), &Proof::default()).map_err(io::Error::other)?;
    stream.write_all(&request).await?;
    let mut buf = Vec::with_capacity(ROOM);
    loop {
        if let Some(len) = next_message(&buf, ROOM).map_err(io::Error::other)? {
            let message = Message::parse(&buf[..len]).map_err(io::Error::other)?;
            let ours = message.id() == TransactionId::modern(id);
            let mapped = message.mapped().filter(|_| ours).ok_or(io::ErrorKind::InvalidData)?;
            return Ok((stream, mapped));
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn registered<T>(local: &Local, result: io::Result<T>) -> Result<T, SocketError> {
    result.map_err(|source| SocketError { step: SocketStep::Register, target: local.to_string(), source })
}
