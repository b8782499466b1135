//! Interfaces and routes in network namespaces of the test's own: two cards that both lead to the
//! same destination, link-local addresses, a default route, a card that vanishes.
//!
//! The test runs itself again inside fresh user and network namespaces (no root needed).

use std::future::IntoFuture;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::process::Command;

use natpipe::net::InterfaceError;
use natpipe::{Family, Interface, NetConf, Pipe, Proto, Scope, pipe_open};
use nix::sched::{CloneFlags, setns};

use crate::soon;

/// Set in the process that runs inside the namespaces; its value is the process id that holds the far one.
const FAR: &str = "NATPIPE_TEST_FAR_NAMESPACE";

/// Two cards of ours, each on a network with the far host, which has one address that both reach.
const SCRIPT: &str = r#"
set -e
unshare -n sleep 60 & far=$!
while [ "$(readlink /proc/$far/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do :; done
ip link set lo up
for n in 0 1; do
  ip link add eth$n type veth peer name far$n netns $far
  ip address add 10.0.$n.1/24 dev eth$n
  ip link set eth$n up
  nsenter -t $far -n ip address add 10.0.$n.2/24 dev far$n
  nsenter -t $far -n ip link set far$n up
  ip address add fd00:$n::1/64 dev eth$n nodad
  nsenter -t $far -n ip address add fd00:$n::2/64 dev far$n nodad
done
nsenter -t $far -n sh -c 'ip link set lo up; ip address add 10.9.9.9/32 dev lo'
ip route add 10.9.9.9/32 via 10.0.0.2 dev eth0 metric 1
ip route add 10.9.9.9/32 via 10.0.1.2 dev eth1 metric 2
ip route add default via 10.0.1.2 dev eth1 metric 50
ip route add default via 10.0.0.2 dev eth0 metric 100
export NATPIPE_TEST_FAR_NAMESPACE=$far
trap 'kill $far' EXIT
"$@"
"#;

/// Runs the body inside the namespaces. In the outer process it starts the inner one and takes over its result.
fn inside(name: &str, body: impl AsyncFn(Far)) {
    let Ok(holder) = std::env::var(FAR) else {
        let test = format!("namespaces::{name}");
        let itself = std::env::current_exe().unwrap();
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "sh", "-c", SCRIPT, "sh"])
            .arg(itself)
            .args(["--exact", &test, "--nocapture", "--test-threads=1"])
            .output()
            .expect("unshare is installed");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && text.contains("1 passed"), "inside the namespaces:\n{text}");
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(body(Far { holder }));
}

/// The far host.
struct Far {
    holder: String,
}

