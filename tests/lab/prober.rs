//! A prober of plain sockets, independent of natpipe's own: what a router does, in words.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use natpipe::lab::{Host, Internet, Router, Setup};
use socket2::{Domain, Protocol, Socket, Type};

/// For what must come. What must not come is waited for by [`Prober::settle`], not by time.
const PATIENCE: Duration = Duration::from_secs(10);
/// The ports that sockets behind the router have: with gaps, and one after the other. Below those that the
/// system gives out (32768 and up).
const SPREAD: [u16; 5] = [25_000, 25_013, 25_002, 25_031, 25_020];
const IN_A_ROW: [u16; 5] = [26_000, 26_001, 26_002, 26_003, 26_004];

/// A host behind a router, and a server with two addresses and two ports on each.
pub struct Prober {
    pub internet: Internet,
    pub client: Host,
    pub server: Host,
    pub router: Router,
    /// In this family.
    pub own: IpAddr,
    /// The server's.
    pub addresses: [IpAddr; 2],
    /// A connection that shows by an exchange that everything sent before has arrived.
    line: (TcpStream, TcpStream),
}

/// What becomes of a packet from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Passes,
    /// A reset, or port unreachable.
    Refused,
    /// ICMP administratively prohibited.
    Prohibited,
    Silent,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passes => "passes",
            Self::Refused => "refused",
            Self::Prohibited => "prohibited",
            Self::Silent => "silent",
        })
    }
}

impl Prober {
    pub fn new(setup: impl Into<Setup>) -> Self {
        let internet = Internet::new().unwrap();
        let setup = setup.into();
        let router = internet.router(&setup.to_string(), setup).unwrap();
        Self::behind(internet, router)
    }

    pub fn behind(internet: Internet, router: Router) -> Self {
        let client = router.host("client").unwrap();
        let server = internet.host("server").unwrap();
        server.add_addresses("eth0").unwrap();
        let own = client.v4().or(client.v6()).unwrap();
        let same_family = server.addresses().into_iter().filter(|a| a.is_ipv4() == own.is_ipv4());
        let addresses: Vec<IpAddr> = same_family.collect();
        let addresses = [addresses[0], addresses[1]];
        let listener = server.run(|| TcpListener::bind((addresses[0], 0))).unwrap();
        let near = client.run(|| TcpStream::connect(listener.local_addr().unwrap())).unwrap();
        let line = (near, listener.accept().unwrap().0);
        Self { internet, client, server, router, own, addresses, line }
    }

    /// Returns when everything sent so far has arrived, or been dropped: each end has answered the other
    /// twice, behind it in the same queues.
    pub fn settle(&self) {
        for _ in 0..2 {
            for (mut from, mut to) in [(&self.line.0, &self.line.1), (&self.line.1, &self.line.0)] {
                from.write_all(b"x").unwrap();
                to.read_exact(&mut [0]).unwrap();
            }
        }
    }

    pub fn udp_inside(&self, port: u16) -> UdpSocket {
        patient(self.client.run(|| UdpSocket::bind((self.own, port))).unwrap())
    }

    pub fn udp_outside(&self, address: usize) -> UdpSocket {
        patient(self.server.run(|| UdpSocket::bind((self.addresses[address], 0))).unwrap())
    }

    fn listener_outside(&self, address: usize) -> TcpListener {
        self.server.run(|| TcpListener::bind((self.addresses[address], 0))).unwrap()
    }

    pub fn udp_passes(&self) -> bool {
        let (inside, outside) = (self.udp_inside(0), self.udp_outside(0));
        inside.send_to(b"?", outside.local_addr().unwrap()).unwrap();
        self.settle();
        received(&outside).is_some()
    }

    pub fn udp(&self) -> String {
        if !self.udp_passes() {
            return "blocked".to_owned();
        }
        let ports = ports(|local| {
            let (inside, outside) = (self.udp_inside(local), self.udp_outside(0));
            (seen(&inside, &outside).port(), inside)
        });
        format!("{} {} {ports} {}", self.udp_mapping(), self.udp_filtering(), self.udp_stranger())
    }

