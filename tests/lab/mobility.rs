//! Pipes that outlive their path: something happens to the network while bytes are under way, and all of them arrive, once
//! and in order. `NATPIPE_RUNS` says how often each is done; the longest silences are printed.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use natpipe::key::Place;
use natpipe::lab::{Host, Internet, Kind, Link, Router};
use natpipe::nat::Proto;
use natpipe::peer::{Builder, Node, PathKind};
use natpipe::{Pipe, Ticket};
use ring::digest::{Context, SHA256};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::peers::{Meeting, meeting};

const LIMIT: Duration = Duration::from_secs(40);

/// Bytes are sent at this pace, so that whatever happens does so in the middle.
const PIECE: usize = 64 << 10;
const PACE: Duration = Duration::from_millis(4);
const PIECES: u32 = 1600;

/// Two homes on an internet with 20 ms from end to end, and a place to meet.
struct World {
    internet: Internet,
    meeting: Option<Meeting>,
    routers: [Router; 2],
    hosts: [Host; 2],
}

impl World {
    fn new(kinds: [Kind; 2]) -> Self {
        let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
        let meeting = Some(meeting(&internet));
        let [a, b] = kinds;
        let routers = [internet.router("home a", a).unwrap(), internet.router("home b", b).unwrap()];
        let hosts = [routers[0].host("a").unwrap(), routers[1].host("b").unwrap()];
        Self { internet, meeting, routers, hosts }
    }

    /// What the two homes say to each other is dropped from now on; the rest of the internet is there.
    fn cut_between(&self) {
        let other = self.routers[1].public()[0];
        let drops = format!("ip daddr {other} drop\nip saddr {other} drop");
        let rules = format!("table ip cut {{\nchain pass {{\ntype filter hook forward priority -10\n{drops}\n}}\n}}");
        self.routers[0].nft(&rules).unwrap();
    }
}

fn piece(at: u32) -> Vec<u8> {
    (0..PIECE as u32).map(|n| (n.wrapping_mul(at | 1) >> 7) as u8).collect()
}

/// What the receiving end saw: a sum over all bytes, and the longest time without any.
async fn receive(pipe: &Pipe) -> (Vec<u8>, usize, Duration) {
    let (mut sum, mut bytes, mut longest, mut last) = (Context::new(&SHA256), 0, Duration::ZERO, Instant::now());
    while let Ok(message) = pipe.recv_within(LIMIT).await {
        longest = longest.max(last.elapsed());
        last = Instant::now();
        bytes += message.data.len();
        sum.update(&message.data);
    }
    (sum.finish().as_ref().to_vec(), bytes, longest)
}

/// When the first byte is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    AtOnce,
    OnTheBestPath,
}

/// One way to break something, done by the test's own thread after a third of the bytes. Returns the longest silence, and the
/// kind of path at the end.
fn bytes_survive(kinds: [Kind; 2], begin: Begin, happens: impl FnOnce(&mut World)) -> (Duration, PathKind) {
    let mut world = World::new(kinds);
    let place = world.meeting.as_ref().unwrap();
    let builders = [(); 2].map(|()| Node::builder().via(place.url()).stun(place.stun()));
    let runtimes = [world.hosts[0].runtime().unwrap(), world.hosts[1].runtime().unwrap()];
    carried(&runtimes, builders, begin, || happens(&mut world))
}

/// The same between any two nodes: the caller's first.
fn carried(
    runtimes: &[Runtime; 2],
    builders: [Builder; 2],
    begin: Begin,
    happens: impl FnOnce(),
) -> (Duration, PathKind) {
    let [builder, other] = builders;
    let (give, ticket) = mpsc::channel::<Ticket>();
    let (tell, told) = mpsc::channel::<()>();
    let (done, all_done) = tokio::sync::oneshot::channel::<()>();
    let answerer = runtimes[1].spawn(async move {
        let node = other.start().await.unwrap();
        give.send(node.ticket().unwrap()).unwrap();
        let (_peer, pipe) = timeout(LIMIT, node.accept()).await.unwrap().unwrap();
        let seen = receive(&pipe).await;
        pipe.send("got it").await.unwrap();
        all_done.await.unwrap();
        seen
    });
    let ticket = ticket.recv_timeout(LIMIT).unwrap();
    let caller = runtimes[0].spawn(async move {
        let node = builder.start().await.unwrap();
        let peer = timeout(LIMIT, node.peer(&ticket)).await.unwrap().unwrap();
        let mut paths = peer.paths();
        if begin == Begin::OnTheBestPath {
            let best = paths.wait_for(|path| path.as_ref().is_some_and(|path| path.kind == PathKind::TcpPunch));
            timeout(LIMIT, best).await.unwrap().map(drop).unwrap();
        }
        let pipe = peer.open(Proto::Tcp, Default::default()).unwrap();
        let mut sum = Context::new(&SHA256);
        for at in 0..PIECES {
            if at == PIECES / 3 {
                tell.send(()).unwrap();
            }
            let piece = piece(at);
            sum.update(&piece);
            pipe.send(piece).await.unwrap();
            tokio::time::sleep(PACE).await;
        }
        pipe.finish().await.unwrap();
        let answer = pipe.recv_within(LIMIT).await.unwrap_or_else(|error| panic!("{error}; over {:?}", peer.path()));
        assert_eq!(&answer.data[..], b"got it");
        done.send(()).unwrap();
        (sum.finish().as_ref().to_vec(), peer.path().unwrap().kind)
    });
    told.recv_timeout(LIMIT).unwrap();
    happens();
    let (sent, kind) = runtimes[0].block_on(caller).unwrap();
    let (got, bytes, longest) = runtimes[1].block_on(answerer).unwrap();
    assert_eq!(bytes, PIECE * PIECES as usize);
    assert_eq!(sent, got, "every byte once and in order");
    (longest, kind)
}

