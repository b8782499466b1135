//! Pipes, interfaces, and a STUN server, on this machine alone.

use std::net::UdpSocket;

use crate::{Running, example, said};

#[test]
fn echo_over_tcp_and_udp() {
    assert_eq!(said(&mut example("echo")), "TCP: hello\nUDP: hello\n");
}

#[test]
fn binding_to_an_interface() {
    let told = said(&mut example("interface"));
    assert!(told.contains("lo: [127.0.0.1]"), "{told}");
    assert!(told.lines().last().unwrap().starts_with("bound to 127.0.0.1:") && told.ends_with(" on lo\n"), "{told}");
}

#[test]
fn relaying_two_pipes() {
    assert_eq!(said(&mut example("relay")), "through the relay\n");
}

#[test]
fn a_rendezvous_and_two_peers() {
    let told = said(&mut example("rendezvous"));
    assert!(told.contains("says b\"hello Bob\"") && told.contains("and: what goes through the relay"), "{told}");
    assert!(told.ends_with("61 bytes were relayed\n"), "{told}");
}

#[test]
fn a_stun_server_answers_itself_and_strangers() {
    let mut server = Running::start(example("stun_server").arg("127.0.0.1:0"));
    let addr = server.line();
    assert!(server.line().starts_with("it sees us as 127.0.0.1:"));
    // A binding request, written by hand (RFC 8489, section 5).
    let asking = UdpSocket::bind("127.0.0.1:0").unwrap();
    let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], b"twelve bytes"].concat();
    asking.send_to(&request, &addr).unwrap();
    let mut answer = [0; 512];
    let len = asking.recv(&mut answer).unwrap();
    assert!(len > 20 && answer[..2] == [1, 1] && answer[8..20] == *b"twelve bytes", "{:?}", &answer[..len]);
}
