//! STUN: coturn, pystun3, aioice and aionetiface.

use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use natpipe::lab::{Host, Internet, Kind};
use natpipe::nat::{Kind as Type, Prober};
use natpipe::stun::{Client, Form, Server, ServerName, Timing};
use natpipe::{Family, Interface};

use crate::{python, said, script};

const PORT: u16 = 3478;
const OTHER: u16 = 3479;

/// A host with two IPv4 addresses, for a server of four sockets.
fn place(internet: &Internet) -> (Host, [IpAddr; 2]) {
    let host = internet.host("server").unwrap();
    host.add_addresses("eth0").unwrap();
    let mut v4 = host.addresses().into_iter().filter(IpAddr::is_ipv4);
    let addrs = [v4.next().unwrap(), v4.next().unwrap()];
    (host, addrs)
}

/// Ours, with the runtime that it lives on.
struct Ours {
    addrs: [IpAddr; 2],
    _server: Server,
    _runtime: tokio::runtime::Runtime,
    _host: Host,
}

fn ours(internet: &Internet) -> Ours {
    let (host, addrs) = place(internet);
    let runtime = host.runtime().unwrap();
    let server = host.run(|| {
        let _inside = runtime.enter();
        Server::listen((addrs[0], PORT).into()).listen2((addrs[1], OTHER).into()).start().unwrap()
    });
    Ours { addrs, _server: server, _runtime: runtime, _host: host }
}

/// coturn, ended with the test.
struct Coturn(Child);

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn coturn(host: &Host, addrs: [IpAddr; 2]) -> Coturn {
    let port = PORT.to_string();
    let [first, second] = addrs.map(|ip| ip.to_string());
    let mut command = Command::new("turnserver");
    command.args(["-n", "-S", "--no-tls", "--no-dtls", "--no-cli", "--pidfile", "/dev/null"]);
    command.args(["-L", &first, "-L", &second, "-p", &port, "--alt-listening-port", &OTHER.to_string()]);
    command.args(["--log-file", "stdout", "--simple-log"]).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Coturn(host.start(&mut command).unwrap());
    let begun = Instant::now();
    let ready = || {
        host.block_on(async {
            let client = Client::new().server(ServerName::from(std::net::SocketAddr::from((addrs[0], PORT))));
            client
                .timing(Timing::default().rto(Duration::from_millis(100)).requests(2).last_wait(1))
                .ask()
                .await
                .is_ok()
        })
        .unwrap()
    };
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(20), "coturn does not answer");
    }
    running
}

/// Routers and the name that RFC 3489 has for each.
const KINDS: [(Kind, Type); 5] = [
    (Kind::Open, Type::Open),
    (Kind::FullCone, Type::FullCone),
    (Kind::Restricted, Type::Restricted),
    (Kind::Home, Type::PortRestricted),
    (Kind::SymmetricRandom, Type::Symmetric),
];

#[test]
fn our_client_and_our_report_against_coturn() {
    let internet = Internet::new().unwrap();
    let (host, addrs) = place(&internet);
    let _coturn = coturn(&host, addrs);
    let server = std::net::SocketAddr::from((addrs[0], PORT));
    for (kind, expected) in KINDS {
        let router = internet.router(&kind.to_string(), kind).unwrap();
        let client = router.host("client").unwrap();
        let report = client
            .block_on(async {
                let udp = Client::new().server(server);
                for client in [udp.clone(), udp.clone().form(Form::Classic), udp.tcp()] {
                    let answer = client.ask().await.unwrap();
                    assert!(router.public().contains(&answer.mapped.ip()) || kind == Kind::Open, "{kind}: {answer:?}");
                }
                let interfaces = Interface::list().unwrap();
                Prober::new(interfaces).stun(server).family(Family::V4).run().await.unwrap()
            })
            .unwrap();
        assert_eq!(report.entries[0].kind(), Some(expected), "{kind}: {report:#?}");
    }
}

