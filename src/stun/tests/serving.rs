//! The server answers what RFC 8489, 5780 and 3489 want, and nothing that helps an attacker.

use super::{Server, addr, id_of, ms, written};
use crate::stun::{Addresses, Binding, Change, Class, Corner, Limits, Message, Proof, Request, TransactionId, kind};

const CLIENT: &str = "198.51.100.7:4000";
const BOTH: Change = Change { ip: true, port: true };

fn modern() -> TransactionId {
    TransactionId::modern([3; 12])
}

fn ask(request: Request) -> Vec<u8> {
    request.encode(modern(), &Proof::default()).unwrap()
}

#[test]
fn a_modern_client_gets_its_address_xored_and_the_servers_two() {
    let (bytes, to, from) = Server::with_two_addresses().asked(Corner::PRIMARY, CLIENT, &ask(Request::new())).unwrap();
    let reply = Message::parse(&bytes).unwrap();
    assert_eq!((to, from), (addr(CLIENT), Corner::PRIMARY));
    assert_eq!((reply.class(), reply.id()), (Class::Success, modern()));
    assert_eq!(reply.xor_address(kind::XOR_MAPPED_ADDRESS), Some(addr(CLIENT)));
    assert_eq!(reply.address(kind::MAPPED_ADDRESS), Some(addr(CLIENT)));
    assert_eq!(reply.address(kind::OTHER_ADDRESS), Some(addr("192.0.2.2:3479")));
    assert_eq!(reply.address(kind::RESPONSE_ORIGIN), Some(addr("192.0.2.1:3478")));
    assert_eq!(reply.fingerprint(), Some(true));
    assert_eq!(reply.get(kind::CHANGED_ADDRESS), None, "a modern client must refuse what is not its RFC's");
}

#[test]
fn a_classic_client_gets_the_addresses_that_it_reads() {
    let id = TransactionId::classic(*b"1234567890abcdef");
    let request = written(Class::Request, id, |_| ());
    let (bytes, ..) = Server::with_two_addresses().asked(Corner::PRIMARY, CLIENT, &request).unwrap();
    let reply = Message::parse(&bytes).unwrap();
    assert_eq!(reply.id(), id);
    let kinds: Vec<u16> = reply.attributes().map(|attribute| attribute.kind).collect();
    assert_eq!(kinds, [kind::MAPPED_ADDRESS, kind::CHANGED_ADDRESS, kind::SOURCE_ADDRESS]);
    assert_eq!(reply.address(kind::MAPPED_ADDRESS), Some(addr(CLIENT)));
    assert_eq!(reply.address(kind::CHANGED_ADDRESS), Some(addr("192.0.2.2:3479")));
    assert_eq!(reply.address(kind::SOURCE_ADDRESS), Some(addr("192.0.2.1:3478")));
}

#[test]
fn a_request_with_an_unknown_optional_attribute_is_answered() {
    for id in [modern(), TransactionId::classic(*b"1234567890abcdef")] {
        let request = written(Class::Request, id, |writer| {
            writer.attribute(0x8025, &[0; 4]).unwrap();
        });
        assert_eq!(request.len(), 28);
        let (bytes, ..) = Server::with_two_addresses().asked(Corner::PRIMARY, CLIENT, &request).unwrap();
        let reply = Message::parse(&bytes).unwrap();
        assert_eq!((reply.mapped(), reply.other_address()), (Some(addr(CLIENT)), Some(addr("192.0.2.2:3479"))));
    }
}

#[test]
fn an_answer_is_changed_from_each_corner_to_each_other() {
    let mut server = Server::with_two_addresses();
    for local in Corner::ALL {
        for change in [Change { ip: true, port: false }, Change { ip: false, port: true }, BOTH] {
            let (bytes, to, from) = server.asked(local, CLIENT, &ask(Request::new().change(change))).unwrap();
            let reply = Message::parse(&bytes).unwrap();
            assert_eq!(from.alternate_ip, local.alternate_ip ^ change.ip);
            assert_eq!(from.alternate_port, local.alternate_port ^ change.port);
            assert_eq!(to, addr(CLIENT));
            let origin = reply.origin().unwrap();
            assert_eq!(origin.ip() == addr("192.0.2.2:0").ip(), from.alternate_ip);
            assert_eq!(origin.port() == 3479, from.alternate_port);
            let other = reply.other_address().unwrap();
            assert_eq!(other.port() == 3479, !local.alternate_port);
        }
    }
}

