//! Waits: our own candidates: sockets on random ports, what STUN servers see of them, and how the NAT assigns ports.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use socket2::Socket;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::sleep_until;

use super::PunchError;
use super::ask::{self, PATIENCE};
use super::message::{CANDIDATES, Candidate, CandidateKind};
use super::shape::{Assigned, Shape};
use crate::nat::{Proto, own_hops};
use crate::net::{Family, Local, Route, SocketError, SocketOptions, SocketStep, socket};

/// When one route has its external address, the others are given so much more; what they have then follows later.
const MORE: Duration = Duration::from_millis(100);

/// Hops after which a packet has left our own NAT and not reached the peer's, where the routers do not tell.
const HOPS: u8 = 2;

/// A UDP socket and the address that servers see of it.
#[derive(Debug)]
pub(super) struct UdpBase {
    pub(super) socket: UdpSocket,
    pub(super) local: SocketAddr,
    pub(super) mapped: Option<SocketAddr>,
    /// It has sent nowhere yet: what servers would see of it is foreseen, and is true for whoever it sends to first.
    pub(super) fresh: bool,
}

/// A TCP port that is shared by a listener, many attempts and the connections to STUN servers, which hold its mapping.
#[derive(Debug)]
pub(super) struct TcpBase {
    pub(super) local: Local,
    pub(super) mapped: Option<SocketAddr>,
    pub(super) _held: Socket,
    pub(super) _servers: Vec<TcpStream>,
}

impl UdpBase {
    fn candidates(&self) -> Vec<Candidate> {
        candidates(Proto::Udp, self.local, self.mapped)
    }
}

impl TcpBase {
    fn candidates(&self) -> Vec<Candidate> {
        candidates(Proto::Tcp, self.local.addr, self.mapped)
    }
}

impl Base {
    /// Its host candidate, and the server-reflexive one where they differ.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        match self {
            Self::Udp(base) => base.candidates(),
            Self::Tcp(base) => base.candidates(),
        }
    }
}

fn candidates(proto: Proto, local: SocketAddr, mapped: Option<SocketAddr>) -> Vec<Candidate> {
    let host = Candidate { proto, kind: CandidateKind::Host, addr: local };
    let reflexive = |addr| Candidate { proto, kind: CandidateKind::ServerReflexive, addr };
    [Some(host), mapped.filter(|mapped| *mapped != local).map(reflexive)].into_iter().flatten().collect()
}

/// All that we have.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) udp: Vec<UdpBase>,
    pub(super) tcp: Vec<TcpBase>,
    /// What the bases are bound to, for more sockets of the kind.
    pub(super) locals: Vec<Local>,
    /// What the NAT before the first route that has one does.
    pub(super) shape: Option<Shape>,
    /// Which route that is.
    pub(super) shaped: usize,
    /// Where a plan's sockets are to be bound there, if it matters.
    pub(super) row: Option<Row>,
    /// After so many hops a packet has left our own NAT.
    pub(super) hops: u8,
    /// When all this was found: a NAT forgets.
    pub(super) at: Instant,
}

/// Sockets on neighbouring local ports, which get neighbouring external ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The port before the first.
    pub(super) after: u16,
    /// Nothing else may be sent before them: the NAT counts only while it sees one after the other.
    pub(super) alone: bool,
}

impl Row {
    /// The local port of one of them.
    pub(super) fn port(self, at: usize) -> u16 {
        // 0 is any: a row that would leave the ports is none.
        u16::try_from(usize::from(self.after) + 1 + at).unwrap_or(0)
    }
}

impl Default for Gathered {
    fn default() -> Self {
        Self {
            udp: Vec::new(),
            tcp: Vec::new(),
            locals: Vec::new(),
            shape: None,
            shaped: 0,
            row: None,
            hops: HOPS,
            at: Instant::now(),
        }
    }
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
        let udp = self.udp.iter().flat_map(UdpBase::candidates);
        udp.chain(self.tcp.iter().flat_map(TcpBase::candidates)).collect()
    }

    fn add(&mut self, base: Base, local: Local, seen: Seen) {
        self.note(self.locals.len(), seen);
        self.locals.push(local);
        match base {
            Base::Udp(base) => self.udp.push(base),
            Base::Tcp(base) => self.tcp.push(base),
        }
    }

    /// One more socket that is punched from, of the route that the shape is of.
    fn note(&mut self, at: usize, seen: Seen) {
        self.shape = self.shape.or(seen.shape);
        if self.shape.is_some() && self.shape == seen.shape {
            (self.shaped, self.hops, self.row) = (at, seen.hops.unwrap_or(HOPS), seen.row);
        }
    }
}

