//! Peers behind real NATs: the best path is found, and everything moves to it while bytes are under way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use natpipe::lab::{Host, Internet, Kind, Link, Setup};
use natpipe::nat::Proto;
use natpipe::peer::{Builder, Node, PathInfo, PathKind};
use natpipe::turn::TurnServer;
use natpipe::{Identity, Ticket, rendezvous, stun};
use ring::digest::{Context, SHA256};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(40);

/// A rendezvous server, and a second STUN server at another address.
pub(super) struct Meeting {
    url: natpipe::key::ServerUrl,
    pub(super) stun: SocketAddr,
    _server: rendezvous::Server,
    _second: stun::Server,
    _runtimes: [tokio::runtime::Runtime; 2],
    _hosts: [Host; 2],
}

impl Meeting {
    pub(super) fn url(&self) -> natpipe::key::ServerUrl {
        self.url.clone()
    }

    pub(super) fn stun(&self) -> SocketAddr {
        self.stun
    }
}

pub(super) fn meeting(internet: &Internet) -> Meeting {
    meeting_of(internet, rendezvous::Limits::default())
}

fn meeting_of(internet: &Internet, limits: rendezvous::Limits) -> Meeting {
    let hosts = ["rendezvous", "second"].map(|name| internet.host(name).unwrap());
    let runtimes = [hosts[0].runtime().unwrap(), hosts[1].runtime().unwrap()];
    let at = |host: usize, port: u16| SocketAddr::from((hosts[host].v4().unwrap(), port));
    let server = hosts[0].run(|| {
        let identity = Identity::generate().unwrap();
        runtimes[0].block_on(rendezvous::Server::listen(at(0, 7000), identity).limits(limits).start()).unwrap()
    });
    let second = hosts[1].run(|| {
        let _inside = runtimes[1].enter();
        stun::Server::listen(at(1, 3478)).tcp(true).start().unwrap()
    });
    Meeting {
        url: server.url(),
        stun: second.addr(),
        _server: server,
        _second: second,
        _runtimes: runtimes,
        _hosts: hosts,
    }
}

fn piece(at: u32) -> Vec<u8> {
    (0..65536_u32).map(|n| (n.wrapping_mul(at | 1) >> 7) as u8).collect()
}

/// What an end saw.
pub(super) struct Seen {
    pub(super) first: Option<PathInfo>,
    pub(super) last: Option<PathInfo>,
    pub(super) sum: Vec<u8>,
}

fn connect(meeting: &Meeting, hosts: [&Host; 2], pieces: u32) -> [Seen; 2] {
    connect_as(&|| Node::builder().via(meeting.url.clone()).stun(meeting.stun), hosts, pieces)
}

/// The same, with a TURN server at either end.
fn connect_with(meeting: &Meeting, hosts: [&Host; 2], pieces: u32, turn: [Option<TurnServer>; 2]) -> [Seen; 2] {
    let [callers, answerers] = turn;
    let builder = |turn: &Option<TurnServer>| {
        let builder = Node::builder().via(meeting.url.clone()).stun(meeting.stun);
        turn.iter().cloned().fold(builder, Builder::turn)
    };
    connect_both([&|| builder(&callers), &|| builder(&answerers)], hosts, pieces)
}

pub(super) fn connect_as(builder: &(dyn Fn() -> Builder + Sync), hosts: [&Host; 2], pieces: u32) -> [Seen; 2] {
    connect_both([builder, builder], hosts, pieces)
}