#[test]
fn a_server_with_one_address_says_that_it_can_not_change() {
    let mut server = Server::with_one_address();
    let (bytes, ..) = server.asked(Corner::PRIMARY, CLIENT, &ask(Request::new())).unwrap();
    assert_eq!(Message::parse(&bytes).unwrap().other_address(), None);
    let (bytes, _, from) = server.asked(Corner::PRIMARY, CLIENT, &ask(Request::new().change(BOTH))).unwrap();
    let reply = Message::parse(&bytes).unwrap();
    assert_eq!(reply.error().unwrap().code, 420);
    assert_eq!(reply.unknown_attributes().collect::<Vec<_>>(), [kind::CHANGE_REQUEST]);
    assert_eq!(from, Corner::PRIMARY);
    let unchanged = written(Class::Request, modern(), |writer| {
        writer.change(Change::default()).unwrap();
    });
    let (bytes, ..) = server.asked(Corner::PRIMARY, CLIENT, &unchanged).unwrap();
    assert_eq!(Message::parse(&bytes).unwrap().class(), Class::Success);
}

#[test]
fn a_server_that_does_not_know_its_address_names_none() {
    let mut server = Server::new(Addresses::unknown());
    let (bytes, ..) = server.asked(Corner::PRIMARY, CLIENT, &ask(Request::new())).unwrap();
    let reply = Message::parse(&bytes).unwrap();
    assert_eq!((reply.mapped(), reply.origin()), (Some(addr(CLIENT)), None));
}

#[test]
fn two_addresses_that_share_ip_or_port_or_not_the_family_are_refused() {
    let primary = addr("192.0.2.1:3478");
    for alternate in ["192.0.2.1:3479", "192.0.2.2:3478", "[2001:db8::1]:3479"] {
        assert!(Addresses::two(primary, addr(alternate)).is_err());
    }
}

#[test]
fn response_port_moves_the_answer_to_another_port_of_the_same_host_alone() {
    let mut server = Server::with_one_address();
    let (bytes, to, _) = server.asked(Corner::PRIMARY, CLIENT, &ask(Request::new().response_port(9))).unwrap();
    assert_eq!(to, addr("198.51.100.7:9"));
    assert_eq!(Message::parse(&bytes).unwrap().mapped(), Some(addr(CLIENT)));
    let reflect = written(Class::Request, TransactionId::classic([7; 16]), |writer| {
        writer.address(kind::RESPONSE_ADDRESS, addr("203.0.113.1:53")).unwrap();
    });
    let (bytes, to, _) = server.asked(Corner::PRIMARY, CLIENT, &reflect).unwrap();
    assert_eq!((to, Message::parse(&bytes).unwrap().error().unwrap().code), (addr(CLIENT), 420));
}

#[test]
fn response_port_with_padding_or_zero_is_a_bad_request() {
    let mut server = Server::with_one_address();
    for request in [Request::new().response_port(9).padding(8), Request::new().response_port(0)] {
        let (bytes, to, _) = server.asked(Corner::PRIMARY, CLIENT, &ask(request)).unwrap();
        assert_eq!((to, Message::parse(&bytes).unwrap().error().unwrap().code), (addr(CLIENT), 400));
    }
}

#[test]
fn padding_is_returned_as_long_as_it_came() {
    let (bytes, ..) =
        Server::with_one_address().asked(Corner::PRIMARY, CLIENT, &ask(Request::new().padding(999))).unwrap();
    assert_eq!(Message::parse(&bytes).unwrap().get(kind::PADDING).map(<[u8]>::len), Some(999));
}

#[test]
fn unknown_required_attributes_are_refused_by_name() {
    let request = written(Class::Request, modern(), |writer| {
        writer.attribute(0x7001, &[]).unwrap().attribute(0x7002, &[]).unwrap();
    });
    let (bytes, ..) = Server::with_one_address().asked(Corner::PRIMARY, CLIENT, &request).unwrap();
    let reply = Message::parse(&bytes).unwrap();
    assert_eq!(reply.error().unwrap().code, 420);
    assert_eq!(reply.unknown_attributes().collect::<Vec<_>>(), [0x7001, 0x7002]);
}

#[test]
fn no_reply_is_longer_than_three_times_its_request() {
    let two_v6 = Addresses::two(addr("[2001:db8::1]:3478"), addr("[2001:db8::2]:3479")).unwrap();
    let classic = TransactionId::classic([9; 16]);
    for (mut server, client) in [(Server::with_two_addresses(), CLIENT), (Server::new(two_v6), "[2001:db8::7]:4000")] {
        for id in [modern(), classic] {
            for kinds in [&[][..], &[0x8025], &[0x7001], &[0x7001; 20], &[kind::CHANGE_REQUEST]] {
                let request = written(Class::Request, id, |writer| {
                    kinds.iter().for_each(|kind| _ = writer.attribute(*kind, &[]).unwrap());
                });
                let (bytes, ..) = server.asked(Corner::PRIMARY, client, &request).unwrap();
                assert!(bytes.len() <= 3 * request.len(), "{} to {}", bytes.len(), request.len());
                assert!(Message::parse(&bytes).is_ok());
            }
        }
        let (bytes, ..) = server.asked(Corner::PRIMARY, client, &ask(Request::new())).unwrap();
        let reply = Message::parse(&bytes).unwrap();
        assert!(reply.other_address().is_some() && reply.origin().is_some(), "the usual request has room for all");
    }
}

