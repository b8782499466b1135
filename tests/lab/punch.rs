//! Holes through real NATs, over a channel between the two peers that a server in the middle joins.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use natpipe::lab::{Host, Internet, Kind, Link, Setup};
use natpipe::nat::Proto as Over;
use natpipe::punch::{PipeChannel, Plan, PunchError, Punched, Puncher};
use natpipe::stun::Server;
use natpipe::{Family, Interface, NetConf, Proto, pipe_open};

use super::gateway::{mappings, miniupnpd};

/// Where both meet: a STUN server, and two ports of which what comes in by one goes out by the other.
pub(super) struct Middle {
    pub(super) stun: [SocketAddr; 2],
    pub(super) doors: [SocketAddr; 2],
    servers: [(Server, tokio::runtime::Runtime, Host); 2],
    _runtime: tokio::runtime::Runtime,
    _host: Host,
}

pub(super) fn middle(internet: &Internet) -> Middle {
    let host = internet.host("middle").unwrap();
    let runtime = host.runtime().unwrap();
    let ip = host.v4().unwrap();
    // Two addresses: to some NATs two ports of one are the same.
    let servers = ["first", "second"].map(|name| {
        let host = internet.host(name).unwrap();
        let runtime = host.runtime().unwrap();
        let server = host.run(|| {
            let _inside = runtime.enter();
            Server::listen((host.v4().unwrap(), 3478).into()).tcp(true).start().unwrap()
        });
        (server, runtime, host)
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
    let stun = [servers[0].0.addr(), servers[1].0.addr()];
    Middle { stun, doors, servers, _runtime: runtime, _host: host }
}

/// What is left to look at when the hole has become a pipe.
#[derive(Debug)]
struct Story {
    controlling: bool,
    peer: SocketAddr,
    datagrams: bool,
    took: Duration,
    /// From the start.
    total: Duration,
    attempts: u32,
    plan: Plan,
}

/// Punches at both ends at once, and moves messages both ways through the pipe.
fn punch(middle: &Middle, over: Over, hosts: [&Host; 2], limit: Duration) -> [Result<Story, PunchError>; 2] {
    punch_with(middle, over, hosts, |puncher| puncher.limit(limit), greet)
}

/// The same, otherwise set up, and with something else done with what is punched.
fn punch_with<T: Send, F: Future<Output = T>>(
    middle: &Middle,
    over: Over,
    hosts: [&Host; 2],
    set_up: impl Fn(Puncher) -> Puncher + Copy + Send,
    then: impl Fn(Punched) -> F + Copy + Send,
) -> [Result<T, PunchError>; 2] {
    std::thread::scope(|scope| {
        let ends = [0, 1].map(|end| {
            let (host, door, stun) = (hosts[end], middle.doors[end], middle.stun);
            scope.spawn(move || {
                host.block_on(async {
                    // A lost SYN is repeated after a second, and then after two more.
                    let conf = NetConf::default().con_timeout(SOON);
                    let pipe = pipe_open(Proto::Tcp).dest(door).conf(conf).await.unwrap();
                    let mut channel = PipeChannel::new(pipe).await;
                    let routes = Interface::list().unwrap().into_iter().filter_map(|i| i.route(Family::V4).ok());
                    let routes = routes.filter(|route| !route.nic()[0].is_loopback());
                    let puncher = Puncher::new().stun(stun[0]).stun(stun[1]);
                    let puncher = routes.fold(puncher, |puncher, route| puncher.route(&route));
                    Ok(then(set_up(puncher).punch(over, &mut channel).await?).await)
                })
                .unwrap()
            })
        });
        ends.map(|end| end.join().unwrap())
    })
}

/// Each says a word through the pipe until it hears the other's; over UDP one may be lost.
async fn greet(punched: Punched) -> Story {
    let (controlling, peer, took, total) = (punched.controlling, punched.peer, punched.took, punched.total);
    let (attempts, plan) = (punched.attempts, punched.plan.clone());
    assert!(punched.to_string().contains(&format!(" to {peer}, ")), "{punched}");
    let pipe = punched.into_pipe(NetConf::default()).await.unwrap();
    assert_eq!(pipe.peer_addr().and_then(natpipe::Addr::ip), Some(peer));
    let mut left = 50;
    loop {
        // The other end may have heard us and left; what it said is still to be heard.
        let sent = pipe.send("through").await;
        if let Ok(message) = pipe.recv_within(Duration::from_millis(200)).await {
            // A stream may bring two words at once.
            assert!(message.data.starts_with(b"through") || message.data.starts_with(b"bye"), "{message:?}");
            break;
        }
        left -= 1;
        assert!(left > 0 && sent.is_ok(), "nothing comes through the pipe: {sent:?}");
    }
    // Or it has heard nothing yet, and nobody answers when we have gone: both leave when both have said so. Some may be lost.
    for _ in 0..6 {
        let _ = pipe.send("bye").await;
    }
    let parted = async {
        while let Ok(message) = pipe.recv_within(Duration::from_secs(1)).await {
            if message.data.ends_with(b"bye") {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), parted).await;
    let datagrams = pipe.is_datagram();
    pipe.close().await;
    Story { controlling, peer, datagrams, took, total, attempts, plan }
}

const SOON: Duration = Duration::from_secs(15);

fn opens(over: Over, a: impl Into<Setup>, b: impl Into<Setup>) {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let middle = middle(&internet);
    let (a, b) = (internet.behind(a).unwrap(), internet.behind(b).unwrap());
    let ends = punch(&middle, over, [&a, &b], SOON);
    let [Ok(one), Ok(other)] = ends else { panic!("{ends:?}") };
    assert_ne!(one.controlling, other.controlling);
    assert_eq!((one.datagrams, other.datagrams), (over == Over::Udp, over == Over::Udp));
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
    udp_home_x_symmetric: Udp, Home x SymmetricRandom;
    udp_symmetric_x_linux: Udp, SymmetricRandom x Linux;
    udp_firewall_x_counting: Udp, Firewall x SymmetricSequential;
    udp_home_x_block: Udp, Home x PortBlockSymmetric;
    udp_counting_x_counting: Udp, SymmetricSequential x SymmetricSequential;
    udp_block_x_block: Udp, PortBlockSymmetric x PortBlockSymmetric;
    udp_block_x_counting: Udp, PortBlockSymmetric x SymmetricSequential;
    udp_open_filter_x_symmetric: Udp, SymmetricAdf x SymmetricRandom;
    udp_open_filter_x_itself: Udp, SymmetricAdf x SymmetricAdf;
    udp_open_filter_x_address_dependent: Udp, SymmetricAdf x AddressDependent;
    udp_address_dependent_x_block: Udp, AddressDependent x PortBlockSymmetric;
    udp_address_dependent_x_itself: Udp, AddressDependent x AddressDependent;
    udp_firewall_x_linux: Udp, Firewall x Linux;
    udp_linux_x_counting: Udp, Linux x SymmetricSequential;
    tcp_home_x_home: Tcp, Home x Home;
    tcp_linux_x_linux: Tcp, Linux x Linux;
    tcp_home_x_linux: Tcp, Home x Linux;
    tcp_rejecting_x_rejecting: Tcp, Rejecting x Rejecting;
    tcp_home_x_open: Tcp, Home x Open;
    tcp_full_cone_x_symmetric: Tcp, FullCone x SymmetricRandom;
    tcp_home_x_symmetric: Tcp, Home x SymmetricRandom;
    tcp_symmetric_x_linux: Tcp, SymmetricRandom x Linux;
    tcp_rejecting_x_symmetric: Tcp, Rejecting x SymmetricRandom;
    tcp_firewall_x_counting: Tcp, Firewall x SymmetricSequential;
    tcp_linux_x_counting: Tcp, Linux x SymmetricSequential;
    tcp_home_x_block: Tcp, Home x PortBlockSymmetric;
    tcp_linux_x_block: Tcp, Linux x PortBlockSymmetric;
    tcp_counting_x_counting: Tcp, SymmetricSequential x SymmetricSequential;
    tcp_double_x_home: Tcp, Double x Home;
}

/// `NATPIPE_RUNS` punches between two homes over a link that delays and loses; what each took is printed, and kept in
/// docs/figures.md.
fn homes(over: Over, delay: Duration, loss: f64) {
    let internet = Internet::with_link(Link { loss, ..Link::steady(delay) }, 7).unwrap();
    let middle = middle(&internet);
    let (a, b) = (internet.behind(Kind::Home).unwrap(), internet.behind(Kind::Home).unwrap());
    let runs = super::report::runs().max(3);
    let (mut took, mut total, mut attempts) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs {
        match punch(&middle, over, [&a, &b], SOON) {
            [Ok(one), Ok(other)] => {
                took.push(one.took.max(other.took));
                total.push(one.total.max(other.total));
                attempts.push(one.attempts.max(other.attempts));
            }
            ends => println!("{over}, run {run}: {ends:?}"),
        }
    }
    took.sort();
    total.sort();
    attempts.sort();
    let of = |times: &[Duration], part: usize| {
        let at = (times.len() * part / 100).min(times.len().saturating_sub(1));
        times.get(at).copied().unwrap_or_default()
    };
    let trips = |time: Duration| {
        (time.as_secs_f64() / (delay * 2).max(Duration::from_micros(1)).as_secs_f64() * 10.0).round() / 10.0
    };
    println!(
        "{over}, {delay:?} one way, {loss} lost: {} of {runs}; after the instant median {:?}, 99th {:?}; from the start median \
         {:?} ({} round trips), 99th {:?}; at most {:?} attempts",
        took.len(),
        of(&took, 50),
        of(&took, 99),
        of(&total, 50),
        trips(of(&total, 50)),
        of(&total, 99),
        attempts.last(),
    );
    // Where packets are lost, one of a few may fail; of many, two in a hundred.
    let failed = runs - took.len();
    assert!(failed <= (runs / 50).max(usize::from(loss > 0.0)), "{failed} of {runs} failed");
}

#[test]
fn two_homes_over_udp_with_five_percent_lost() {
    homes(Over::Udp, Duration::from_millis(10), 0.05);
}

#[test]
fn two_homes_over_tcp_with_two_percent_lost() {
    homes(Over::Tcp, Duration::from_millis(10), 0.02);
}

#[test]
fn two_homes_far_apart() {
    homes(Over::Udp, Duration::from_millis(50), 0.0);
    homes(Over::Tcp, Duration::from_millis(50), 0.0);
}

#[test]
fn two_hosts_of_one_network_find_each_other_without_their_router() {
    let internet = Internet::new().unwrap();
    let middle = middle(&internet);
    let router = internet.router("home", Kind::Home).unwrap();
    let (a, b) = (router.host("a").unwrap(), router.host("b").unwrap());
    for over in [Over::Udp, Over::Tcp] {
        let ends = punch(&middle, over, [&a, &b], SOON);
        let [Ok(one), Ok(other)] = ends else { panic!("{ends:?}") };
        assert_eq!((one.peer.ip(), other.peer.ip()), (b.v4().unwrap(), a.v4().unwrap()), "{over}");
    }
}

#[test]
fn what_can_not_be_punched_ends_in_time_and_says_so() {
    let internet = Internet::new().unwrap();
    let middle = middle(&internet);
    let (a, b) = (internet.behind(Kind::UdpBlocked).unwrap(), internet.behind(Kind::Home).unwrap());
    let ends = punch(&middle, Over::Udp, [&a, &b], Duration::from_secs(2));
    for end in ends {
        let error = end.unwrap_err();
        assert!(matches!(error, PunchError::Closed { proto: Over::Udp, .. }), "{error}");
    }
}

/// Kinds of which every pair is tried.
pub(super) const KINDS: [Kind; 14] = [
    Kind::Open,
    Kind::Firewall,
    Kind::FullCone,
    Kind::Restricted,
    Kind::Home,
    Kind::NonPreserving,
    Kind::Linux,
    Kind::Rejecting,
    Kind::Double,
    Kind::SymmetricSequential,
    Kind::AddressDependent,
    Kind::PortBlockSymmetric,
    Kind::SymmetricAdf,
    Kind::SymmetricRandom,
];

/// Pairs for which guessing both ends' ports costs too much: both say so, and a relay is left.
fn is_hopeless(over: Over, a: Kind, b: Kind) -> bool {
    // A filter that lets in all of an address is as good as a port that stays.
    if over == Over::Udp && [a, b].contains(&Kind::SymmetricAdf) {
        return false;
    }
    let random = |kind| match kind {
        Kind::SymmetricRandom | Kind::SymmetricAdf => Some(64_512.0),
        Kind::AddressDependent => Some(4_096.0),
        Kind::PortBlockSymmetric => Some(512.0),
        _ => None,
    };
    let counts = |kind| kind == Kind::SymmetricSequential;
    match (random(a), random(b)) {
        // Over TCP each try is a socket.
        (Some(a), Some(b)) => a * b > if over == Over::Tcp { 2.2e6 } else { 4e7 },
        (Some(one), None) if counts(b) => one > if over == Over::Tcp { 600.0 } else { 5_000.0 },
        (None, Some(one)) if counts(a) => one > if over == Over::Tcp { 600.0 } else { 5_000.0 },
        _ => false,
    }
}

/// Each pair `NATPIPE_RUNS` times; the table is kept in docs/punch.md.
fn matrix(over: Over) {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let middle = middle(&internet);
    let ends = [(); 2].map(|()| KINDS.map(|kind| internet.behind(kind).unwrap()));
    let (runs, mut wrong) = (super::report::runs(), Vec::new());
    for (row, a) in KINDS.into_iter().enumerate() {
        let mut cells = String::new();
        for (column, b) in KINDS.into_iter().enumerate().skip(row) {
            let mut opened = 0;
            let mut took = Vec::new();
            // Where few runs are made, one that was unlucky gets two more, and one of the three may fail.
            let (mut tries, mut run) = (runs, 0);
            while run < tries {
                // Who is where must not matter.
                let hosts =
                    if run % 2 == 0 { [&ends[0][row], &ends[1][column]] } else { [&ends[1][column], &ends[0][row]] };
                match punch(&middle, over, hosts, SOON) {
                    [Ok(one), Ok(other)] => {
                        opened += 1;
                        took.push(one.took.max(other.took));
                    }
                    ends if is_hopeless(over, a, b) => {
                        let says = |end: &Result<Story, PunchError>| matches!(end, Err(PunchError::Closed { plan, .. }) if plan.is_hopeless());
                        assert!(ends.iter().all(says), "{over}, {a} and {b}: {ends:?}");
                    }
                    ends => {
                        println!("{over}, {a} and {b}: {ends:?}");
                        tries = if runs < 20 { runs + 2 } else { runs };
                    }
                }
                run += 1;
            }
            took.sort();
            cells += &format!(" {b}: {opened}/{tries} {:?};", took.get(took.len() / 2).copied().unwrap_or_default());
            let missed = tries - opened;
            if !is_hopeless(over, a, b) && missed > (tries / 20).max(usize::from(runs < 20)) {
                wrong.push(format!("{a} and {b}: {opened} of {tries}"));
            }
        }
        println!("{over} {a}:{cells}");
    }
    assert!(wrong.is_empty(), "{over}: {wrong:#?}");
}

/// The four kinds of iroh's own matrix, by the rules of the crate that it tests with. Without guessing ports three of their
/// sixteen pairs can not be punched.
const IROH: [Kind; 4] = [Kind::Open, Kind::PatchbayOpen, Kind::PatchbayModerate, Kind::PatchbayStrict];

#[test]
fn irohs_sixteen_pairs_are_punched_and_two_strict_ones_say_why_not() {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let middle = middle(&internet);
    let ends = [(); 2].map(|()| IROH.map(|kind| internet.behind(kind).unwrap()));
    let (runs, mut wrong) = (super::report::runs(), Vec::new());
    for (row, a) in IROH.into_iter().enumerate() {
        for (column, b) in IROH.into_iter().enumerate() {
            let hopeless = a == Kind::PatchbayStrict && b == Kind::PatchbayStrict;
            let (mut opened, mut took) = (0, Vec::new());
            for _ in 0..runs {
                match punch(&middle, Over::Udp, [&ends[0][row], &ends[1][column]], SOON) {
                    [Ok(one), Ok(other)] => {
                        opened += 1;
                        took.push(one.took.max(other.took));
                    }
                    ends if hopeless => {
                        for end in ends {
                            let said = end.unwrap_err().to_string();
                            assert!(said.contains("use a relay"), "{said}");
                        }
                    }
                    ends => println!("{a} and {b}: {ends:?}"),
                }
            }
            took.sort();
            println!("{a} and {b}: {opened} of {runs}, median {:?}", took.get(took.len() / 2));
            // Without many runs each has to be; with many, one in twenty may not.
            if opened < if hopeless { 0 } else { runs - runs / 20 } {
                wrong.push(format!("{a} and {b}: {opened} of {runs}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The second server is hard to hear, or is not there: what its silence hides must not be taken for a NAT that keeps its ports.
fn with_a_second_server(drops: &str, runs: u32) {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let middle = middle(&internet);
    let chain = format!("chain in {{\ntype filter hook input priority 0\nudp dport 3478 {drops}\n}}");
    let rules = format!("table inet deaf {{\n{chain}\n}}\n");
    middle.servers[1].2.nft(&rules).unwrap();
    for (a, b) in [(Kind::SymmetricRandom, Kind::Home), (Kind::NonPreserving, Kind::Home), (Kind::Home, Kind::Linux)] {
        let (host, other) = (internet.behind(a).unwrap(), internet.behind(b).unwrap());
        for _ in 0..runs {
            let ends = punch(&middle, Over::Udp, [&host, &other], SOON);
            let [Ok(one), Ok(other)] = ends else { panic!("{a} and {b}: {ends:?}") };
            println!("{a} and {b}: {:?}, {} and {} packets", one.took.max(other.took), one.attempts, other.attempts);
        }
    }
}

#[test]
fn a_second_server_that_loses_two_of_three_requests_is_heard_all_the_same() {
    with_a_second_server("numgen inc mod 3 < 2 drop", 1);
}

#[test]
fn a_second_server_that_is_dead_does_not_make_a_nat_look_better_than_it_is() {
    with_a_second_server("drop", 1);
}

/// One interface of the host is behind a NAT that can not be guessed; on the other one no STUN server answers, and it is only offered
/// when that is known, two seconds after the first one was, while both dig.
#[test]
fn an_address_that_is_found_later_is_told_at_once_and_used() {
    for over in [Over::Udp, Over::Tcp] {
        let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
        let middle = middle(&internet);
        let strict = internet.router("strict", Kind::SymmetricRandom).unwrap();
        let host = strict.host("host").unwrap();
        let second = host.attach(&internet).unwrap().addresses[0];
        let chain = format!("chain in {{\ntype filter hook input priority 0\nip saddr {second} drop\n}}");
        for server in &middle.servers {
            server.2.nft(&format!("table inet deaf {{\n{chain}\n}}\n")).unwrap();
        }
        let other = internet.behind(Kind::SymmetricRandom).unwrap();
        let ends = punch(&middle, over, [&host, &other], SOON);
        let [Ok(one), Ok(other)] = ends else { panic!("{over}: {ends:?}") };
        assert_eq!(other.peer.ip(), second, "{over}: {one:?} {other:?}");
        assert!(one.took > Duration::from_secs(1), "it was waited for: {one:?}");
    }
}

/// A router that opens ports makes two direct that could not guess each other's.
#[test]
fn a_port_that_a_gateway_opens_is_told_when_it_is_open_and_used() {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let middle = middle(&internet);
    let router = internet.router("opens", Kind::SymmetricRandom).unwrap();
    let daemon = miniupnpd(&router, "enable_natpmp=yes\nenable_upnp=yes");
    let (inside, other) = (router.host("inside").unwrap(), internet.behind(Kind::SymmetricRandom).unwrap());
    let at = &router;
    let greet = |punched: Punched| async move {
        let story = greet(punched).await;
        // What was opened is taken back while the runtime lives.
        let until = Instant::now() + SOON;
        while mappings(at).contains("dnat") {
            assert!(Instant::now() < until, "the gateway still has what it opened: {}", mappings(at));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        story
    };
    for over in [Over::Udp, Over::Tcp] {
        let ends = punch_with(&middle, over, [&inside, &other], |puncher| puncher.port_mapping(true), greet);
        let [Ok(one), Ok(caller)] = ends else { panic!("{over}: {ends:?}") };
        assert_eq!(Some(caller.peer.ip()), daemon.external, "{over}: {one:?} {caller:?}");
        assert!(one.plan.is_hopeless() && one.attempts < 1000, "{over}: {one:?}");
    }
}

/// Where it is known how long bindings live, an idle hole costs two checks in that time; otherwise one each three seconds.
#[test]
fn an_idle_hole_is_kept_as_rarely_as_its_bindings_allow() {
    const IDLE: Duration = Duration::from_secs(18);
    let packets = |lifetime: Option<Duration>| {
        let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
        let middle = middle(&internet);
        let hosts = [internet.behind(Kind::Home).unwrap(), internet.behind(Kind::Home).unwrap()];
        let set_up = |puncher: Puncher| lifetime.into_iter().fold(puncher, Puncher::binding_lifetime);
        let idle = |punched: Punched| async move {
            let pipe = punched.into_pipe(NetConf::default()).await.unwrap();
            let sends = || udp_packets_sent();
            // Both have nominated, and checks have become rare.
            assert!(pipe.recv_within(Duration::from_secs(12)).await.is_err());
            let before = sends();
            // The other end may be done a moment before.
            let word = pipe.recv_within(IDLE).await;
            let sent = sends() - before;
            pipe.send("still there").await.unwrap();
            let word = if word.is_err() { pipe.recv_within(SOON).await } else { word };
            assert_eq!(&word.unwrap().data[..], b"still there");
            pipe.close().await;
            sent
        };
        let ends = punch_with(&middle, Over::Udp, hosts.each_ref(), set_up, idle);
        ends.map(|end| end.unwrap()).into_iter().max().unwrap()
    };
    let [often, rare] = std::thread::scope(|scope| {
        let counts = [None, Some(Duration::from_secs(32))].map(|lifetime| scope.spawn(move || packets(lifetime)));
        counts.map(|count| count.join().unwrap())
    });
    println!("in {IDLE:?}: {often} packets of an end, and {rare} where bindings live for 32 s");
    // Its own checks, and answers to the other's.
    assert!((8..=16).contains(&often), "{often}");
    assert!((1..=4).contains(&rare), "{rare}");
}

/// Of this namespace, as the kernel counts.
fn udp_packets_sent() -> u64 {
    let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let line = snmp.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap();
    line.split_whitespace().nth(4).unwrap().parse().unwrap()
}

/// NATs that count, each in its way: on and on, while their host's own ports go up one by one, or from a fresh socket's port only.
#[test]
fn nats_that_count_each_in_its_way_are_foreseen() {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let middle = middle(&internet);
    let kind = |name: &str| -> Kind { format!("model-symmetric-{name}").parse().unwrap() };
    for (a, b) in [("dependent", "independent"), ("dependent", "dependent"), ("equal", "independent")] {
        let (one, other) = (internet.behind(kind(a)).unwrap(), internet.behind(kind(b)).unwrap());
        for over in [Over::Udp, Over::Tcp] {
            let ends = punch(&middle, over, [&one, &other], SOON);
            let [Ok(one), Ok(other)] = ends else { panic!("{a} and {b} over {over}: {ends:?}") };
            let both = matches!((&one.plan, &other.plan), (Plan::Cross { .. }, Plan::Cross { .. }));
            assert!(both, "{a} and {b} over {over}: {} and {}", one.plan, other.plan);
        }
    }
}

/// A NAT that takes another port for each destination, and gives a fresh socket the port that it has itself, or one at a fixed
/// distance.
#[test]
fn what_a_fresh_socket_gets_is_foreseen() {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let middle = middle(&internet);
    for name in ["model-symmetric-equal", "model-symmetric-preserving"] {
        let kind: Kind = name.parse().unwrap();
        let (a, b) = (internet.behind(kind).unwrap(), internet.behind(kind).unwrap());
        for over in [Over::Udp, Over::Tcp] {
            let ends = punch(&middle, over, [&a, &b], SOON);
            let [Ok(one), Ok(other)] = ends else { panic!("{kind} over {over}: {ends:?}") };
            assert_eq!([one.plan, other.plan], [Plan::Meet, Plan::Meet]);
        }
    }
}

#[test]
fn every_pair_over_udp() {
    matrix(Over::Udp);
}

#[test]
fn every_pair_over_tcp() {
    matrix(Over::Tcp);
}