/// One end makes a ticket, the other uses it and sends so many pieces while the paths change; the best path is awaited.
fn connect_both(builders: [&(dyn Fn() -> Builder + Sync); 2], hosts: [&Host; 2], pieces: u32) -> [Seen; 2] {
    let (give, ticket) = std::sync::mpsc::channel::<Ticket>();
    let (done, all_done) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        let answerer = scope.spawn(move || {
            hosts[1]
                .block_on(async {
                    let node = builders[1]().start().await.unwrap();
                    node.mapped(Duration::from_secs(1)).await;
                    give.send(node.ticket().unwrap()).unwrap();
                    let (peer, pipe) = timeout(LIMIT, node.accept()).await.unwrap().unwrap();
                    let first = peer.path();
                    let mut sum = Context::new(&SHA256);
                    while let Ok(message) = pipe.recv_within(LIMIT).await {
                        sum.update(&message.data);
                    }
                    pipe.send("got it").await.unwrap();
                    all_done.await.unwrap();
                    Seen { first, last: peer.path(), sum: sum.finish().as_ref().to_vec() }
                })
                .unwrap()
        });
        let caller = scope.spawn(move || {
            let ticket = ticket.recv().unwrap();
            hosts[0]
                .block_on(async {
                    let node = builders[0]().start().await.unwrap();
                    node.mapped(Duration::from_secs(1)).await;
                    let peer = timeout(LIMIT, node.peer(&ticket)).await.unwrap().unwrap();
                    let first = peer.path();
                    let pipe = peer.open(Proto::Tcp, Default::default()).unwrap();
                    let mut sum = Context::new(&SHA256);
                    let send = async {
                        for at in 0..pieces {
                            let piece = piece(at);
                            sum.update(&piece);
                            pipe.send(piece).await.unwrap();
                        }
                        pipe.finish().await.unwrap();
                        assert_eq!(&pipe.recv_within(LIMIT).await.unwrap().data[..], b"got it");
                    };
                    let mut paths = peer.paths();
                    let direct = async {
                        let best = |path: &Option<PathInfo>| path.as_ref().is_some_and(|p| p.kind != PathKind::Relay);
                        timeout(Duration::from_secs(12), paths.wait_for(best)).await.is_ok()
                    };
                    tokio::join!(send, direct);
                    let seen = Seen { first, last: peer.path(), sum: sum.finish().as_ref().to_vec() };
                    done.send(()).unwrap();
                    seen
                })
                .unwrap()
        });
        let answerer = answerer.join().unwrap();
        [caller.join().unwrap(), answerer]
    })
}

fn meets(a: impl Into<Setup>, b: impl Into<Setup>, direct: bool) {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let meeting = meeting(&internet);
    let (a, b) = (internet.behind(a).unwrap(), internet.behind(b).unwrap());
    let [caller, answerer] = connect(&meeting, [&a, &b], 320);
    assert_eq!(caller.sum, answerer.sum, "every byte once and in order");
    let (first, last) = (caller.first.unwrap(), caller.last.unwrap());
    println!("first {first}, last {last}; at the other end first {:?}", answerer.first.map(|path| path.kind));
    assert_eq!(last.kind != PathKind::Relay, direct, "{last}");
}

macro_rules! pairs {
    ($($name:ident: $a:ident x $b:ident, $direct:literal;)*) => {$(
        #[test]
        fn $name() {
            meets(Kind::$a, Kind::$b, $direct);
        }
    )*};
}

pairs! {
    home_and_home_meet_directly: Home x Home, true;
    open_and_home_meet_directly: Open x Home, true;
    home_and_open_meet_directly: Home x Open, true;
    home_and_symmetric_meet_directly: Home x SymmetricRandom, true;
    two_symmetric_ones_meet_by_relay: SymmetricRandom x SymmetricRandom, false;
    without_udp_they_meet_over_tcp: UdpBlocked x Home, true;
}

/// Both behind routers of this kind, one of which opens ports when it is asked.
fn meets_through_an_opened_port(kind: Kind, opens: [bool; 2], found: PathKind) {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let meeting = meeting(&internet);
    let routers = ["a", "b"].map(|name| internet.router(name, kind).unwrap());
    let _daemons: Vec<_> = routers
        .iter()
        .zip(opens)
        .filter(|(_, opens)| *opens)
        .map(|(router, _)| super::gateway::miniupnpd(router, "enable_natpmp=yes\nenable_upnp=yes"))
        .collect();
    let hosts = routers.each_ref().map(|router| router.host("host").unwrap());
    let [caller, answerer] = connect(&meeting, [&hosts[0], &hosts[1]], 320);
    assert_eq!(caller.sum, answerer.sum, "every byte once and in order");
    let last = caller.last.unwrap();
    println!("first {}, last {last}", caller.first.unwrap());
    assert_eq!(last.kind, found, "{last}");
}

