//! Peers who meet without a server of natpipe: through a broker alone, on their own network; and where nothing but the web passes.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use natpipe::key::{BrokerUrl, Carrier, Place, ServerUrl};
use natpipe::lab::{Host, Internet, Kind, Link, Router};
use natpipe::nat::Proto;
use natpipe::peer::{Lan, Node, PathKind};
use natpipe::rendezvous::{Client, Proxy, Server};
use natpipe::{Identity, Ticket, stun};
use serde_json::Value;
use tokio::time::timeout;

use super::peers::connect_as;

const LIMIT: Duration = Duration::from_secs(40);

/// A program inside a host that ends with the test, and its configuration.
pub(super) struct Program {
    child: Child,
    conf: PathBuf,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.conf);
    }
}

fn program(host: &Host, names: &[&str], options: &[&str], conf: &str, at: SocketAddr) -> Program {
    let tag = format!("{}-{}", std::process::id(), at.to_string().replace([':', '.'], "-"));
    let file = std::env::temp_dir().join(format!("natpipe-lab-{}-{tag}", host.name()));
    write!(std::fs::File::create(&file).unwrap(), "{conf}").unwrap();
    let name = names.iter().find(|name| PathBuf::from(name).exists()).unwrap_or(&names[0]);
    let mut command = Command::new(name);
    command.args(options).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = host.start(&mut command).unwrap_or_else(|error| panic!("{name} is installed: {error}"));
    let begun = Instant::now();
    while host.run(|| TcpStream::connect(at)).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{name} does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    Program { child, conf: file }
}

pub(super) fn mosquitto(host: &Host) -> (Program, BrokerUrl) {
    let at = SocketAddr::from((host.v4().unwrap(), 1883));
    let conf = format!("persistence false\nlog_dest none\nallow_anonymous true\nlistener 1883 {}\n", at.ip());
    let program = program(host, &["/usr/sbin/mosquitto", "mosquitto"], &["-c"], &conf, at);
    (program, format!("mqtt://{at}").parse().unwrap())
}

#[test]
fn two_homes_meet_directly_through_a_broker_alone() {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let (at, other) = (internet.host("broker").unwrap(), internet.host("stun").unwrap());
    let (_broker, url) = mosquitto(&at);
    let runtime = other.runtime().unwrap();
    let stun = other.run(|| {
        let _inside = runtime.enter();
        stun::Server::listen((other.v4().unwrap(), 3478).into()).tcp(true).start().unwrap()
    });
    let (a, b) = (internet.behind(Kind::Home).unwrap(), internet.behind(Kind::Home).unwrap());
    let builder = || Node::builder().via(url.clone()).stun(stun.addr());
    let [caller, answerer] = connect_as(&builder, [&a, &b], 320);
    assert_eq!(caller.sum, answerer.sum, "every byte once and in order");
    let (first, last) = (caller.first.unwrap(), caller.last.unwrap());
    println!("first {first}, last {last}");
    assert!(matches!(first.kind, PathKind::UdpPunch | PathKind::TcpPunch), "{first}");
}

/// A home where nothing passes but TCP to port 80 of one machine: the proxy.
fn web_only(internet: &Internet, name: &str, proxy: IpAddr) -> (Router, Host) {
    let router = internet.router(name, Kind::Home).unwrap();
    let rules = format!(
        "table ip webonly {{\n chain forward {{\n type filter hook forward priority -10; policy drop;\n \
            ct state established,related accept\n ip daddr {proxy} tcp dport 80 accept\n }}\n}}\n"
    );
    router.nft(&rules).unwrap();
    let host = router.host(&format!("in {name}")).unwrap();
    (router, host)
}

#[test]
fn where_nothing_but_the_web_passes_a_proxy_and_a_server_at_port_443_are_enough() {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let (at, between) = (internet.host("server").unwrap(), internet.host("proxy").unwrap());
    let through = SocketAddr::from((between.v4().unwrap(), 80));
    let conf =
        format!("Port 80\nListen {}\nTimeout 600\nMaxClients 50\nLogLevel Error\nConnectPort 443\n", through.ip());
    let _proxy = program(&between, &["/usr/bin/tinyproxy", "tinyproxy"], &["-d", "-c"], &conf, through);
    let runtime = at.runtime().unwrap();
    let server = at.run(|| {
        let serving = Server::listen((at.v4().unwrap(), 443).into(), Identity::generate().unwrap());
        runtime.block_on(serving.start()).unwrap()
    });
    let ((_one, a), (_other, b)) =
        (web_only(&internet, "office", through.ip()), web_only(&internet, "school", through.ip()));
    // It is as closed as it should be.
    for host in [&a, &b] {
        let straight = host.run(|| TcpStream::connect_timeout(&server.addr(), Duration::from_millis(500)));
        assert!(straight.is_err());
    }
    let url = server.url();
    let web = ServerUrl::new(Carrier::Ws, url.host(), url.port(), url.key()).unwrap();
    let proxy: Proxy = format!("http://{through}").parse().unwrap();
    for url in [url, web] {
        let builder = || Node::builder().via(url.clone()).proxy(proxy.clone());
        let [caller, answerer] = connect_as(&builder, [&a, &b], 160);
        assert_eq!(caller.sum, answerer.sum, "every byte once and in order");
        assert_eq!(caller.last.unwrap().kind, PathKind::Relay);
    }
}

