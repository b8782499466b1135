//! What must hold for any bytes: shared by the fuzz targets and the test that replays their corpus.
#![allow(dead_code, reason = "each target uses its own")]

use std::net::SocketAddr;
use std::time::Instant;

use natpipe::stun::{
    Addresses, Attempt, Binding, Class, Corner, Credentials, HEADER_LEN, Key, Limits, MAX_MESSAGE_LEN, Message,
    Request, Writer, kind, next_message,
};

/// A parser that says yes can be asked for everything, and what it read can be written again. Whether it said yes.
pub fn message(bytes: &[u8]) -> bool {
    let cut = next_message(bytes, MAX_MESSAGE_LEN);
    client(bytes);
    let Ok(message) = Message::parse(bytes) else { return false };
    assert_eq!(cut, Ok(Some(bytes.len())));
    read_all(&message);
    let mut out = vec![0; bytes.len()];
    let mut writer = Writer::new(&mut out, message.class(), message.method(), message.id()).unwrap();
    for attribute in message.attributes() {
        writer.attribute(attribute.kind, attribute.value).unwrap();
    }
    let len = writer.finish();
    let again = Message::parse(&out[..len]).unwrap();
    assert_eq!((again.class(), again.method(), again.id()), (message.class(), message.method(), message.id()));
    let values = |message: &Message<'_>| message.attributes().map(|a| (a.kind, a.value.to_vec())).collect::<Vec<_>>();
    assert_eq!(values(&again), values(&message));
    true
}

fn read_all(message: &Message<'_>) {
    let _ = (message.mapped(), message.other_address(), message.origin(), message.change(), message.response_port());
    let _ = (message.error(), message.unknown_attributes().count(), message.not_understood().count());
    let _ = (message.fingerprint(), message.text(kind::REALM), message.xor_address(0x0016));
    let _ = message.integrity(&Key::short_term("secret").unwrap());
}

/// A client that hears the bytes as its answer, again and again, comes to an end or goes on waiting.
fn client(bytes: &[u8]) {
    let now = Instant::now();
    let server = "192.0.2.1:3478".parse().unwrap();
    let account = Request::new().credentials(Credentials::long_term("ann", "secret"));
    for request in [Request::new(), account] {
        let mut attempt = Attempt::new(&request, server, [7; 32], now);
        attempt.handle_timeout(now);
        for _ in 0..10 {
            let Some(asked) = attempt.poll_transmit() else { break };
            let mut answer = bytes.to_vec();
            if let Some(id) = answer.get_mut(4..HEADER_LEN) {
                id.copy_from_slice(&asked.bytes[4..HEADER_LEN]);
            }
            attempt.handle_packet(now, asked.to, &answer);
        }
        assert_eq!(attempt.poll_transmit(), None, "it asks on for ever");
        assert_eq!(attempt.poll_outcome().is_some(), attempt.is_over());
    }
}

/// Whatever a server replies goes back to its source, is no longer than three times the request, and is STUN. The first
/// byte says which server is asked, on which socket. Whether it replied.
pub fn server(input: &[u8]) -> bool {
    let Some((how, bytes)) = input.split_first() else { return false };
    let now = Instant::now();
    let (addresses, from) = setting(*how);
    let local = if addresses.has_alternate() { Corner::ALL[usize::from(how >> 2 & 3)] } else { Corner::PRIMARY };
    let mut server = Binding::new(addresses, Limits::default(), [1, 2], now);
    let mut out = [0; 2048];
    if let Some(len) = server.handle_stream(now, local, from, bytes, &mut out) {
        check_reply(bytes, &out[..len], from);
    }
    let Some(reply) = server.handle(now, local, from, bytes, &mut out) else { return false };
    check_reply(bytes, &out[..reply.len], from);
    assert_eq!(reply.to.ip(), from.ip());
    assert!(addresses.at(reply.from).is_some());
    true
}

fn setting(how: u8) -> (Addresses, SocketAddr) {
    let (primary, alternate, from) = match how & 1 {
        0 => ("192.0.2.1:3478", "192.0.2.2:3479", "198.51.100.7:4000"),
        _ => ("[2001:db8::1]:3478", "[2001:db8::2]:3479", "[2001:db8::7]:4000"),
    };
    let (primary, alternate) = (primary.parse().unwrap(), alternate.parse().unwrap());
    let addresses = match how & 2 {
        0 => Addresses::one(primary),
        _ => Addresses::two(primary, alternate).unwrap(),
    };
    (addresses, from.parse().unwrap())
}

fn check_reply(request: &[u8], reply: &[u8], from: SocketAddr) {
    assert!(reply.len() <= 3 * request.len());
    let (request, reply) = (Message::parse(request).unwrap(), Message::parse(reply).unwrap());
    assert_eq!((reply.id(), reply.method()), (request.id(), request.method()));
    assert_ne!(reply.fingerprint(), Some(false));
    match reply.class() {
        Class::Success => assert_eq!(reply.mapped(), Some(from)),
        class => assert_eq!((class, reply.error().is_some()), (Class::Error, true)),
    }
}