#[test]
fn an_ipv4_client_of_an_ipv6_socket_hears_of_an_ipv4_address() {
    let request = ask(Request::new());
    let (bytes, to, _) =
        Server::with_one_address().asked(Corner::PRIMARY, "[::ffff:198.51.100.7]:4000", &request).unwrap();
    assert_eq!(Message::parse(&bytes).unwrap().mapped(), Some(addr(CLIENT)));
    assert_eq!(to, addr("[::ffff:198.51.100.7]:4000"));
}

#[test]
fn what_is_no_binding_request_is_counted_and_not_answered() {
    let mut server = Server::with_one_address();
    let mut signed = ask(Request::new());
    let last = signed.len() - 1;
    signed[last] ^= 1;
    let answer = written(Class::Success, modern(), |_| ());
    for (from, bytes) in [
        (CLIENT, &signed[..]),
        (CLIENT, b"not stun"),
        (CLIENT, &answer),
        ("198.51.100.7:0", &ask(Request::new())),
        ("224.0.0.1:5353", &ask(Request::new())),
        ("255.255.255.255:1", &ask(Request::new())),
    ] {
        assert_eq!(server.asked(Corner::PRIMARY, from, bytes), None);
    }
    let counters = server.binding.counters();
    assert_eq!((counters.received, counters.malformed, counters.not_requests, counters.bogus), (6, 2, 1, 3));
    assert_eq!((counters.answered, counters.refused), (0, 0));
}

#[test]
fn a_source_over_its_limit_gets_silence_until_it_has_waited() {
    let mut server = Server::with_one_address();
    let limits = Limits::default().burst(2).per_second(1);
    server.binding = Binding::new(Addresses::one(addr("192.0.2.1:3478")), limits, [1, 2], server.now);
    let request = ask(Request::new());
    assert!(server.asked(Corner::PRIMARY, CLIENT, &request).is_some());
    assert!(server.asked(Corner::PRIMARY, CLIENT, &request).is_some());
    assert!(server.asked(Corner::PRIMARY, CLIENT, &request).is_none());
    assert!(server.asked(Corner::PRIMARY, "198.51.100.8:4000", &request).is_some());
    assert_eq!(server.binding.counters().limited, 1);
    server.now += ms(1000);
    assert!(server.asked(Corner::PRIMARY, CLIENT, &request).is_some());
}

#[test]
fn over_a_stream_nothing_is_changed() {
    let mut server = Server::with_two_addresses();
    let mut out = [0; 1500];
    for (request, code) in
        [(Request::new(), None), (Request::new().change(BOTH), Some(420)), (Request::new().response_port(9), Some(400))]
    {
        let bytes = ask(request.over_stream());
        let len = server.binding.handle_stream(server.now, Corner::PRIMARY, addr(CLIENT), &bytes, &mut out).unwrap();
        assert_eq!(id_of(&out[..len]), modern());
        assert_eq!(Message::parse(&out[..len]).unwrap().error().map(|error| error.code), code);
    }
}

#[test]
fn a_reply_has_as_many_addresses_as_its_request_has_room_for() {
    let two_v6 = Addresses::two(addr("[2001:db8::1]:3478"), addr("[2001:db8::2]:3479")).unwrap();
    let all = [kind::XOR_MAPPED_ADDRESS, kind::OTHER_ADDRESS, kind::RESPONSE_ORIGIN, kind::MAPPED_ADDRESS];
    let v6 = "[2001:db8::7]:4000";
    for (addresses, client, len, expected) in [
        (None, CLIENT, 20, &all[..3]),
        (None, CLIENT, 24, &all[..]),
        (Some(two_v6), v6, 20, &all[..1]),
        (Some(two_v6), v6, 24, &all[..2]),
        (Some(two_v6), v6, 32, &all[..3]),
        (Some(two_v6), v6, 40, &all[..]),
    ] {
        let mut server = addresses.map_or_else(Server::with_two_addresses, Server::new);
        let request = written(Class::Request, modern(), |writer| {
            (20..len).step_by(4).for_each(|_| _ = writer.attribute(0x8025, &[]).unwrap());
        });
        let (bytes, ..) = server.asked(Corner::PRIMARY, client, &request).unwrap();
        let kinds: Vec<u16> = Message::parse(&bytes).unwrap().attributes().map(|a| a.kind).collect();
        assert_eq!(kinds, expected, "{len} bytes from {client}");
    }
}
