//! Kinds: what is behind each of them reaches the internet.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use natpipe::lab::{Host, Internet, Kind};

const PATIENCE: Duration = Duration::from_secs(1);

/// The address by which `server` is reached from behind `kind`.
fn reachable(server: &Host, kind: Kind) -> IpAddr {
    if kind.has_v4() { server.v4().unwrap() } else { server.v6().unwrap() }
}

fn any(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }
}

/// Whether a datagram sent from behind this kind comes back.
fn udp_passes(client: &Host, server: &Host, at: IpAddr) -> bool {
    let at_server = server.run(|| UdpSocket::bind((at, 0))).unwrap();
    let at_client = client.run(|| UdpSocket::bind(any(at))).unwrap();
    for socket in [&at_server, &at_client] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    at_client.send_to(b"ping", at_server.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 16];
    let Ok((length, from)) = at_server.recv_from(&mut buffer) else { return false };
    at_server.send_to(&buffer[..length], from).unwrap();
    at_client.recv(&mut buffer).is_ok_and(|length| buffer[..length] == *b"ping")
}

fn tcp_passes(client: &Host, server: &Host, at: IpAddr) -> bool {
    let listener = server.run(|| TcpListener::bind((at, 0))).unwrap();
    let to = listener.local_addr().unwrap();
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4];
        stream.read_exact(&mut buffer).unwrap();
        stream.write_all(&buffer).unwrap();
    });
    let mut stream = client.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
    stream.write_all(b"ping").unwrap();
    let mut buffer = [0; 4];
    stream.read_exact(&mut buffer).unwrap();
    echo.join().unwrap();
    buffer == *b"ping"
}

fn blocks_udp(kind: Kind) -> bool {
    kind == Kind::UdpBlocked || matches!(kind, Kind::Model(natpipe::nat::Kind::Blocked, _))
}

#[test]
fn behind_every_kind_udp_and_tcp_reach_a_server_unless_they_are_blocked() {
    let internet = Internet::new().unwrap();
    let server = internet.host("server").unwrap();
    for kind in Kind::ALL.into_iter().chain(Kind::models()) {
        let client = internet.behind(kind).unwrap();
        assert!(client.v4().is_some() == kind.has_v4() && client.v6().is_some() == kind.has_v6(), "{kind}");
        let at = reachable(&server, kind);
        assert_eq!(udp_passes(&client, &server, at), !blocks_udp(kind), "UDP behind {kind}");
        assert!(tcp_passes(&client, &server, at), "TCP behind {kind}");
        if kind.has_v4() && kind.has_v6() {
            assert!(blocks_udp(kind) || udp_passes(&client, &server, server.v6().unwrap()), "IPv6 behind {kind}");
        }
    }
}
