//! Hosts: what they reach, by which interface, and what they see when one goes away.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use natpipe::lab::{Host, Internet, Kind, Link};
use socket2::{Domain, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(1);

fn udp(host: &Host, at: impl Into<IpAddr>) -> UdpSocket {
    let socket = host.run(|| UdpSocket::bind((at.into(), 0))).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

fn bound_to_device(host: &Host, device: &str) -> UdpSocket {
    let make = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.bind_device(Some(device.as_bytes()))?;
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into())?;
        Ok::<UdpSocket, std::io::Error>(socket.into())
    };
    let socket = host.run(make).expect("a bound socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// The source that `server` sees when `client` sends to it.
fn seen(client: &UdpSocket, server: &UdpSocket) -> SocketAddr {
    client.send_to(b"hello", server.local_addr().unwrap()).expect("it is sent");
    server.recv_from(&mut [0; 16]).expect("it arrives").1
}

#[test]
fn hosts_on_the_internet_reach_each_other_in_both_families() {
    let internet = Internet::new().unwrap();
    let (a, b) = (internet.host("a").unwrap(), internet.host("b").unwrap());
    for (from, to) in [(a.v4(), b.v4()), (a.v6(), b.v6())] {
        let (client, server) = (udp(&a, from.unwrap()), udp(&b, to.unwrap()));
        assert_eq!(seen(&client, &server), client.local_addr().unwrap());
    }
}

#[test]
fn a_socket_bound_to_an_interface_leaves_by_it() {
    let internet = Internet::new().unwrap();
    let (host, server) = (internet.host("host").unwrap(), internet.host("server").unwrap());
    let second = host.attach(&internet).unwrap();
    let at_server = udp(&server, server.v4().unwrap());
    let first = host.v4().unwrap();
    assert_ne!(first, second.addresses[0]);
    assert_eq!(seen(&udp(&host, [0, 0, 0, 0]), &at_server).ip(), first, "without binding, the first is used");
    assert_eq!(seen(&bound_to_device(&host, "eth0"), &at_server).ip(), first);
    assert_eq!(seen(&bound_to_device(&host, &second.name), &at_server).ip(), second.addresses[0]);
}

#[test]
fn two_interfaces_behind_two_homes_have_two_external_addresses() {
    let internet = Internet::new().unwrap();
    let (one, two) = (internet.router("one", Kind::Home).unwrap(), internet.router("two", Kind::Home).unwrap());
    let (host, server) = (one.host("host").unwrap(), internet.host("server").unwrap());
    host.attach(&two).unwrap();
    let at_server = udp(&server, server.v4().unwrap());
    assert_eq!(seen(&bound_to_device(&host, "eth0"), &at_server).ip(), one.outside()[0]);
    assert_eq!(seen(&bound_to_device(&host, "eth1"), &at_server).ip(), two.outside()[0]);
}

#[test]
fn an_interface_can_be_taken_away_while_it_is_used() {
    let internet = Internet::new().unwrap();
    let (host, server) = (internet.host("host").unwrap(), internet.host("server").unwrap());
    let second = host.attach(&internet).unwrap();
    let (client, at_server) = (bound_to_device(&host, &second.name), udp(&server, server.v4().unwrap()));
    assert_eq!(seen(&client, &at_server).ip(), second.addresses[0]);
    host.detach(&second.name).unwrap();
    assert!(client.send_to(b"x", at_server.local_addr().unwrap()).is_err(), "its interface is gone");
    assert_eq!(seen(&bound_to_device(&host, "eth0"), &at_server).ip(), host.v4().unwrap(), "the other one works on");
    assert!(host.detach(&second.name).is_err(), "it is there no more");
}

#[test]
fn an_interface_that_was_down_works_again_when_it_is_up() {
    let internet = Internet::new().unwrap();
    let home = internet.router("home", Kind::DualStack).unwrap();
    let server = internet.host("server").unwrap();
    for host in [internet.host("open").unwrap(), home.host("home").unwrap()] {
        for (own, to) in [(host.v4(), server.v4()), (host.v6(), server.v6())] {
            let (client, at_server) = (udp(&host, own.unwrap()), udp(&server, to.unwrap()));
            seen(&client, &at_server);
            host.set_up("eth0", false).unwrap();
            assert!(client.send_to(b"x", at_server.local_addr().unwrap()).is_err());
            host.set_up("eth0", true).unwrap();
            seen(&client, &at_server);
        }
    }
}

#[test]
fn a_second_address_on_one_interface_is_reached_too() {
    let internet = Internet::new().unwrap();
    let (client, server) = (internet.host("client").unwrap(), internet.host("server").unwrap());
    let added = server.add_addresses("eth0").unwrap();
    assert_eq!(server.addresses().len(), 4);
    let at_client = udp(&client, client.v4().unwrap());
    seen(&at_client, &udp(&server, added[0]));
    seen(&udp(&client, client.v6().unwrap()), &udp(&server, added[1]));
}

#[test]
fn a_link_delays_both_ways() {
    let delay = Duration::from_millis(25);
    let internet = Internet::with_link(Link::steady(delay), 1).unwrap();
    let (a, b) = (internet.host("a").unwrap(), internet.host("b").unwrap());
    let listener = b.run(|| TcpListener::bind((b.v4().unwrap(), 0))).unwrap();
    let begun = Instant::now();
    let mut client = a.run(|| TcpStream::connect(listener.local_addr().unwrap())).unwrap();
    let took = begun.elapsed();
    assert!((2 * delay..2 * delay + Duration::from_millis(20)).contains(&took), "a handshake took {took:?}");
    let (mut accepted, _) = listener.accept().unwrap();
    client.write_all(b"ping").unwrap();
    accepted.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn nothing_is_left_of_a_lab_that_was_dropped() {
    let own_process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hosts::a_process_counts_what_labs_leave", "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&own_process.stdout);
    assert!(own_process.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "counts what its whole process has open, so it is run in one of its own by the test above"]
fn a_process_counts_what_labs_leave() {
    let count = |of: &str| std::fs::read_dir(format!("/proc/self/{of}")).unwrap().count();
    let now = || (count("fd"), count("task"));
    // The first runtime of a process opens what all share, and keeps it.
    drop(Internet::new().unwrap());
    std::thread::sleep(Duration::from_millis(50));
    let before = now();
    for _ in 0..3 {
        let internet = Internet::new().unwrap();
        let host = internet.router("home", Kind::Home).unwrap().host("host").unwrap();
        let during = now();
        assert!(during.0 > before.0 && during.1 > before.1);
        drop((internet, host));
    }
    let deadline = Instant::now() + PATIENCE;
    while now() != before {
        assert!(Instant::now() < deadline, "descriptors and threads: {before:?} became {:?}", now());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_interface_without_a_hardware_address_is_listed() {
    let internet = Internet::new().unwrap();
    let host = internet.host("tunnelled").unwrap();
    let interface = host.run(|| natpipe::Interface::by_name("eth0")).unwrap();
    assert_eq!(interface.addrs()[0].ip, host.v4().unwrap());
    assert!(interface.index() > 0 && interface.mtu().is_some());
}
