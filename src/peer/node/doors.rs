//! Waits: where others may knock: a TCP port and a UDP port of one number on every interface.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::Endpoint;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::ports::Ports;
use super::secure;
use crate::key::tls::Allowed;
use crate::key::{Identity, TicketAddress};
use crate::net::{Family, Interface, Local, Scope, SocketOptions, socket};
use crate::peer::quic;
use crate::peer::session::SessionId;

/// How long a straight connection may take: what is near answers at once, and what is not there never.
const KNOCK: Duration = Duration::from_secs(4);

/// A free UDP port may be taken over TCP.
const TRIES: usize = 16;

/// The first byte of who connects back, where TLS would begin with another one.
const BACK: u8 = 0xB5;

/// Addresses of one family in a ticket.
const SHOWN: usize = 3;

/// The open doors.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) tcp: TcpListener,
    pub(super) quic: Endpoint,
    pub(super) port: u16,
    /// What gateways have opened for them, where they are asked to.
    pub(super) ports: OnceLock<Arc<Ports>>,
}

impl Doors {
    /// Opens them on a free port.
    pub(super) fn open(identity: &Identity, allowed: &Allowed) -> io::Result<Self> {
        let mut tried = Self::try_open(identity, allowed);
        for _ in 1..TRIES {
            match &tried {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => tried = Self::try_open(identity, allowed),
                _ => break,
            }
        }
        tried
    }

    fn try_open(identity: &Identity, allowed: &Allowed) -> io::Result<Self> {
        // Where there is no IPv6, the IPv4 any-address does.
        let any = [Family::V6, Family::V4];
        let tcp = first(any, |family| {
            let listener = socket::listener(&Local::any(family), &SocketOptions::default())?;
            TcpListener::from_std(listener.into())
        })?;
        let port = tcp.local_addr()?.port();
        let udp = first(any, |family| {
            let local = Local::from(SocketAddr::new(family.unspecified(), port));
            Ok(socket::datagram(&local, &SocketOptions::default())?)
        })?;
        let quic = quic::on(udp.into(), Some(secure::quic_server(identity, allowed.clone())?))?;
        Ok(Self { tcp, quic, port, ports: OnceLock::new() })
    }

    /// Where others may find the doors: what gateways have opened, then what the interfaces have, the widest scope first.
    pub(super) fn addresses(&self, wanted: impl Fn(&Interface) -> bool) -> Vec<TicketAddress> {
        let mut addresses = self.ports.get().map(|ports| ports.addresses()).unwrap_or_default();
        for own in self.own(wanted) {
            // A pinhole's address is our own.
            if !addresses.iter().any(|known| known.addr == own.addr && known.udp && known.tcp) {
                addresses.retain(|known| known.addr != own.addr);
                addresses.push(own);
            }
        }
        addresses
    }

    fn own(&self, wanted: impl Fn(&Interface) -> bool) -> Vec<TicketAddress> {
        let mut found: Vec<(Scope, IpAddr)> = interfaces(wanted)
            .iter()
            .flat_map(|interface| interface.addrs().iter().map(|addr| addr.ip))
            .map(|ip| (Scope::of(ip), ip))
            .filter(|(scope, _)| *scope != Scope::LinkLocal && *scope != Scope::Loopback)
            .collect();
        found.sort_by_key(|(scope, ip)| (scope.is_inside(), ip.is_ipv6()));
        let of = |v6: bool| found.iter().filter(move |(_, ip)| ip.is_ipv6() == v6).take(SHOWN);
        let mut shown: Vec<IpAddr> = of(false).chain(of(true)).map(|(_, ip)| *ip).collect();
        if shown.is_empty() {
            // A machine without a network can still talk to itself.
            shown.push(Family::V4.loopback());
        }
        shown
            .into_iter()
            .map(|ip| TicketAddress { addr: SocketAddr::new(ip, self.port), udp: true, tcp: true })
            .collect()
    }
}

/// The interfaces that are up and lead anywhere.
pub(super) fn interfaces(wanted: impl Fn(&Interface) -> bool) -> Vec<Interface> {
    let all = Interface::list().unwrap_or_else(|error| {
        tracing::warn!(%error, "the interfaces can not be listed");
        Vec::new()
    });
    all.into_iter().filter(|interface| wanted(interface)).collect()
}

fn first<T>(families: [Family; 2], open: impl Fn(Family) -> io::Result<T>) -> io::Result<T> {
    open(families[0]).or_else(|_| open(families[1]))
}

/// A TCP connection straight to an address, from there.
pub(super) async fn knock(from: &Local, to: SocketAddr) -> io::Result<TcpStream> {
    let options = SocketOptions { nodelay: true, ..SocketOptions::default() };
    let socket = socket::stream(from, &options)?;
    let connecting = TcpSocket::from_std_stream(socket.into()).connect(to);
    timeout(KNOCK, connecting).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// A QUIC endpoint that only calls.
pub(super) fn endpoint_at(from: &Local) -> io::Result<Endpoint> {
    quic::on(socket::datagram(from, &SocketOptions::default())?.into(), None)
}

/// The first word of who was asked to connect back.
pub(super) fn back(session: SessionId) -> [u8; 17] {
    let mut word = [BACK; 17];
    word[1..].copy_from_slice(&session.0);
    word
}

/// Whether a connection begins with that word; nothing is taken out of it otherwise.
pub(super) async fn comes_back(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let seen = timeout(KNOCK, stream.peek(&mut first)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(seen == 1 && first[0] == BACK)
}