/// How long a host takes to register at a server when its router swallows the first so many flows to it, with every packet.
fn registered(internet: &Internet, url: &ServerUrl, flows: usize) -> Duration {
    let router = internet.router(&format!("home {flows}"), Kind::Home).unwrap();
    let rules = format!(
        "table ip swallow {{\n set swallowed {{\n type inet_service; flags dynamic; size {flows};\n }}\n chain forward {{\n \
            type filter hook forward priority -10;\n \
            tcp dport {} tcp flags & (syn | ack) == syn add @swallowed {{ tcp sport }}\n \
            tcp sport @swallowed drop\n }}\n}}\n",
        url.port()
    );
    router.nft(&rules).unwrap();
    let (host, begun) = (router.host("ann").unwrap(), Instant::now());
    let connecting = async { Client::connect(url, &Identity::generate().unwrap()).await.map(drop) };
    host.block_on(connecting).unwrap().unwrap_or_else(|error| panic!("{flows}: {error}"));
    begun.elapsed()
}

#[test]
fn a_server_is_reached_although_a_nat_swallows_the_first_flows_to_it() {
    let internet = Internet::new().unwrap();
    let at = internet.host("server").unwrap();
    let runtime = at.runtime().unwrap();
    let serving = Server::listen((at.v4().unwrap(), 3478).into(), Identity::generate().unwrap());
    let server = at.run(|| runtime.block_on(serving.start())).unwrap();
    let (internet, url) = (&internet, &server.url());
    let took = std::thread::scope(|scope| {
        let both = [1, 2].map(|flows| scope.spawn(move || registered(internet, url, flows)));
        both.map(|one| one.join().unwrap().as_secs())
    });
    assert!((3..7).contains(&took[0]), "by a second connection: {took:?}");
    assert!((8..13).contains(&took[1]), "by a websocket, after both: {took:?}");
}

/// Two machines and a third on one network that leads nowhere.
fn one_network() -> (Internet, Router, [Host; 3]) {
    let internet = Internet::new().unwrap();
    let router = internet.router("home", Kind::Home).unwrap();
    router
        .nft("table ip away {\n chain forward {\n type filter hook forward priority -10; policy drop;\n }\n}\n")
        .unwrap();
    let hosts = ["ann", "bob", "eve"].map(|name| router.host(name).unwrap());
    (internet, router, hosts)
}