#[test]
fn two_symmetric_ones_meet_directly_through_a_port_that_the_answerers_router_opens() {
    meets_through_an_opened_port(Kind::SymmetricRandom, [false, true], PathKind::Direct);
}

#[test]
fn two_symmetric_ones_meet_directly_through_a_port_that_the_callers_router_opens() {
    meets_through_an_opened_port(Kind::SymmetricRandom, [true, false], PathKind::Reverse);
}

/// With TURN servers of these transports at the two ends, and a rendezvous server that relays nothing.
fn meets_at_turn(kind: Kind, no_udp: bool, turn: [Option<&str>; 2]) {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let meeting = meeting_of(&internet, rendezvous::Limits::default().pairs(0));
    let host = internet.host("turn").unwrap();
    let ip = host.v4().unwrap();
    let server = super::coturn_server::Coturn::start(
        ip,
        [3478, 5349],
        &|command| host.start(command),
        &["-a", "-u", "ann:hush"],
    );
    host.run(|| server.wait());
    let url = |over: &str| format!("turn:ann:hush@{ip}:3478?transport={over}").parse().unwrap();
    let turn = turn.map(|over| over.map(url));
    let routers = ["a", "b"].map(|name| internet.router(name, kind).unwrap());
    for router in routers.iter().filter(|_| no_udp) {
        router.nft("insert rule ip filter forward meta l4proto udp drop").unwrap();
    }
    let hosts = routers.each_ref().map(|router| router.host("host").unwrap());
    let [caller, answerer] = connect_with(&meeting, [&hosts[0], &hosts[1]], 160, turn);
    assert_eq!(caller.sum, answerer.sum, "every byte once and in order");
    let last = caller.last.unwrap();
    assert_eq!((last.kind, last.proto), (PathKind::Relay, Proto::Udp), "{last}\n{}", server.log());
}

#[test]
fn two_symmetric_ones_meet_at_the_callers_turn_server() {
    meets_at_turn(Kind::SymmetricRandom, false, [Some("udp"), None]);
}

#[test]
fn two_symmetric_ones_meet_at_the_answerers_turn_server() {
    meets_at_turn(Kind::SymmetricRandom, false, [None, Some("udp")]);
}

#[test]
fn two_without_udp_meet_at_a_turn_server_over_tcp() {
    meets_at_turn(Kind::SymmetricRandom, true, [Some("tcp"), Some("tcp")]);
}

