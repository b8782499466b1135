//! Waits: a query over one UDP socket of each family.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::time::sleep_until;

use super::super::query::Query;
use crate::net::{Family, Local, Route, SocketError, SocketOptions, SocketStep, socket};

/// Room for an answer: longer ones are cut off, and then malformed.
const ROOM: usize = 2048;

/// Drives the query until it is over, from a socket of its own for each family.
///
/// # Errors
/// No socket can be made in any family.
pub(super) async fn drive(query: &mut Query, servers: &[SocketAddr], route: Option<&Route>) -> Result<(), SocketError> {
    let mut sockets = Vec::new();
    let mut refused = None;
    for family in Family::BOTH {
        if !servers.iter().any(|server| Family::of(server.ip()) == family) {
            continue;
        }
        match open(family, route) {
            Ok(socket) => sockets.push((family, socket)),
            Err(error) => refused = Some(error),
        }
    }
    if let (true, Some(error)) = (sockets.is_empty(), refused) {
        return Err(error);
    }
    let sockets: Vec<(Family, &UdpSocket)> = sockets.iter().map(|(family, socket)| (*family, socket)).collect();
    drive_from(query, &sockets).await;
    Ok(())
}

/// The same from these sockets, at most one of each family. Packets of others that come to them are dropped.
pub(crate) async fn drive_from(query: &mut Query, sockets: &[(Family, &UdpSocket)]) {
    let (mut first, mut second) = ([0; ROOM], [0; ROOM]);
    loop {
        transmit(query, sockets);
        let Some(next) = query.poll_timeout() else { return };
        tokio::select! {
            (len, from) = receive(sockets.first(), &mut first) => { query.handle_packet(Instant::now(), from, &first[..len]); }
            (len, from) = receive(sockets.get(1), &mut second) => { query.handle_packet(Instant::now(), from, &second[..len]); }
            () = sleep_until(next.into()) => query.handle_timeout(Instant::now()),
        }
    }
}

fn open(family: Family, route: Option<&Route>) -> Result<UdpSocket, SocketError> {
    let local = route.map_or_else(|| Local::any(family), Route::local);
    let socket = socket::datagram(&local, &SocketOptions::default())?;
    UdpSocket::from_std(socket.into()).map_err(|source| SocketError {
        step: SocketStep::Register,
        target: local.to_string(),
        source,
    })
}

/// Sends what is due. What can not be sent now counts as lost, what never can as a failure.
fn transmit(query: &mut Query, sockets: &[(Family, &UdpSocket)]) {
    while let Some(transmit) = query.poll_transmit() {
        let from = sockets.iter().find(|(family, _)| *family == Family::of(transmit.to.ip()));
        let sent = match from {
            Some((_, socket)) => socket::send_now(socket, &transmit.bytes, transmit.to),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        match sent {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => query.handle_unreachable(Instant::now(), transmit.to, error),
        }
    }
}

/// The next packet. An error is an earlier packet's (ICMP), which the timers take care of.
async fn receive(socket: Option<&(Family, &UdpSocket)>, buf: &mut [u8]) -> (usize, SocketAddr) {
    let Some((_, socket)) = socket else { return std::future::pending().await };
    loop {
        match socket.recv_from(buf).await {
            Ok(received) => return received,
            Err(error) => tracing::trace!(%error, "receiving"),
        }
    }
}