fn runs() -> usize {
    std::env::var("NATPIPE_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1)
}

fn often(what: &str, kinds: [Kind; 2], happens: impl Fn(&mut World)) -> Vec<PathKind> {
    begun(what, kinds, Begin::OnTheBestPath, happens)
}

fn begun(what: &str, kinds: [Kind; 2], begin: Begin, happens: impl Fn(&mut World)) -> Vec<PathKind> {
    told(what, || bytes_survive(kinds, begin, &happens))
}

/// Prints the silences, and returns the paths at the end.
fn told(what: &str, one: impl Fn() -> (Duration, PathKind)) -> Vec<PathKind> {
    let mut seen: Vec<(Duration, PathKind)> = (0..runs()).map(|_| one()).collect();
    seen.sort_unstable();
    let (median, worst) = (seen[seen.len() / 2].0, seen[seen.len() - 1].0);
    println!(
        "{what}: {} of {}; longest silence: median {} ms, worst {} ms; all: {:?}",
        seen.len(),
        runs(),
        median.as_millis(),
        worst.as_millis(),
        seen.iter().map(|(silence, _)| silence.as_millis()).collect::<Vec<_>>()
    );
    seen.into_iter().map(|(_, kind)| kind).collect()
}

const HOMES: [Kind; 2] = [Kind::Home, Kind::Home];

#[test]
fn from_the_relay_everything_moves_to_the_hole_in_the_midst_of_the_bytes() {
    let kinds = begun("relay to hole", HOMES, Begin::AtOnce, |_| {});
    assert!(kinds.iter().all(|kind| *kind == PathKind::TcpPunch), "{kinds:?}");
}

#[test]
fn when_the_direct_path_is_cut_the_relay_takes_over() {
    let kinds = often("direct path cut", HOMES, |world| world.cut_between());
    assert!(kinds.iter().all(|kind| *kind == PathKind::Relay), "{kinds:?}");
}

#[test]
fn when_a_nat_is_rebooted_a_new_hole_is_made() {
    for side in [0, 1] {
        often("NAT rebooted", HOMES, |world| {
            let forgotten = world.routers[side].run(|| Command::new("conntrack").arg("-F").output());
            assert!(forgotten.unwrap().status.success());
        });
    }
}

#[test]
fn when_an_interface_is_replaced_by_one_on_another_network_the_pipe_goes_there() {
    for side in [0, 1] {
        often("interface replaced", HOMES, |world| {
            let other = world.internet.router("another home", Kind::Home).unwrap();
            world.hosts[side].detach("eth0").unwrap();
            world.hosts[side].attach(&other).unwrap();
        });
    }
}

#[test]
fn when_the_address_changes_the_pipe_stays() {
    often("address changed", HOMES, |world| {
        world.hosts[0].detach("eth0").unwrap();
        let router = world.routers[0].clone();
        world.hosts[0].attach(&router).unwrap();
    });
}

#[test]
fn when_the_rendezvous_dies_a_direct_pipe_does_not_notice() {
    let kinds = often("rendezvous killed", HOMES, |world| drop(world.meeting.take()));
    assert!(kinds.iter().all(|kind| *kind != PathKind::Relay), "{kinds:?}");
}

/// `natpipe serve` on a host of its own, which ends when it is dropped.
struct Serving {
    host: Host,
    child: Child,
    url: String,
}

impl Serving {
    fn start(internet: &Internet, name: &str) -> Self {
        let host = internet.host(name).unwrap();
        let listen = SocketAddr::new(host.v4().unwrap(), 7000).to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_natpipe"));
        command.args(["serve", "--json", "--listen", &listen]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = host.start(&mut command).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        Self { host, child, url: event["url"].as_str().unwrap().to_owned() }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // One that was killed can not be killed again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn when_the_relay_is_killed_another_one_takes_over() {
    let kinds = told("relay killed, another at hand", || {
        let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
        let mut servers = ["near", "far"].map(|name| Serving::start(&internet, name));
        // The peer answers at the near one first, so that one relays.
        servers[1].host.set_link("eth0", Link::steady(Duration::from_millis(15))).unwrap();
        let hosts = [internet.behind(Kind::Home).unwrap(), internet.behind(Kind::Home).unwrap()];
        let runtimes = hosts.each_ref().map(|host| host.runtime().unwrap());
        let builders = [(); 2].map(|()| {
            let via = |builder: Builder, server: &Serving| builder.via(server.url.parse::<Place>().unwrap());
            servers.iter().fold(Node::builder().relay_only(true), via)
        });
        carried(&runtimes, builders, Begin::AtOnce, || servers[0].kill())
    });
    assert!(kinds.iter().all(|kind| *kind == PathKind::Relay), "{kinds:?}");
}