impl Far {
    /// A server over there that tells each client the address that it came from.
    fn tells_the_source(&self, proto: Proto, bind: &str) -> SocketAddr {
        let (tell, told) = std::sync::mpsc::channel();
        let (namespace, bind) = (format!("/proc/{}/ns/net", self.holder), bind.to_owned());
        std::thread::spawn(move || {
            setns(std::fs::File::open(namespace).unwrap().as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let answer = |_, from: natpipe::Addr, pipe: Pipe| async move {
                    pipe.send(from.to_string()).await.unwrap();
                };
                let server = pipe_open(proto).bind(bind.as_str()).msg_cb(answer).await.unwrap();
                tell.send(server.local_addr().ip().unwrap()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        told.recv().unwrap()
    }

    fn run(&self, command: &str) {
        let status = Command::new("nsenter").args(["-t", &self.holder, "-n", "sh", "-c", command]).status().unwrap();
        assert!(status.success(), "{command}");
    }
}

async fn source_seen(client: &Pipe) -> SocketAddr {
    client.send("who am I?").await.unwrap();
    let answer = client.recv().await.unwrap();
    std::str::from_utf8(&answer).unwrap().parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_pipe_leaves_by_the_interface_of_its_route_whatever_the_table_prefers() {
    inside("a_pipe_leaves_by_the_interface_of_its_route_whatever_the_table_prefers", async |far| {
        for proto in [Proto::Tcp, Proto::Udp] {
            let dest = far.tells_the_source(proto, "10.9.9.9:0");
            let unrouted = pipe_open(proto).dest(dest).await.unwrap();
            assert_eq!(source_seen(&unrouted).await.ip(), ip("10.0.0.1"), "the table prefers eth0");
            for (name, own) in [("eth0", "10.0.0.1"), ("eth1", "10.0.1.1")] {
                let card = Interface::by_name(name).unwrap();
                let route = card.route(Family::V4).unwrap();
                let before = sent(name);
                let client = pipe_open(proto).dest(dest).route(&route).await.unwrap();
                assert_eq!(source_seen(&client).await.ip(), ip(own), "{proto} by {name}");
                assert!(sent(name) > before, "{proto} packets went out by {name}");
                assert_eq!(client.local_addr().ip().unwrap().ip(), ip(own));
            }
        }
    });
}

/// Packets that an interface has sent.
fn sent(interface: &str) -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = table.lines().find(|line| line.trim_start().starts_with(interface)).unwrap();
    line.split(':').nth(1).unwrap().split_whitespace().nth(9).unwrap().parse().unwrap()
}

#[test]
fn the_source_address_alone_does_not_choose_the_interface_but_a_route_does() {
    inside("the_source_address_alone_does_not_choose_the_interface_but_a_route_does", async |far| {
        let dest = far.tells_the_source(Proto::Udp, "10.9.9.9:0");
        let by_address = pipe_open(Proto::Udp).dest(dest).bind("10.0.1.1:0").await.unwrap();
        // Neighbour discovery sends a few packets of its own beside these.
        const MANY: u64 = 50;
        let before = (sent("eth0"), sent("eth1"));
        for _ in 0..MANY {
            by_address.send("by address").await.unwrap();
        }
        assert!(sent("eth0") >= before.0 + MANY && sent("eth1") < before.1 + MANY, "the table still prefers eth0");
        let route = Interface::by_name("eth1").unwrap().route(Family::V4).unwrap();
        let by_route = pipe_open(Proto::Udp).dest(dest).route(&route).await.unwrap();
        let before = sent("eth1");
        for _ in 0..MANY {
            by_route.send("by route").await.unwrap();
        }
        assert!(sent("eth1") >= before + MANY);
    });
}

#[test]
fn interfaces_are_found_by_name_address_and_default_route() {
    inside("interfaces_are_found_by_name_address_and_default_route", async |_| {
        assert_eq!(Interface::default_for(Family::V4).unwrap().name(), "eth1", "the lower metric");
        let none = Interface::default_for(Family::V6).unwrap_err();
        assert!(matches!(none, InterfaceError::NoDefaultRoute { family: Family::V6 }));
        let card = Interface::by_addr(ip("10.0.0.1")).unwrap();
        assert_eq!((card.name(), card.mtu()), ("eth0", Some(1500)));
        assert!(card.mac().is_some() && card.flags().up && card.flags().broadcast && !card.flags().loopback);
        let scopes: Vec<Scope> = card.addrs().iter().map(|addr| addr.scope).collect();
        for scope in [Scope::Private, Scope::UniqueLocal, Scope::LinkLocal] {
            assert!(scopes.contains(&scope), "{scopes:?}");
        }
        assert_eq!(card.addrs().iter().find(|a| a.ip == ip("10.0.0.1")).unwrap().prefix, 24);
        assert_eq!(card.routes(Family::V6).len(), 2, "unique-local and link-local");
    });
}

#[test]
fn link_local_addresses_work_within_their_zone() {
    inside("link_local_addresses_work_within_their_zone", async |far| {
        let card = Interface::by_name("eth1").unwrap();
        let route = card.routes(Family::V6).into_iter().find(|r| Scope::of(r.nic()[0]) == Scope::LinkLocal).unwrap();
        // A link-local address can be bound once duplicate address detection is over.
        let server = soon("the address is ready", async {
            loop {
                if let Ok(server) = pipe_open(Proto::Tcp).route(&route.bind(0)).await {
                    break server;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
        let SocketAddr::V6(local) = server.local_addr().ip().unwrap() else { panic!("an IPv6 address") };
        assert_eq!(local.scope_id(), card.index());
        let port = far.tells_the_source(Proto::Udp, "[::]:0").port();
        let there = link_local_of(&far, "far1");
        let dest = SocketAddr::new(there, port);
        let client = soon("the far address is ready", async {
            loop {
                let client = pipe_open(Proto::Udp).dest(dest).route(&route).await.unwrap();
                client.send("hello").await.unwrap();
                if client.recv_within(std::time::Duration::from_millis(100)).await.is_ok() {
                    break client;
                }
            }
        })
        .await;
        let seen = source_seen(&client).await;
        assert_eq!(seen.ip(), route.nic()[0], "the destination had no zone: the route gave it");
    });
}

fn link_local_of(far: &Far, interface: &str) -> IpAddr {
    let output = Command::new("nsenter")
        .args(["-t", &far.holder, "-n", "ip", "-6", "-o", "address", "show", "dev", interface, "scope", "link"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let field = text.split_whitespace().find(|field| field.starts_with("fe80")).unwrap();
    ip(field.split('/').next().unwrap())
}

#[test]
fn an_interface_that_vanishes_is_an_error_that_says_so() {
    inside("an_interface_that_vanishes_is_an_error_that_says_so", async |far| {
        let dest = far.tells_the_source(Proto::Udp, "10.9.9.9:0");
        let route = Interface::by_name("eth1").unwrap().route(Family::V4).unwrap();
        let client = pipe_open(Proto::Udp).dest(dest).route(&route).await.unwrap();
        assert_eq!(source_seen(&client).await.ip(), ip("10.0.1.1"));
        far.run("ip link delete far1");
        let error = client.send("anybody?").await.unwrap_err().to_string();
        assert!(error.contains(&dest.to_string()), "{error}");
        let error = pipe_open(Proto::Udp).route(&route).await.unwrap_err().to_string();
        assert!(error.contains("`eth1`") && error.contains("vanished"), "{error}");
        let other = Interface::by_name("eth0").unwrap().route(Family::V4).unwrap();
        let other = pipe_open(Proto::Udp).dest(dest).route(&other).await.unwrap();
        assert_eq!(source_seen(&other).await.ip(), ip("10.0.0.1"), "the other card goes on");
    });
}

#[test]
fn a_name_whose_first_family_is_dead_connects_by_the_other() {
    inside("a_name_whose_first_family_is_dead_connects_by_the_other", async |far| {
        let dest = far.tells_the_source(Proto::Tcp, "10.9.9.9:0");
        // The far host answers nothing on this IPv6 address: no neighbour, so no refusal either.
        let hosts = [("two.test", "fd00:1::dead"), ("two.test", "10.9.9.9")];
        let names = crate::names::NameServer::with(&hosts).await;
        let client = pipe_open(Proto::Tcp).dest(("two.test", dest.port())).conf(names.conf());
        let client = soon("it connects", client.into_future()).await.unwrap();
        assert_eq!(client.peer_addr(), Some(&dest.into()));
    });
}

#[test]
fn local_listeners_stand_on_every_card() {
    inside("local_listeners_stand_on_every_card", async |_| {
        let daemon = natpipe::Daemon::new(NetConf::default(), |data, _, pipe: Pipe| async move {
            let _ = pipe.send(data).await;
        });
        let found = soon("link-local addresses are ready", async {
            loop {
                match daemon.listen_local(Proto::Tcp, 0).await {
                    Ok(found) => break found,
                    Err(_) => daemon.close().await,
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
        for own in ["10.0.0.1", "10.0.1.1", "fd00:0::1", "fd00:1::1"] {
            let listener = found.iter().find(|addr| addr.ip() == ip(own));
            assert!(listener.is_some(), "no listener on {own}: {found:?}");
        }
        assert!(found.iter().filter(|addr| Scope::of(addr.ip()) == Scope::LinkLocal).count() >= 2);
    });
}
