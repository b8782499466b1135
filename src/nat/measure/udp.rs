//! Waits: a test over UDP: its sockets, its packets and its clock.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::time::sleep_until;

use super::{Asking, words};
use crate::nat::probe::{Effect, SocketId, Transmit};
use crate::net::{Local, Route, SocketOptions, receive_any, socket};

/// Room for an answer.
const ROOM: usize = 2048;

/// Drives the test until it is done.
pub(super) async fn drive(test: &mut impl Asking, route: &Route) {
    let begun = Instant::now();
    let mut sockets = BTreeMap::new();
    let mut buf = vec![0; ROOM];
    loop {
        act(test, begun, route, &mut sockets);
        if test.is_done() {
            return;
        }
        let Some(next) = test.poll_timeout() else { return };
        tokio::select! {
            biased;
            (socket, from, len) = receive_any(|| sockets.iter().map(|(id, socket)| (*id, socket)), &mut buf) => words::hear(test, begun.elapsed(), socket, from, &buf[..len]),
            () = sleep_until((begun + next).into()) => test.handle_timeout(begun.elapsed()),
        }
    }
}

/// Opens and sends, in the test's order.
fn act(test: &mut impl Asking, begun: Instant, route: &Route, sockets: &mut BTreeMap<SocketId, UdpSocket>) {
    while let Some(effect) = test.poll_effect() {
        match effect {
            Effect::Open { socket, port } => match open(route, port).or_else(|_| open(route, 0)) {
                Ok((opened, local)) => {
                    sockets.insert(socket, opened);
                    test.handle_opened(begun.elapsed(), socket, local);
                }
                Err(error) => {
                    tracing::debug!(%error, "a socket of the test can not be opened");
                    test.handle_open_failed(begun.elapsed(), socket);
                }
            },
            Effect::Send(transmit) => send(test, begun, sockets, &transmit),
        }
    }
}

fn open(route: &Route, port: u16) -> io::Result<(UdpSocket, SocketAddr)> {
    let Local { addr, interface } = route.local();
    let local = Local { addr: SocketAddr::new(addr.ip(), port), interface };
    let socket = socket::datagram(&local, &SocketOptions::default())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let local = socket.local_addr()?;
    Ok((socket, local))
}

/// A packet that can not be sent now is as good as lost; the test repeats it.
fn send(test: &mut impl Asking, begun: Instant, sockets: &BTreeMap<SocketId, UdpSocket>, transmit: &Transmit) {
    let (Some(from), Some(bytes)) = (sockets.get(&transmit.socket), words::encode(transmit)) else { return };
    if let Err(error) = socket::send_now(from, &bytes, transmit.to) {
        tracing::debug!(%error, to = %transmit.to, "sending");
        if is_hopeless(&error) {
            test.handle_failed(begun.elapsed(), transmit.id);
        }
    }
}

fn is_hopeless(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable)
}
