//! Holes through real NATs, over a channel between the two peers that a server in the middle joins.

use std::net::SocketAddr;
use std::time::Duration;

use natpipe::lab::{Host, Internet, Kind, Link, Setup};
use natpipe::nat::Proto as Over;
use natpipe::punch::{Hole, PipeChannel, PunchError, Punched, Puncher};
use natpipe::stun::Server;
use natpipe::{Family, Interface, Proto, pipe_open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Where both meet: a STUN server, and two ports of which what comes in by one goes out by the other.
struct Middle {
    stun: SocketAddr,
    doors: [SocketAddr; 2],
    _server: Server,
    _runtime: tokio::runtime::Runtime,
    _host: Host,
}

fn middle(internet: &Internet) -> Middle {
    let host = internet.host("middle").unwrap();
    let runtime = host.runtime().unwrap();
    let ip = host.v4().unwrap();
    let server = host.run(|| {
        let _inside = runtime.enter();
        Server::listen((ip, 3478).into()).start().unwrap()
    });
    let (tell, told) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        let first = pipe_open(Proto::Tcp).bind(SocketAddr::from((ip, 0))).await.unwrap();
        let second = pipe_open(Proto::Tcp).bind(SocketAddr::from((ip, 0))).await.unwrap();
        tell.send([first.local_addr().ip().unwrap(), second.local_addr().ip().unwrap()]).unwrap();
        while let (Ok(a), Ok(b)) = tokio::join!(first.accept(), second.accept()) {
            a.add_pipe(&b);
            b.add_pipe(&a);
        }
    });
    let doors = told.recv().unwrap();
    Middle { stun: server.addr(), doors, _server: server, _runtime: runtime, _host: host }
}

/// Punches at both ends at once, and moves bytes both ways through the hole.
fn punch(
    internet: &Internet,
    middle: &Middle,
    over: Over,
    hosts: [&Host; 2],
    limit: Duration,
) -> [Result<Punched, PunchError>; 2] {
    let _ = internet;
    std::thread::scope(|scope| {
        let ends = [0, 1].map(|end| {
            let (host, door, stun) = (hosts[end], middle.doors[end], middle.stun);
            scope.spawn(move || {
                host.block_on(async {
                    let pipe = pipe_open(Proto::Tcp).dest(door).await.unwrap();
                    let mut channel = PipeChannel::new(pipe).await;
                    let routes = Interface::list().unwrap().into_iter().filter_map(|i| i.route(Family::V4).ok());
                    let routes = routes.filter(|route| !route.nic()[0].is_loopback());
                    let puncher = routes.fold(Puncher::new().stun(stun).limit(limit), |p, route| p.route(&route));
                    let mut punched = puncher.punch(over, &mut channel).await?;
                    greet(&mut punched).await;
                    Ok(punched)
                })
                .unwrap()
            })
        });
        ends.map(|end| end.join().unwrap())
    })
}

/// Each says a word through the hole and hears the other's.
async fn greet(punched: &mut Punched) {
    let mut buf = [0; 64];
    match &mut punched.hole {
        Hole::Udp { socket, peer } => loop {
            // A datagram may be lost, and late checks may come between.
            socket.send_to(b"\xFFthrough", *peer).await.unwrap();
            let heard = tokio::time::timeout(Duration::from_millis(200), socket.recv_from(&mut buf)).await;
            if heard.is_ok_and(|heard| heard.is_ok_and(|(len, _)| &buf[..len] == b"\xFFthrough")) {
                socket.send_to(b"\xFFthrough", *peer).await.unwrap();
                return;
            }
        },
        Hole::Tcp { stream } => {
            stream.write_all(b"through").await.unwrap();
            stream.read_exact(&mut buf[..7]).await.unwrap();
            assert_eq!(&buf[..7], b"through");
        }
        _ => unreachable!(),
    }
}

const SOON: Duration = Duration::from_secs(10);

fn opens(over: Over, a: impl Into<Setup>, b: impl Into<Setup>) {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let middle = middle(&internet);
    let (a, b) = (internet.behind(a).unwrap(), internet.behind(b).unwrap());
    let ends = punch(&internet, &middle, over, [&a, &b], SOON);
    let [Ok(one), Ok(other)] = ends else { panic!("{ends:?}") };
    assert_ne!(one.controlling, other.controlling);
    assert_eq!(matches!(one.hole, Hole::Tcp { .. }), over == Over::Tcp);
    println!(
        "{over}: {:?} and {:?} after the instant, {} and {} attempts",
        one.took, other.took, one.attempts, other.attempts
    );
}

macro_rules! pairs {
    ($($name:ident: $over:ident, $a:ident x $b:ident;)*) => {$(
        #[test]
        fn $name() {
            opens(Over::$over, Kind::$a, Kind::$b);
        }
    )*};
}

pairs! {
    udp_home_x_home: Udp, Home x Home;
    udp_home_x_full_cone: Udp, Home x FullCone;
    udp_home_x_open: Udp, Home x Open;
    udp_firewall_x_home: Udp, Firewall x Home;
    udp_linux_x_linux: Udp, Linux x Linux;
    udp_restricted_x_symmetric: Udp, Restricted x SymmetricRandom;
    udp_full_cone_x_symmetric: Udp, FullCone x SymmetricRandom;
    udp_double_x_home: Udp, Double x Home;
    tcp_home_x_home: Tcp, Home x Home;
    tcp_linux_x_linux: Tcp, Linux x Linux;
    tcp_home_x_linux: Tcp, Home x Linux;
    tcp_rejecting_x_rejecting: Tcp, Rejecting x Rejecting;
    tcp_home_x_open: Tcp, Home x Open;
    tcp_full_cone_x_symmetric: Tcp, FullCone x SymmetricRandom;
    tcp_double_x_home: Tcp, Double x Home;
}

#[test]
fn two_hosts_of_one_network_find_each_other_without_their_router() {
    let internet = Internet::new().unwrap();
    let middle = middle(&internet);
    let router = internet.router("home", Kind::Home).unwrap();
    let (a, b) = (router.host("a").unwrap(), router.host("b").unwrap());
    for over in [Over::Udp, Over::Tcp] {
        let ends = punch(&internet, &middle, over, [&a, &b], SOON);
        let [Ok(one), Ok(other)] = ends else { panic!("{ends:?}") };
        assert_eq!((one.peer.ip(), other.peer.ip()), (b.v4().unwrap(), a.v4().unwrap()), "{over}");
    }
}

#[test]
fn what_can_not_be_punched_ends_in_time_and_says_so() {
    let internet = Internet::new().unwrap();
    let middle = middle(&internet);
    let (a, b) = (internet.behind(Kind::UdpBlocked).unwrap(), internet.behind(Kind::Home).unwrap());
    let ends = punch(&internet, &middle, Over::Udp, [&a, &b], Duration::from_secs(2));
    for end in ends {
        let error = end.unwrap_err();
        assert!(matches!(error, PunchError::Closed { proto: Over::Udp, .. }), "{error}");
    }
}