#[test]
fn on_one_network_they_find_each_other_with_no_server_and_whatever_others_announce() {
    let (_internet, _router, [ann, bob, eve]) = one_network();
    let (give, ticket) = std::sync::mpsc::channel::<Ticket>();
    let (forged, is_forged) = std::sync::mpsc::channel::<()>();
    let (done, over) = tokio::sync::watch::channel(false);
    std::thread::scope(|scope| {
        let mut over_at_eve = over.clone();
        let at_bob = scope.spawn(move || {
            bob.block_on(async {
                let node = Node::builder().lan(true).start().await.unwrap();
                let full = node.ticket().unwrap();
                assert!(full.is_on_lan());
                give.send(full).unwrap();
                let (_, pipe) = timeout(LIMIT, node.accept()).await.unwrap().unwrap();
                assert_eq!(&pipe.recv_within(LIMIT).await.unwrap().data[..], b"hello");
                pipe.send("it is me").await.unwrap();
                let mut over = over;
                over.wait_for(|over| *over).await.map(drop).unwrap();
                node.close().await;
            })
            .unwrap();
        });
        let full = ticket.recv().unwrap();
        let peer = full.peer();
        let at_eve = scope.spawn(move || {
            eve.block_on(async {
                // She says that she is Bob, and opens her doors; and that there are many more.
                let node = Node::start().await.unwrap();
                let door = node.ticket().unwrap().addresses()[0].addr.port();
                let lan = Lan::open(&[]).unwrap();
                lan.announce(peer, door).unwrap();
                let others: Vec<Lan> = (0..20)
                    .map(|n| {
                        let lan = Lan::open(&[]).unwrap();
                        lan.announce(Identity::from_seed([n; 32]).peer_id(), 9).unwrap();
                        lan
                    })
                    .collect();
                forged.send(()).unwrap();
                over_at_eve.wait_for(|over| *over).await.map(drop).unwrap();
                drop(others);
            })
            .unwrap();
        });
        is_forged.recv().unwrap();
        ann.block_on(async {
            // Not its addresses, which have changed since.
            let ticket = Ticket::new(peer).with_lan();
            let node = Node::builder().start().await.unwrap();
            let found = timeout(LIMIT, node.peer(&ticket)).await.unwrap().unwrap();
            assert_eq!((found.id(), found.path().unwrap().kind), (peer, PathKind::Direct));
            let pipe = found.open(Proto::Tcp, Default::default()).unwrap();
            pipe.send("hello").await.unwrap();
            assert_eq!(&pipe.recv_within(LIMIT).await.unwrap().data[..], b"it is me");
            // Somebody who is announced by Eve alone can not be reached: she has not the key.
            let forged = Ticket::new(Identity::from_seed([3; 32]).peer_id()).with_lan();
            let error = timeout(LIMIT, node.peer(&forged)).await.unwrap().unwrap_err();
            println!("{error}");
            // And nobody at all is not found, in time.
            let nobody = Ticket::new(Identity::generate().unwrap().peer_id()).with_lan();
            let error = timeout(LIMIT, node.peer(&nobody)).await.unwrap().unwrap_err();
            assert!(error.to_string().contains("does not announce itself"), "{error}");
        })
        .unwrap();
        done.send(true).unwrap();
        at_bob.join().unwrap();
        at_eve.join().unwrap();
    });
}

/// One forged answer with so many announcements of peers that are not there (RFC 6762 section 18).
fn forged(from: u32, count: u32) -> Vec<u8> {
    let name = |labels: &[&str]| {
        let mut bytes: Vec<u8> = labels.iter().flat_map(|l| [&[l.len() as u8], l.as_bytes()].concat()).collect();
        bytes.push(0);
        bytes
    };
    let mut packet = vec![0, 0, 0x84, 0, 0, 0];
    packet.extend((count as u16).to_be_bytes());
    packet.extend([0; 4]);
    for n in from..from + count {
        let instance = name(&[&format!("forged-{n}"), "_natpipe", "_udp", "local"]);
        packet.extend(name(&["_natpipe", "_udp", "local"]));
        packet.extend([0, 12, 0, 1, 0, 0, 0x10, 0]);
        packet.extend((instance.len() as u16).to_be_bytes());
        packet.extend(instance);
    }
    packet
}

#[test]
fn a_flood_of_forged_announcements_is_forgotten_and_who_is_there_is_found() {
    let (_internet, _router, [ann, bob, eve]) = one_network();
    let (at_bob, at_ann) = (bob.runtime().unwrap(), ann.runtime().unwrap());
    let node = at_bob.block_on(at_bob.spawn(async { Node::builder().lan(true).start().await.unwrap() })).unwrap();
    let lan = at_ann.block_on(at_ann.spawn(async { Lan::open(&[]).unwrap() })).unwrap();
    let id = node.id();
    let mut peers = lan.peers();
    let mut found = || {
        let there = peers.wait_for(|peers| peers.iter().any(|peer| peer.peer == id));
        at_ann.block_on(async { timeout(LIMIT, there).await.map(|found| found.map(drop)) }).unwrap().unwrap();
    };
    found();
    let own = eve.v4().unwrap();
    let socket = eve.run(|| UdpSocket::bind(("0.0.0.0", 5353))).unwrap();
    let IpAddr::V4(own) = own else { panic!() };
    socket.join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 251), &own).unwrap();
    for n in 0..600 {
        socket.send_to(&forged(n * 20, 20), "224.0.0.251:5353").unwrap();
        // What is no answer at all.
        let cut = forged(n, 3);
        socket.send_to(&cut[..cut.len() / (1 + n as usize % 7)], "224.0.0.251:5353").unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    // What was heard is forgotten, and Bob, who is still there, is asked for again.
    let mut changes = lan.peers();
    changes.mark_unchanged();
    let emptied = changes.wait_for(|peers| peers.is_empty());
    at_ann.block_on(async { timeout(LIMIT, emptied).await.map(|found| found.map(drop)) }).unwrap().unwrap();
    found();
    assert!(lan.peers().borrow().len() <= 2, "no forged one is a peer");
    at_bob.block_on(async { drop(node) });
    drop(lan);
    [at_bob, at_ann].into_iter().for_each(|runtime| runtime.shutdown_background());
}

