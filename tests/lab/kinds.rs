//! Kinds: what is behind each of them reaches the internet.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use natpipe::lab::{Host, Internet, Kind, LabError, Link};

/// For what must come; waited for in full only where UDP is blocked.
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

/// Whether more than a segment's worth of bytes comes back as it was sent.
fn tcp_passes(client: &Host, server: &Host, at: IpAddr) -> bool {
    let listener = server.run(|| TcpListener::bind((at, 0))).unwrap();
    let stream = client.run(|| TcpStream::connect_timeout(&listener.local_addr().unwrap(), PATIENCE)).unwrap();
    echoes(stream, listener.accept().unwrap().0)
}

fn echoes(mut near: TcpStream, mut far: TcpStream) -> bool {
    let sent: Vec<u8> = (0..1 << 18).map(|n: u32| (n >> 3) as u8).collect();
    let echo = thread::spawn(move || {
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        far.write_all(&all).unwrap();
    });
    near.write_all(&sent).unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    near.read_to_end(&mut back).unwrap();
    echo.join().unwrap();
    back == sent
}

fn blocks_udp(kind: Kind) -> bool {
    kind == Kind::UdpBlocked || matches!(kind, Kind::Model(natpipe::nat::Kind::Blocked, _))
}

#[test]
fn a_direct_internet_has_every_kind_but_the_models() {
    let internet = Internet::direct().unwrap();
    let server = internet.host("server").unwrap();
    for kind in Kind::ALL {
        let client = internet.behind(kind).unwrap();
        let at = reachable(&server, kind);
        assert_eq!(udp_passes(&client, &server, at), !blocks_udp(kind), "UDP behind {kind}");
        assert!(tcp_passes(&client, &server, at), "TCP behind {kind}");
    }
    let second = server.add_addresses("eth0").unwrap();
    let client = internet.host("client").unwrap();
    for at in second.into_iter().chain([server.v4().unwrap(), server.v6().unwrap()]) {
        assert!(udp_passes(&client, &server, at), "{at}");
    }
    server.set_up("eth0", false).unwrap();
    server.set_up("eth0", true).unwrap();
    for at in [server.v4().unwrap(), server.v6().unwrap()] {
        assert!(udp_passes(&client, &server, at), "{at} after it was down");
    }
    let model = Kind::models().next().unwrap();
    assert!(matches!(internet.behind(model), Err(LabError::Direct)));
    assert!(matches!(server.set_link("eth0", Link::steady(PATIENCE)), Err(LabError::Direct)));
}

#[test]
fn without_tun_devices_every_kind_is_the_same() {
    let internet = Internet::without_tun(Link::steady(Duration::ZERO), 1).unwrap();
    let server = internet.host("server").unwrap();
    for kind in Kind::ALL.into_iter().chain(Kind::models()) {
        let client = internet.behind(kind).unwrap();
        let at = reachable(&server, kind);
        assert_eq!(udp_passes(&client, &server, at), !blocks_udp(kind), "UDP behind {kind}");
        assert!(tcp_passes(&client, &server, at), "TCP behind {kind}");
    }
    server.set_up("eth0", false).unwrap();
    server.set_up("eth0", true).unwrap();
    let client = internet.host("client").unwrap();
    for at in [server.v4().unwrap(), server.v6().unwrap()] {
        assert!(udp_passes(&client, &server, at), "{at} after it was down");
    }
    client.detach("eth0").unwrap();
    let interface = client.attach(&internet).unwrap();
    assert_eq!(interface.name, "eth1");
    assert!(udp_passes(&client, &server, server.v4().unwrap()), "a new interface in place of another");
    assert!(internet.traffic().delivered > 100);
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

#[test]
fn nat64_reaches_ipv4_from_ipv6_alone() {
    let internet = Internet::new().unwrap();
    let server = internet.host("server").unwrap();
    let client = internet.behind(Kind::Nat64).unwrap();
    assert_eq!(client.v4(), None);
    let at_server = server.run(|| UdpSocket::bind((server.v4().unwrap(), 0))).unwrap();
    let to = through_nat64(at_server.local_addr().unwrap());
    let at_client = client.run(|| UdpSocket::bind("[::]:0")).unwrap();
    for socket in [&at_server, &at_client] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    at_client.send_to(b"ping", to).unwrap();
    let mut buffer = [0; 16];
    let (_, seen) = at_server.recv_from(&mut buffer).unwrap();
    assert_eq!(seen.ip(), client.router().unwrap().outside()[0], "the server sees the router's IPv4 address");
    at_server.send_to(b"pong", seen).unwrap();
    assert_eq!(at_client.recv_from(&mut buffer).unwrap(), (4, to), "the answer comes from whom was asked");

    let listener = server.run(|| TcpListener::bind((server.v4().unwrap(), 0))).unwrap();
    let stream = client.run(|| TcpStream::connect(through_nat64(listener.local_addr().unwrap()))).unwrap();
    assert!(echoes(stream, listener.accept().unwrap().0), "TCP through NAT64");

    let closed = through_nat64((server.v4().unwrap(), 9).into());
    at_client.connect(closed).unwrap();
    at_client.send(b"?").unwrap();
    let refused = at_client.recv(&mut buffer).unwrap_err();
    assert_eq!(
        refused.kind(),
        std::io::ErrorKind::ConnectionRefused,
        "ICMP errors are translated with what they quote"
    );
}

/// RFC 6052: the well-known prefix, then the IPv4 address.
fn through_nat64(to: SocketAddr) -> SocketAddr {
    let IpAddr::V4(v4) = to.ip() else { panic!("{to} is not IPv4") };
    let [a, b, c, d] = v4.octets().map(u16::from);
    SocketAddr::new([0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d].into(), to.port())
}