    fn udp_mapping(&self) -> &'static str {
        let inside = self.udp_inside(0);
        mapping([0, 0, 0, 1].map(|n| seen(&inside, &self.udp_outside(n))))
    }

    fn udp_filtering(&self) -> &'static str {
        let (inside, asked) = (self.udp_inside(0), self.udp_outside(0));
        let (other_port, other_address) = (self.udp_outside(0), self.udp_outside(1));
        let external = seen(&inside, &asked);
        for socket in [&other_port, &other_address, &asked] {
            socket.send_to(b"!", external).unwrap();
        }
        self.settle();
        let came: Vec<SocketAddr> = std::iter::from_fn(|| received(&inside)).collect();
        let came = |from: &UdpSocket| came.contains(&from.local_addr().unwrap());
        assert!(came(&asked), "the answer of the server that was asked is filtered");
        filtering(came(&other_port), came(&other_address))
    }

    /// Where strangers knock: the router, or without NAT the host.
    pub fn face(&self, port: u16) -> SocketAddr {
        let translated = self.router.public().iter().find(|a| a.is_ipv4() == self.own.is_ipv4()).unwrap();
        let outside = self.listener_outside(0);
        let _probe = self.client.run(|| TcpStream::connect(outside.local_addr().unwrap())).unwrap();
        let seen = outside.accept().unwrap().1.ip();
        assert!(seen == self.own || seen == *translated, "{seen} is neither the host's nor the router's");
        SocketAddr::new(seen, port)
    }

    /// What a datagram meets that nobody asked for, where no mapping is.
    pub fn udp_stranger(&self) -> Fate {
        let stranger = self.udp_outside(1);
        stranger.connect(self.face(33_333)).unwrap();
        stranger.send(b"?").unwrap();
        self.settle();
        stranger.set_nonblocking(true).unwrap();
        match stranger.recv(&mut [0; 16]).map_err(|error| error.kind()) {
            Err(ErrorKind::ConnectionRefused) => Fate::Refused,
            Err(ErrorKind::HostUnreachable) => Fate::Prohibited,
            Err(ErrorKind::PermissionDenied) => Fate::Prohibited,
            Err(ErrorKind::WouldBlock) => Fate::Silent,
            other => panic!("a stranger's datagram: {other:?}"),
        }
    }

    pub fn tcp(&self) -> String {
        let ports = ports(|local| {
            let outside = self.listener_outside(0);
            let (stream, seen) = self.connection(&self.shared(&self.client, (self.own, local).into()), &outside);
            (seen.port(), stream)
        });
        let stranger = self.knock((self.addresses[1], 0).into(), self.face(33_333));
        format!("{} {} {ports} {stranger}", self.tcp_mapping(), self.tcp_filtering())
    }

    fn tcp_mapping(&self) -> &'static str {
        let local = self.free_port();
        let mut held = Vec::new();
        let seen = [0, 0, 0, 1].map(|n| {
            let outside = self.listener_outside(n);
            let (streams, seen) = self.connection(&self.shared(&self.client, local), &outside);
            held.push(streams);
            seen
        });
        mapping(seen)
    }

    fn tcp_filtering(&self) -> &'static str {
        let local = self.free_port();
        let _waiting = listening(self.shared(&self.client, local));
        let outside = self.listener_outside(0);
        let (_held, external) = self.connection(&self.shared(&self.client, local), &outside);
        let [port, address] = [0, 1].map(|n| self.knock((self.addresses[n], 0).into(), external) == Fate::Passes);
        filtering(port, address)
    }

    /// What a SYN meets that crosses one from inside, which its server did not hear (simultaneous open).
    pub fn crossing_syn(&self) -> Fate {
        let local = self.free_port();
        let outside = self.listener_outside(0);
        let (_held, external) = self.connection(&self.shared(&self.client, local), &outside);
        let theirs = self.free_port_outside();
        let family = if self.own.is_ipv4() { "ip" } else { "ip6" };
        let deaf = format!("tcp dport {} tcp flags & (syn | ack) == syn drop", theirs.port());
        self.server
            .nft(&format!(
                "table {family} deaf {{\nchain input {{\ntype filter hook input priority 0\n{deaf}\n}}\n}}\n"
            ))
            .unwrap();
        let inside = self.shared(&self.client, local);
        inside.set_nonblocking(true).unwrap();
        let _in_progress = inside.connect(&theirs.into());
        self.settle();
        let fate = self.knock(theirs, external);
        self.server.nft(&format!("delete table {family} deaf\n")).unwrap();
        fate
    }

    /// What a SYN from the server meets.
    pub fn knock(&self, from: SocketAddr, to: SocketAddr) -> Fate {
        let socket = self.shared(&self.server, from);
        socket.set_nonblocking(true).unwrap();
        let _in_progress = socket.connect(&to.into());
        self.settle();
        match socket.take_error().unwrap().map(|error| error.kind()) {
            None if socket.peer_addr().is_ok() => Fate::Passes,
            None => Fate::Silent,
            Some(ErrorKind::ConnectionRefused) => Fate::Refused,
            other => panic!("a stranger's SYN: {other:?}"),
        }
    }

    /// A connection from this socket, and where it seems to come from.
    fn connection(&self, from: &Socket, to: &TcpListener) -> ([TcpStream; 2], SocketAddr) {
        from.connect_timeout(&to.local_addr().unwrap().into(), PATIENCE).unwrap();
        let (accepted, seen) = to.accept().unwrap();
        ([from.try_clone().unwrap().into(), accepted], seen)
    }

    /// A socket on a port that others of this host may have too.
    fn shared(&self, host: &Host, at: SocketAddr) -> Socket {
        let make = || {
            let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&at.into())?;
            Ok::<_, std::io::Error>(socket)
        };
        host.run(make).unwrap()
    }

    fn free_port(&self) -> SocketAddr {
        self.shared(&self.client, (self.own, 0).into()).local_addr().unwrap().as_socket().unwrap()
    }

    fn free_port_outside(&self) -> SocketAddr {
        self.shared(&self.server, (self.addresses[0], 0).into()).local_addr().unwrap().as_socket().unwrap()
    }
}

