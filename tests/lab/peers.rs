//! Peers behind real NATs: the best path is found, and everything moves to it while bytes are under way.

use std::net::SocketAddr;
use std::time::Duration;

use natpipe::lab::{Host, Internet, Kind, Link, Setup};
use natpipe::nat::Proto;
use natpipe::peer::{Node, PathInfo, PathKind};
use natpipe::{Identity, Ticket, rendezvous, stun};
use ring::digest::{Context, SHA256};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(40);

/// A rendezvous server, and a second STUN server at another address.
pub(super) struct Meeting {
    pub(super) url: natpipe::key::ServerUrl,
    pub(super) stun: SocketAddr,
    _server: rendezvous::Server,
    _second: stun::Server,
    _runtimes: [tokio::runtime::Runtime; 2],
    _hosts: [Host; 2],
}

pub(super) fn meeting(internet: &Internet) -> Meeting {
    let hosts = ["rendezvous", "second"].map(|name| internet.host(name).unwrap());
    let runtimes = [hosts[0].runtime().unwrap(), hosts[1].runtime().unwrap()];
    let at = |host: usize, port: u16| SocketAddr::from((hosts[host].v4().unwrap(), port));
    let server = hosts[0].run(|| {
        let identity = Identity::generate().unwrap();
        runtimes[0].block_on(rendezvous::Server::listen(at(0, 7000), identity).start()).unwrap()
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
struct Seen {
    first: Option<PathInfo>,
    last: Option<PathInfo>,
    sum: Vec<u8>,
}

/// One end makes a ticket, the other uses it and sends so many pieces while the paths change; the best path is awaited.
fn connect(meeting: &Meeting, hosts: [&Host; 2], pieces: u32) -> [Seen; 2] {
    let (give, ticket) = std::sync::mpsc::channel::<Ticket>();
    let (done, all_done) = tokio::sync::oneshot::channel::<()>();
    let builder = || Node::builder().via(meeting.url.clone()).stun(meeting.stun);
    std::thread::scope(|scope| {
        let answerer = scope.spawn(move || {
            hosts[1]
                .block_on(async {
                    let node = builder().start().await.unwrap();
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
                    let node = builder().start().await.unwrap();
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
