//! Waits: our own candidates: sockets on random ports, what STUN servers see of them, and how the NAT assigns ports.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use socket2::Socket;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep_until, timeout_at};

use super::PunchError;
use super::ask::{self, PATIENCE};
use super::assisted::Assisted;
use super::message::{CANDIDATES, Candidate, CandidateKind};
use super::shape::{Assigned, Shape};
use crate::nat::{Proto, own_hops};
use crate::net::{Family, Local, Route, SocketError, SocketOptions, SocketStep, socket};

/// When one route has its external address, the others are given so much more; what they have then follows later.
const MORE: Duration = Duration::from_millis(100);

/// How long gateways are waited for where what they open can not be told later.
const GATEWAYS: Duration = Duration::from_secs(2);

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
    /// A server told where it comes from, and that is elsewhere.
    fn has_external(&self) -> bool {
        self.mapped().is_some_and(|mapped| mapped != self.local())
    }

    fn local(&self) -> SocketAddr {
        match self {
            Self::Udp(base) => base.local,
            Self::Tcp(base) => base.local.addr,
        }
    }

    fn mapped(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp(base) => base.mapped,
            Self::Tcp(base) => base.mapped,
        }
    }

    /// Its host candidate, and the server-reflexive one where they differ.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        match self {
            Self::Udp(base) => base.candidates(),
            Self::Tcp(base) => base.candidates(),
        }
    }
}

fn candidates(proto: Proto, local: SocketAddr, mapped: Option<SocketAddr>) -> Vec<Candidate> {
    let host = Candidate::new(proto, CandidateKind::Host, local);
    let reflexive = |addr| Candidate::new(proto, CandidateKind::ServerReflexive, addr);
    [Some(host), mapped.filter(|mapped| *mapped != local).map(reflexive)].into_iter().flatten().collect()
}

/// All that we have.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) udp: Vec<UdpBase>,
    pub(super) tcp: Vec<TcpBase>,
    /// What gateways have opened.
    pub(super) assisted: Vec<Candidate>,
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
            assisted: Vec::new(),
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
        all.sort_by_key(|candidate| candidate.kind == CandidateKind::Host);
        all.truncate(CANDIDATES);
        all
    }

    /// Host candidates, server-reflexive ones where they differ, and what gateways have opened.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let udp = self.udp.iter().flat_map(UdpBase::candidates);
        let tcp = self.tcp.iter().flat_map(TcpBase::candidates);
        udp.chain(tcp).chain(self.assisted.iter().copied()).collect()
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

type One = (usize, Base, Seen);

/// What comes after the first.
#[derive(Debug)]
pub(super) enum Found {
    /// One more socket.
    Base(Base),
    /// A gateway has opened a port of one that is known.
    Assisted(Candidate),
}

/// Sockets on every route, each asked for its external address at the same time, and its gateway for a port. Those that can not be
/// made are left out unless none can.
pub(super) struct Gathering<'a> {
    routes: &'a [Route],
    looking: FuturesUnordered<BoxFuture<'a, Result<One, SocketError>>>,
    found: Gathered,
    /// When the others are not waited for any more.
    until: Option<Instant>,
    refused: Option<SocketError>,
    assisted: Option<Assisted>,
}

impl<'a> Gathering<'a> {
    /// Gateways are asked where `assisted` is.
    pub(super) fn new(proto: Proto, routes: &'a [Route], servers: &[SocketAddr], assisted: bool) -> Self {
        let one = |(at, route): (usize, &'a Route)| -> BoxFuture<'a, Result<One, SocketError>> {
            let family = |server: &SocketAddr| Family::of(server.ip()) == route.family();
            let fitting: Vec<SocketAddr> = servers.iter().copied().filter(family).collect();
            Box::pin(async move {
                let (base, seen) = match proto {
                    Proto::Udp => udp(route, &fitting).await.map(|(base, seen)| (Base::Udp(base), seen))?,
                    Proto::Tcp => tcp(route, &fitting).await.map(|(base, seen)| (Base::Tcp(base), seen))?,
                };
                Ok((at, base, seen))
            })
        };
        let looking = routes.iter().enumerate().map(one).collect();
        let assisted = assisted.then(Assisted::default);
        Self { routes, looking, found: Gathered::default(), until: None, refused: None, assisted }
    }

    /// Until every route has come to an end, or one has an external address and the others had a moment more. Cancel safe.
    pub(super) async fn first(&mut self) -> Result<Gathered, PunchError> {
        while !self.looking.is_empty() {
            let until = self.until.unwrap_or_else(Instant::now);
            tokio::select! {
                Some(one) = self.looking.next() => self.take(one),
                Some(opened) = opened(&mut self.assisted) => self.found.assisted.push(opened),
                () = sleep_until(until.into()), if self.until.is_some() => break,
            }
        }
        self.outcome()
    }

    /// Until every route has come to an end, and every gateway, though that is not waited for so long.
    pub(super) async fn all(&mut self) -> Result<Gathered, PunchError> {
        while let Some(one) = self.looking.next().await {
            self.take(one);
        }
        let until = Instant::now() + GATEWAYS;
        while let Ok(Some(opened)) = timeout_at(until.into(), opened(&mut self.assisted)).await {
            self.found.assisted.push(opened);
        }
        self.outcome()
    }

    /// True while a route or a gateway is still being asked.
    pub(super) fn is_looking(&self) -> bool {
        !self.looking.is_empty() || self.assisted.as_ref().is_some_and(Assisted::is_asking)
    }

    /// What came later; `None` when there is nothing any more. Cancel safe.
    pub(super) async fn later(&mut self) -> Option<Found> {
        loop {
            tokio::select! {
                Some(one) = self.looking.next() => match one {
                    Ok((at, base, _)) => {
                        self.ask_gateway(at, &base);
                        return Some(Found::Base(base));
                    }
                    Err(error) => tracing::debug!(%error, "no socket to punch from"),
                },
                Some(opened) = opened(&mut self.assisted) => return Some(Found::Assisted(opened)),
                else => return None,
            }
        }
    }

    /// What gateways have opened, and go on keeping open.
    pub(super) fn assisted(self) -> Option<Assisted> {
        self.assisted
    }

    fn ask_gateway(&mut self, at: usize, base: &Base) {
        let proto = if matches!(base, Base::Udp(_)) { Proto::Udp } else { Proto::Tcp };
        if let (Some(assisted), Some(route)) = (&mut self.assisted, self.routes.get(at)) {
            assisted.ask(route, proto, base.local().port(), base.mapped().map(|mapped| mapped.ip()));
        }
    }

    fn take(&mut self, one: Result<One, SocketError>) {
        match one {
            Ok((at, base, seen)) => {
                if base.has_external() {
                    self.until.get_or_insert_with(|| Instant::now() + MORE);
                }
                self.ask_gateway(at, &base);
                self.found.add(base, self.routes[at].local(), seen);
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

/// The next port that a gateway has opened; `None` when none is being asked.
async fn opened(assisted: &mut Option<Assisted>) -> Option<Candidate> {
    assisted.as_mut()?.next().await
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