#[test]
fn when_the_turn_server_goes_away_the_next_one_takes_over_and_no_byte_is_lost() {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let meeting = meeting_of(&internet, rendezvous::Limits::default().pairs(0));
    let places = ["first", "second"].map(|name| internet.host(name).unwrap());
    let mut servers = places.each_ref().map(|host| {
        let start = |command: &mut Command| host.start(command);
        super::coturn_server::Coturn::start(host.v4().unwrap(), [3478, 5349], &start, &["-a", "-u", "ann:hush"])
    });
    places.iter().zip(&servers).for_each(|(host, server)| host.run(|| server.wait()));
    let urls = servers.each_ref().map(|server| format!("turn:ann:hush@{}", server.at).parse::<TurnServer>().unwrap());
    let hosts = [Kind::SymmetricRandom; 2].map(|kind| internet.behind(kind).unwrap());
    let (give, ticket) = std::sync::mpsc::channel::<Ticket>();
    let pieces = 400_u32;
    std::thread::scope(|scope| {
        let (hosts, meeting) = (&hosts, &meeting);
        let answerer = scope.spawn(move || {
            hosts[1]
                .block_on(async {
                    let node = Node::builder().via(meeting.url.clone()).stun(meeting.stun).start().await.unwrap();
                    give.send(node.ticket().unwrap()).unwrap();
                    let (_peer, pipe) = timeout(LIMIT, node.accept()).await.unwrap().unwrap();
                    let mut sum = Context::new(&SHA256);
                    while let Ok(message) = pipe.recv_within(LIMIT).await {
                        sum.update(&message.data);
                    }
                    pipe.send("got it").await.unwrap();
                    node.close().await;
                    sum.finish().as_ref().to_vec()
                })
                .unwrap()
        });
        let ticket = ticket.recv().unwrap();
        let first = &mut servers[0];
        let sent = hosts[0]
            .block_on(async {
                let builder = Node::builder().via(meeting.url.clone()).stun(meeting.stun);
                let builder = urls.into_iter().fold(builder, natpipe::peer::Builder::turn);
                let node = builder.start().await.unwrap();
                let begun = std::time::Instant::now();
                let told = |mut events: tokio::sync::broadcast::Receiver<natpipe::peer::Event>| {
                    tokio::spawn(async move {
                        while let Ok(event) = events.recv().await {
                            println!("{:?} {event:?}", begun.elapsed());
                        }
                    });
                };
                let peer = timeout(LIMIT, node.peer_watched(&ticket, told)).await.unwrap().unwrap();
                let pipe = peer.open(Proto::Tcp, Default::default()).unwrap();
                let mut sum = Context::new(&SHA256);
                let mut stall = Duration::ZERO;
                for at in 0..pieces {
                    if at == pieces / 2 {
                        first.stop();
                    }
                    let piece = piece(at);
                    sum.update(&piece);
                    let begun = std::time::Instant::now();
                    timeout(LIMIT, pipe.send(piece)).await.unwrap().unwrap();
                    stall = stall.max(begun.elapsed());
                }
                pipe.finish().await.unwrap();
                assert_eq!(&pipe.recv_within(LIMIT).await.unwrap().data[..], b"got it");
                // Printed, and not asserted: the machine may be busy.
                println!("longest stall {stall:?}");
                node.close().await;
                sum.finish().as_ref().to_vec()
            })
            .unwrap();
        assert_eq!(sent, answerer.join().unwrap(), "every byte once and in order");
    });
}

#[test]
fn the_command_meets_at_a_turn_server_and_tells_neither_end_where_the_other_is() {
    let internet = Internet::new().unwrap();
    let meeting = meeting_of(&internet, rendezvous::Limits::default().pairs(0));
    let host = internet.host("turn").unwrap();
    let ip = host.v4().unwrap();
    let secret = ["--use-auth-secret", "--static-auth-secret", "north"];
    let server = super::coturn_server::Coturn::start(ip, [3478, 5349], &|command| host.start(command), &secret);
    host.run(|| server.wait());
    let (url, via) = (format!("turn:{ip}?secret=north"), meeting.url.to_string());
    let (one, two) = (internet.host("one").unwrap(), internet.host("two").unwrap());
    let start = |host: &Host, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_natpipe"));
        command.args(args).args(["--json", "--relay-only", "--turn", &url]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        host.start(&mut command).unwrap()
    };
    let event = |events: &mut BufReader<std::process::ChildStderr>, name: &str| loop {
        let mut line = String::new();
        assert_ne!(events.read_line(&mut line).unwrap(), 0, "it ended without {name}");
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        if event["event"] == name {
            return event;
        }
    };
    let mut listening = start(&two, &["listen", "--via", &via]);
    let mut of_two = BufReader::new(listening.stderr.take().unwrap());
    let ticket = event(&mut of_two, "ticket")["ticket"].as_str().unwrap().to_owned();
    let mut connected = start(&one, &["connect", &ticket]);
    let mut of_one = BufReader::new(connected.stderr.take().unwrap());
    connected.stdin.take().unwrap().write_all(b"through the relay").unwrap();
    let path = event(&mut of_one, "path");
    assert_eq!((&path["kind"], &path["proto"]), (&"relay".into(), &"udp".into()), "{path}\n{}", server.log());
    assert!(path["remote"].is_null() && path["local"].is_null(), "{path}");
    drop(listening.stdin.take());
    let mut heard = String::new();
    listening.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "through the relay");
    assert!(connected.wait().unwrap().success() && listening.wait().unwrap().success());
}
