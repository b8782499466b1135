//! Waits: a test over TCP: connections from chosen local ports, kept open until it is done.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use socket2::Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::time::sleep_until;

use super::{Asking, words};
use crate::base::task::Nursery;
use crate::nat::probe::{Effect, SocketId, Transmit};
use crate::net::{Local, Route, SocketOptions, socket};
use crate::stun::next_message;

/// The longest answer.
const ROOM: usize = 2048;

/// A port of ours: this socket holds it, and connections share it.
struct Held {
    local: Local,
    _placeholder: Socket,
}

/// What became of one connection.
struct Ended {
    transmit: Transmit,
    result: io::Result<(TcpStream, Vec<u8>)>,
}

/// Drives the test until it is done; then all connections are closed.
pub(super) async fn drive(test: &mut impl Asking, route: &Route) {
    let begun = Instant::now();
    let mut ports = BTreeMap::new();
    let mut exchanges = Nursery::new(&Handle::current());
    // A NAT may drop a mapping with its connection, and the tests compare mappings.
    let mut open = Vec::new();
    loop {
        while let Some(effect) = test.poll_effect() {
            match effect {
                Effect::Open { socket, port } => hold(test, begun, route, socket, port, &mut ports),
                Effect::Send(transmit) => {
                    if let (Some(held), Some(bytes)) = (ports.get(&transmit.socket), words::encode(&transmit)) {
                        exchanges.begin(exchange(held.local.clone(), transmit, bytes));
                    }
                }
            }
        }
        if test.is_done() {
            return;
        }
        let Some(next) = test.poll_timeout() else { return };
        tokio::select! {
            Some(ended) = exchanges.next(), if !exchanges.is_empty() => open.extend(tell(test, begun, ended)),
            () = sleep_until((begun + next).into()) => test.handle_timeout(begun.elapsed()),
        }
    }
}

fn hold(
    test: &mut impl Asking,
    begun: Instant,
    route: &Route,
    socket: SocketId,
    port: u16,
    ports: &mut BTreeMap<SocketId, Held>,
) {
    match place(route, port).or_else(|_| place(route, 0)) {
        Ok(held) => {
            let local = held.local.addr;
            ports.insert(socket, held);
            test.handle_opened(begun.elapsed(), socket, local);
        }
        Err(error) => {
            tracing::debug!(%error, "a port of the test can not be had");
            test.handle_open_failed(begun.elapsed(), socket);
        }
    }
}

fn shared() -> SocketOptions {
    SocketOptions { reuse_addr: true, reuse_port: true, nodelay: true, ..SocketOptions::default() }
}

/// Takes a port; the connections from it are made with the same options.
fn place(route: &Route, port: u16) -> io::Result<Held> {
    let Local { addr, interface } = route.local();
    let local = Local { addr: SocketAddr::new(addr.ip(), port), interface };
    let socket = socket::stream(&local, &shared())?;
    let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(Held { local: Local { addr, ..local }, _placeholder: socket })
}

/// Tells the test how an exchange ended, and returns the connection, to be kept.
fn tell(test: &mut impl Asking, begun: Instant, ended: Ended) -> Option<TcpStream> {
    let Transmit { socket, to, id, .. } = ended.transmit;
    match ended.result {
        Ok((stream, bytes)) => {
            words::hear(test, begun.elapsed(), socket, to, &bytes);
            return Some(stream);
        }
        // A repetition while the first attempt still waits has no place of its own: the first one goes on.
        Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable) => {}
        Err(error) => {
            tracing::debug!(%error, %to, "connecting");
            test.handle_failed(begun.elapsed(), id);
        }
    }
    None
}

async fn exchange(local: Local, transmit: Transmit, request: Vec<u8>) -> Ended {
    let result = ask(&local, transmit.to, &request).await;
    Ended { transmit, result }
}

async fn ask(local: &Local, to: SocketAddr, request: &[u8]) -> io::Result<(TcpStream, Vec<u8>)> {
    let socket = socket::stream(local, &shared())?;
    let mut stream = TcpSocket::from_std_stream(socket.into()).connect(to).await?;
    stream.write_all(request).await?;
    let mut buf = Vec::with_capacity(ROOM);
    loop {
        if let Some(len) = next_message(&buf, ROOM).map_err(io::Error::other)? {
            buf.truncate(len);
            return Ok((stream, buf));
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