fn listening(socket: Socket) -> TcpListener {
    socket.listen(16).unwrap();
    socket.into()
}

fn patient(socket: UdpSocket) -> UdpSocket {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The source that `outside` sees when `inside` sends to it.
pub fn seen(inside: &UdpSocket, outside: &UdpSocket) -> SocketAddr {
    inside.send_to(b"?", outside.local_addr().unwrap()).unwrap();
    outside.recv_from(&mut [0; 16]).expect("what is sent outwards arrives").1
}

/// Who sent what lies in the socket's queue.
pub fn received(socket: &UdpSocket) -> Option<SocketAddr> {
    socket.set_nonblocking(true).unwrap();
    let from = socket.recv_from(&mut [0; 16]).ok().map(|(_, from)| from);
    socket.set_nonblocking(false).unwrap();
    from
}

/// By three ports of one address and one of another: of few ports, random ones are the same now and then.
fn mapping([first, second, third, elsewhere]: [SocketAddr; 4]) -> &'static str {
    match (first == second && first == third, first == elsewhere) {
        (true, true) => "EIM",
        (true, false) => "ADM",
        (false, _) => "APDM",
    }
}

fn filtering(other_port: bool, other_address: bool) -> &'static str {
    match (other_port, other_address) {
        (true, true) => "EIF",
        (true, false) => "ADF",
        (false, false) => "APDF",
        (false, true) => "another address passes and another port does not",
    }
}

/// How external ports follow from local ones; `open` opens a local one and gives the external one, and what
/// keeps it open.
fn ports<T>(mut open: impl FnMut(u16) -> (u16, T)) -> String {
    let mut all = |locals: [u16; 5]| {
        let (external, _held): (Vec<u16>, Vec<T>) = locals.into_iter().map(&mut open).unzip();
        let offsets = locals.iter().zip(&external).map(|(l, e)| i32::from(*e) - i32::from(*l));
        let steps = external.windows(2).map(|pair| i32::from(pair[1]) - i32::from(pair[0]));
        (same(offsets), same(steps))
    };
    let (spread, row) = (all(SPREAD), all(IN_A_ROW));
    match (spread, row) {
        ((Some(0), _), (Some(0), _)) => "kept".to_owned(),
        ((Some(offset), _), _) => format!("{offset:+}"),
        ((_, Some(step)), (_, Some(again))) if step == again => format!("next{step:+}"),
        (_, (_, Some(step))) => format!("row{step:+}"),
        _ => "random".to_owned(),
    }
}

/// The value that all of them have.
fn same(mut values: impl Iterator<Item = i32>) -> Option<i32> {
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}