/// What is known of the NAT before a socket.
#[derive(Debug, Default)]
struct Seen {
    shape: Option<Shape>,
    hops: Option<u8>,
    row: Option<Row>,
}

/// What one route has: its socket, what it is bound to, and what is known of the NAT there.
#[derive(Debug)]
pub(super) enum Base {
    Udp(UdpBase),
    Tcp(TcpBase),
}

type One = (Base, Local, Seen);

/// Sockets on every route, each asked for its external address at the same time. Those that can not be made are left out
/// unless none can.
pub(super) struct Gathering<'a> {
    looking: FuturesUnordered<BoxFuture<'a, Result<One, SocketError>>>,
    found: Gathered,
    /// When the others are not waited for any more.
    until: Option<Instant>,
    refused: Option<SocketError>,
}

impl<'a> Gathering<'a> {
    pub(super) fn new(proto: Proto, routes: &'a [Route], servers: &[SocketAddr]) -> Self {
        let one = |route: &'a Route| -> BoxFuture<'a, Result<One, SocketError>> {
            let family = |server: &SocketAddr| Family::of(server.ip()) == route.family();
            let fitting: Vec<SocketAddr> = servers.iter().copied().filter(family).collect();
            Box::pin(async move {
                let (base, seen) = match proto {
                    Proto::Udp => udp(route, &fitting).await.map(|(base, seen)| (Base::Udp(base), seen))?,
                    Proto::Tcp => tcp(route, &fitting).await.map(|(base, seen)| (Base::Tcp(base), seen))?,
                };
                Ok((base, route.local(), seen))
            })
        };
        let looking = routes.iter().map(one).collect();
        Self { looking, found: Gathered::default(), until: None, refused: None }
    }

    /// Until every route has come to an end, or one has an external address and the others had a moment more. Cancel safe.
    pub(super) async fn first(&mut self) -> Result<Gathered, PunchError> {
        while !self.looking.is_empty() {
            let until = self.until.unwrap_or_else(Instant::now);
            tokio::select! {
                Some(one) = self.looking.next() => self.take(one),
                () = sleep_until(until.into()), if self.until.is_some() => break,
            }
        }
        self.outcome()
    }

    /// Until every route has come to an end.
    pub(super) async fn all(mut self) -> Result<Gathered, PunchError> {
        while let Some(one) = self.looking.next().await {
            self.take(one);
        }
        self.outcome()
    }

    /// True while a route is still being asked for.
    pub(super) fn is_looking(&self) -> bool {
        !self.looking.is_empty()
    }

    /// One that came later; `None` when there is none any more. Cancel safe.
    pub(super) async fn later(&mut self) -> Option<Base> {
        loop {
            match self.looking.next().await? {
                Ok((base, ..)) => return Some(base),
                Err(error) => tracing::debug!(%error, "no socket to punch from"),
            }
        }
    }

    fn take(&mut self, one: Result<One, SocketError>) {
        match one {
            Ok((base, local, seen)) => {
                if base.candidates().len() > 1 {
                    self.until.get_or_insert_with(|| Instant::now() + MORE);
                }
                self.found.add(base, local, seen);
            }
            Err(error) => self.refused = Some(error),
        }
    }

    fn outcome(&mut self) -> Result<Gathered, PunchError> {
        match self.refused.take() {
            _ if !self.found.candidates().is_empty() => {
                Ok(Gathered { at: Instant::now(), ..std::mem::take(&mut self.found) })
            }
            Some(error) => Err(error.into()),
            None => Err(PunchError::NoRoute),
        }
    }
}

/// A socket of a route, as many as are wanted.
pub(super) fn udp_socket(local: &Local, ttl: Option<u8>) -> Result<UdpSocket, SocketError> {
    let options = SocketOptions { ttl, ..SocketOptions::default() };
    registered(local, UdpSocket::from_std(socket::datagram(local, &options)?.into()))
}