#[test]
fn coturns_clients_against_our_server() {
    let internet = Internet::new().unwrap();
    let server = ours(&internet);
    let address = server.addrs[0].to_string();
    // Address-dependent mapping is missing: the tool expects OTHER-ADDRESS to be the same in answers from everywhere, where
    // RFC 5780 section 7.4 makes it relative to the address that was asked.
    for (kind, mapping, filtering) in [
        (Kind::FullCone, "Endpoint Independent Mapping", "Endpoint Independent Filtering"),
        (Kind::Restricted, "Endpoint Independent Mapping", "Address Dependent Filtering"),
        (Kind::Home, "Endpoint Independent Mapping", "Address and Port Dependent Filtering"),
        (Kind::SymmetricRandom, "Address and Port Dependent Mapping", "Address and Port Dependent Filtering"),
    ] {
        let router = internet.router(&kind.to_string(), kind).unwrap();
        let client = router.host("client").unwrap();
        // Its second test asks for an answer to a port that no NAT lets in, and waits for it for ever.
        let seen = client.output(Command::new("timeout").args(["1", "turnutils_stunclient", &address])).unwrap();
        let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
        assert!(seen.contains(&router.public()[0].to_string()), "{kind}: {seen}");
        for (test, expected) in [("-m", mapping), ("-f", filtering)] {
            let found = client.output(Command::new("timeout").args(["20", "turnutils_natdiscovery", test, &address]));
            let found = said(&found.unwrap());
            assert!(found.contains(&format!("NAT with {expected}!")), "{kind}: {found}");
        }
    }
}

#[test]
fn pystun3_against_our_server() {
    let internet = Internet::new().unwrap();
    let server = ours(&internet);
    for (kind, name) in [
        (Kind::FullCone, "Full Cone"),
        (Kind::Home, "Restric Port NAT"),
        (Kind::Restricted, "Restric NAT"),
        (Kind::SymmetricRandom, "Symmetric NAT"),
    ] {
        let router = internet.router(&kind.to_string(), kind).unwrap();
        let client = router.host("client").unwrap();
        let mut command = python();
        command.args(["-c", "from stun.cli import main; main()", "-P", "3478", "-H", &server.addrs[0].to_string()]);
        let found = said(&client.output(&mut command).unwrap());
        assert!(found.contains(&format!("NAT Type: {name}\n")), "{kind}: {found}");
        // It tells the address only where its last test was answered.
        let told = matches!(kind, Kind::FullCone | Kind::Restricted | Kind::SymmetricRandom);
        assert_eq!(found.contains(&router.public()[0].to_string()), told, "{kind}: {found}");
    }
}

#[test]
fn aioice_against_our_server() {
    let internet = Internet::new().unwrap();
    let server = ours(&internet);
    let router = internet.router("home", Kind::Home).unwrap();
    let client = router.host("client").unwrap();
    let mut command = python();
    command.arg(script("stun/aioice_candidates.py")).args([server.addrs[0].to_string(), PORT.to_string()]);
    let candidates = said(&client.output(&mut command).unwrap());
    let candidates: Vec<(String, IpAddr, u16)> = serde_json::from_str(&candidates).unwrap();
    let reflexive = candidates.iter().find(|(kind, ..)| kind == "srflx").expect("a server-reflexive candidate");
    assert!(router.public().contains(&reflexive.1), "{candidates:?}");
}

/// Its own numbers for NAT types: 1 to 6 in the order of seed 002.
#[test]
fn aionetiface_against_our_server() {
    let internet = Internet::new().unwrap();
    let server = ours(&internet);
    for (kind, number) in [(Kind::FullCone, 3), (Kind::Restricted, 4), (Kind::Home, 5), (Kind::SymmetricRandom, 6)] {
        let router = internet.router(&kind.to_string(), kind).unwrap();
        let client = router.host("client").unwrap();
        let [first, second] = server.addrs.map(|ip| ip.to_string());
        let mut command = python();
        command.arg(script("stun/aionetiface_nat.py")).args([&first, &second, "3478", "3479"]);
        let found: serde_json::Value = serde_json::from_str(&said(&client.output(&mut command).unwrap())).unwrap();
        for asked in ["udp-3489", "udp-5389", "tcp-3489", "tcp-5389"] {
            assert_eq!(found[asked], router.public()[0].to_string(), "{kind}: {asked}: {found}");
        }
        assert_eq!(found["nat"], number, "{kind}: {found}");
    }
}