fn natpipe(host: &Host, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natpipe"));
    command.args(args).arg("--json").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    host.start(&mut command).unwrap()
}

#[test]
fn the_command_lists_who_is_on_the_network_and_connects_to_them() {
    let (_internet, _router, [ann, bob, _eve]) = one_network();
    let mut listen = Program { child: natpipe(&bob, &["listen", "--lan", "--no-public"]), conf: PathBuf::new() };
    let mut events = BufReader::new(listen.child.stderr.take().unwrap());
    let mut line = String::new();
    events.read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    let ticket: Ticket = told["ticket"].as_str().unwrap().parse().unwrap();
    let listed = |args: &[&str]| {
        let output = natpipe(&ann, args).wait_with_output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["peers"].as_array().unwrap().clone()
    };
    let peers = listed(&["peers", "--wait", "2"]);
    assert_eq!(peers.len(), 1, "{peers:?}");
    assert_eq!(peers[0]["peer"], ticket.peer().to_string());
    let at = format!("{}:{}", bob.v4().unwrap(), ticket.addresses()[0].addr.port());
    assert!(peers[0]["addresses"].as_array().unwrap().iter().any(|addr| *addr == *at), "{peers:?}");
    assert!(listed(&["peers", "--wait", "1", "--interface", "lo"]).is_empty());
    let bare = Ticket::new(ticket.peer()).with_lan().to_string();
    let mut connect = natpipe(&ann, &["connect", &bare, "--no-public"]);
    connect.stdin.take().unwrap().write_all(b"over the LAN").unwrap();
    drop(listen.child.stdin.take());
    let output = connect.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut listen.child.stdout.take().unwrap(), &mut said).unwrap();
    assert_eq!(said, "over the LAN");
}

#[test]
fn a_place_is_a_server_or_a_broker_and_a_ticket_carries_both() {
    let key = Identity::from_seed([1; 32]).peer_id();
    let ticket = ["mqtt://ann:secret@broker.example.org", "ws://broker.example.org/mqtt"]
        .into_iter()
        .map(|url| url.parse::<Place>().unwrap())
        .fold(Ticket::new(key), Ticket::with_place);
    let again: Ticket = ticket.to_string().parse().unwrap();
    assert_eq!(again, ticket);
    assert_eq!(again.brokers()[0].login(), Some(("ann", "secret")));
}

#[test]
fn a_peer_whose_network_has_changed_is_met_again_at_its_broker() {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(10)), 1).unwrap();
    let at = internet.host("broker").unwrap();
    let (_broker, url) = mosquitto(&at);
    let routers = ["first", "second"].map(|name| internet.router(name, Kind::Open).unwrap());
    let (ann, bob) = (internet.host("ann").unwrap(), routers[0].host("bob").unwrap());
    let (give, ticket) = std::sync::mpsc::channel::<Ticket>();
    let runtime = bob.runtime().unwrap();
    let via = url.clone();
    let answering = runtime.spawn(async move {
        let node = Node::builder().via(via).start().await.unwrap();
        give.send(node.ticket().unwrap()).unwrap();
        let (_, pipe) = timeout(2 * LIMIT, node.accept()).await.unwrap().unwrap();
        assert_eq!(&pipe.recv_within(LIMIT).await.unwrap().data[..], b"hello");
        pipe.send("it is me").await.unwrap();
        pipe.recv_within(LIMIT).await.unwrap_err();
    });
    let ticket = ticket.recv_timeout(LIMIT).unwrap();
    // Its connection to the broker stands on an address that is gone, and nothing says so.
    bob.detach("eth0").unwrap();
    bob.attach(&routers[1]).unwrap();
    ann.block_on(async {
        // By the broker alone: the addresses of the ticket are those that are gone.
        let node = Node::builder().start().await.unwrap();
        let by_broker = ticket.brokers().iter().cloned().fold(Ticket::new(ticket.peer()), Ticket::with_broker);
        // A broker that is not asked before is found dead 30 s later, and who calls is answered for 20 s at most.
        let peer = timeout(LIMIT, node.peer(&by_broker)).await.unwrap().unwrap();
        let pipe = peer.open(Proto::Tcp, Default::default()).unwrap();
        pipe.send("hello").await.unwrap();
        assert_eq!(&pipe.recv_within(LIMIT).await.unwrap().data[..], b"it is me");
        peer.close().await;
    })
    .unwrap();
    runtime.block_on(answering).unwrap();
}
