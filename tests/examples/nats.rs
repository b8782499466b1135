//! What gets through NATs, through routers of the lab.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use natpipe::lab::{Host, Internet, Kind, Link};
use serde_json::Value;

use crate::{Running, example};

/// Two homes, 5 ms from the middle each.
fn two_homes() -> (Internet, Host, Host) {
    let internet = Internet::with_link(Link::steady(Duration::from_millis(5)), 1).unwrap();
    let (a, b) = (internet.behind(Kind::Home).unwrap(), internet.behind(Kind::Home).unwrap());
    (internet, a, b)
}

fn at(host: &Host, command: &mut Command) -> Running {
    Running::begun(command, |command| host.start(command))
}

/// The example of a STUN server on a host of its own, with one or two addresses.
fn stun(internet: &Internet, name: &str, addresses: usize) -> (Host, String, Running) {
    let host = internet.host(name).unwrap();
    let mut all = vec![host.v4().unwrap()];
    if addresses == 2 {
        let interface = host.interfaces()[0].name.clone();
        all.extend(host.add_addresses(&interface).unwrap().into_iter().filter(|more| more.is_ipv4()));
    }
    let mut command = example("stun_server");
    command.args(all.iter().zip([3478, 3479]).map(|(ip, port)| SocketAddr::new(*ip, port).to_string()));
    let mut server = at(&host, &mut command);
    let addr = server.line();
    server.line();
    (host, addr, server)
}

/// `natpipe serve` on a host of its own, and its URL.
fn meeting(internet: &Internet) -> (Host, String, Running) {
    let host = internet.host("meeting").unwrap();
    let listen = SocketAddr::new(host.v4().unwrap(), 3478).to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_natpipe"));
    let mut server = at(&host, command.args(["serve", "--listen", &listen, "--json"]));
    let event: Value = serde_json::from_str(&server.line()).unwrap();
    (host, event["url"].as_str().unwrap().to_owned(), server)
}

#[test]
fn finding_my_nat() {
    let (internet, a, _) = two_homes();
    let (_host, addr, _server) = stun(&internet, "stun", 2);
    let told = at(&a, example("find_nat").arg(addr)).end();
    let outside = a.router().unwrap().outside()[0];
    for found in [
        &*format!("is seen as {outside}"),
        "mapping: endpoint-independent",
        "filtering: address-and-port-dependent",
        "ports: equal",
        "to a peer behind a home router: UDP punch",
    ] {
        assert!(told.contains(found), "{found} in {told}");
    }
}

struct Joined(Child);

impl Drop for Joined {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn punching_between_two_processes() {
    let (internet, a, b) = two_homes();
    let (_first, stun, _server) = stun(&internet, "stun", 1);
    let middle = internet.host("middle").unwrap();
    let doors = [7001, 7002].map(|port| SocketAddr::new(middle.v4().unwrap(), port).to_string());
    let mut link = Command::new(env!("CARGO_BIN_EXE_natpipe"));
    let specs = doors.each_ref().map(|door| format!("tcp-listen:{door}"));
    let joined = middle.start(link.arg("link").arg("--json").args(specs).stderr(Stdio::piped()));
    let mut joined = Joined(joined.unwrap());
    let mut events = BufReader::new(joined.0.stderr.take().unwrap()).lines();
    // It listens at the one, and at the other when somebody has come to the first.
    events.next().unwrap().unwrap();
    let begins = |host, door, text| {
        let mut end = at(host, example("punch").args([door, &stun]));
        end.say(text);
        drop(end.child.stdin.take());
        end
    };
    let ann = begins(&a, &doors[0], "from Ann");
    events.next().unwrap().unwrap();
    let ends = [ann, begins(&b, &doors[1], "from Bob")];
    let told = ends.map(Running::end);
    assert!(told[0].starts_with("UDP from") && told[0].ends_with("heard: from Bob\n"), "{told:?}");
    assert!(told[1].starts_with("UDP from") && told[1].ends_with("heard: from Ann\n"), "{told:?}");
    let outside = b.router().unwrap().outside()[0].to_string();
    assert!(told[0].contains(&format!(" to {outside}:")), "straight to the other's router: {}", told[0]);
}

#[test]
fn a_chat_between_peers() {
    let (internet, a, b) = two_homes();
    let (_host, url, _server) = meeting(&internet);
    let mut ann = at(&a, example("chat").args(["--via", &url]));
    let ticket = ann.line();
    let mut bob = at(&b, example("chat").arg(ticket));
    assert!(bob.line().starts_with("with "));
    assert!(ann.line().starts_with("with "));
    assert_eq!(ann.line(), "> (comes in)");
    ann.say("hello Bob\n");
    assert_eq!(bob.line(), "> hello Bob");
    bob.say("hello Ann\n");
    assert_eq!(ann.line(), "> hello Ann");
    drop(bob.child.stdin.take());
    assert_eq!(ann.end(), "");
    assert_eq!(bob.end(), "");
}

#[test]
fn a_port_is_forwarded_through_nats() {
    let (internet, a, b) = two_homes();
    let (_host, url, _server) = meeting(&internet);
    let service = a.run(|| TcpListener::bind("127.0.0.1:0")).unwrap();
    let addr = service.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in service.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = String::new();
            stream.read_to_string(&mut asked).unwrap();
            stream.write_all(asked.to_uppercase().as_bytes()).unwrap();
        }
    });
    let mut exposing = at(&a, example("forward").args(["--expose", &addr, "--via", &url]));
    let ticket = exposing.line();
    let mut bringing = at(&b, example("forward").args(["--at", "127.0.0.1:0", &ticket]));
    let local = bringing.line();
    for text in ["one", "and another"] {
        let mut stream = b.run(|| TcpStream::connect(&local)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, text.to_uppercase());
    }
}
