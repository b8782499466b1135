//! Waits: one route's socket on a random port, what STUN servers see of it, and how its NAT assigns ports.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use socket2::Socket;
use tokio::net::{TcpStream, UdpSocket};

use super::ask::{self, PATIENCE};
use super::message::{Candidate, CandidateKind};
use super::shape::{Assigned, Shape};
use crate::nat::{Proto, own_hops};
use crate::net::{Local, Route, SocketError, SocketOptions, SocketStep, socket};

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
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        candidates(Proto::Udp, self.local, self.mapped)
    }
}

impl TcpBase {
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        candidates(Proto::Tcp, self.local.addr, self.mapped)
    }
}

impl Base {
    /// A server told where it comes from, and that is elsewhere.
    pub(super) fn has_external(&self) -> bool {
        self.mapped().is_some_and(|mapped| mapped != self.local())
    }

    pub(super) fn local(&self) -> SocketAddr {
        match self {
            Self::Udp(base) => base.local,
            Self::Tcp(base) => base.local.addr,
        }
    }

    pub(super) fn mapped(&self) -> Option<SocketAddr> {
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

/// What is known of the NAT before a socket.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) shape: Option<Shape>,
    pub(super) hops: Option<u8>,
    pub(super) row: Option<Row>,
}

/// What one route has: its socket, what it is bound to, and what is known of the NAT there.
#[derive(Debug)]
pub(super) enum Base {
    Udp(UdpBase),
    Tcp(TcpBase),
}

/// A socket of a route, as many as are wanted.
pub(super) fn udp_socket(local: &Local, ttl: Option<u8>) -> Result<UdpSocket, SocketError> {
    let options = SocketOptions { ttl, ..SocketOptions::default() };
    registered(local, UdpSocket::from_std(socket::datagram(local, &options)?.into()))
}

pub(super) async fn udp(route: &Route, servers: &[SocketAddr]) -> Result<(UdpBase, Seen), SocketError> {
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

pub(super) async fn tcp(route: &Route, servers: &[SocketAddr]) -> Result<(TcpBase, Seen), SocketError> {
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