async fn udp(route: &Route, servers: &[SocketAddr]) -> Result<(UdpBase, Seen), SocketError> {
    let local = route.local();
    let socket = udp_socket(&local, None)?;
    let addr = registered(&local, socket.local_addr())?;
    let same = ask::udp(&socket, servers).await;
    let mapped = same.first().map(|(_, mapped)| *mapped);
    let Some(&(server, SocketAddr::V4(v4))) = same.first() else {
        return Ok((UdpBase { socket, local: addr, mapped, fresh: false }, Seen::default()));
    };
    let (mut hops, mut fresh) = (None, Vec::new());
    if may_move(addr, &same) {
        // Before the fresh sockets: some NATs count on from the last one only.
        hops = own_hops(route, server, PATIENCE / 8).await;
        fresh = ask::answers(ask::fresh_udp(&local, server)).await;
    }
    if let Some(by) = Assigned::fresh_by(&fresh) {
        let socket = udp_socket(&local, None)?;
        let addr = registered(&local, socket.local_addr())?;
        if let Some(seen) = foreseen(addr, *v4.ip(), by) {
            let mapped = seen.shape.map(|shape| shape.addr.into());
            return Ok((UdpBase { socket, local: addr, mapped, fresh: true }, seen));
        }
    }
    let seen = seen(hops, (addr, v4), &same, &fresh);
    Ok((UdpBase { socket, local: addr, mapped, fresh: false }, seen))
}

/// What is known of a socket that has sent nowhere yet.
fn foreseen(local: SocketAddr, ip: Ipv4Addr, by: i32) -> Option<Seen> {
    let port = u16::try_from(i32::from(local.port()) + by).ok().filter(|port| *port != 0)?;
    let addr = SocketAddrV4::new(ip, port);
    tracing::debug!(%addr, by, "our NAT moves ports, and what it gives a fresh socket is foreseen");
    let row = Some(Row { after: local.port(), alone: false });
    Some(Seen { shape: Some(Shape { addr, ports: Assigned::First }), hops: None, row })
}

async fn tcp(route: &Route, servers: &[SocketAddr]) -> Result<(TcpBase, Seen), SocketError> {
    let wanted = route.local();
    let (held, local) = held(&wanted)?;
    let (streams, same) = ask::tcp(&local, servers).await;
    let mapped = same.first().map(|(_, mapped)| *mapped);
    let Some(&(server, SocketAddr::V4(v4))) = same.first() else {
        return Ok((TcpBase { local, mapped, _held: held, _servers: streams }, Seen::default()));
    };
    let (mut hops, mut fresh) = (None, Vec::new());
    if may_move(local.addr, &same) {
        hops = own_hops(route, server, PATIENCE / 8).await;
        fresh = ask::fresh_tcp(&wanted, server).await;
    }
    if let Some(by) = Assigned::fresh_by(&fresh) {
        let (held, local) = self::held(&wanted)?;
        if let Some(seen) = foreseen(local.addr, *v4.ip(), by) {
            let mapped = seen.shape.map(|shape| shape.addr.into());
            return Ok((TcpBase { local, mapped, _held: held, _servers: streams }, seen));
        }
    }
    let seen = seen(hops, (local.addr, v4), &same, &fresh);
    Ok((TcpBase { local, mapped, _held: held, _servers: streams }, seen))
}

/// A port that is ours as long as the socket lives.
fn held(wanted: &Local) -> Result<(Socket, Local), SocketError> {
    let held = socket::stream(wanted, &shared())?;
    let bound = held.local_addr().and_then(|addr| addr.as_socket().ok_or(io::ErrorKind::AddrNotAvailable.into()));
    let local = Local { addr: registered(wanted, bound)?, ..wanted.clone() };
    Ok((held, local))
}

/// What servers, each named, have seen of one socket.
type SameSocket = [(SocketAddr, SocketAddr)];

fn ports(same: &SameSocket) -> Vec<u16> {
    same.iter().map(|(_, mapped)| mapped.port()).collect()
}

fn may_move(local: SocketAddr, same: &SameSocket) -> bool {
    Assigned::may_move(local.port(), &ports(same))
}

fn seen(
    hops: Option<u8>,
    (local, mapped): (SocketAddr, SocketAddrV4),
    same: &SameSocket,
    fresh: &[(u16, u16)],
) -> Seen {
    let ports = Assigned::of(local.port(), &ports(same), fresh);
    let row = Assigned::row(fresh).map(|after| Row { after, alone: true });
    tracing::debug!(%mapped, ?ports, ?hops, ?row, "what our NAT does");
    Seen { shape: Some(Shape { addr: mapped, ports }), hops, row }
}

/// Several sockets on one port.
pub(super) fn shared() -> SocketOptions {
    SocketOptions { reuse_addr: true, reuse_port: true, nodelay: true, ..SocketOptions::default() }
}

fn registered<T>(local: &Local, result: io::Result<T>) -> Result<T, SocketError> {
    result.map_err(|source| SocketError { step: SocketStep::Register, target: local.to_string(), source })
}
