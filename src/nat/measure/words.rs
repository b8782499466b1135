//! Decides: a test's requests as STUN messages, and what came as what a test wants to hear.

use std::net::SocketAddr;
use std::time::Duration;

use super::Asking;
use crate::nat::probe::{Answer, Change, SocketId, Transmit};
use crate::stun::{self, BINDING, Class, Message, Proof, Request, TransactionId};

/// The message of a request; none if it would not fit, which it always does.
pub(super) fn encode(transmit: &Transmit) -> Option<Vec<u8>> {
    let (ip, port) = match transmit.change {
        Change::None => (false, false),
        Change::Port => (false, true),
        Change::Both => (true, true),
    };
    let request = Request::new().change(stun::Change { ip, port });
    let request = match transmit.response_port {
        Some(port) => request.response_port(port),
        None => request,
    };
    request.encode(TransactionId::modern(transmit.id), &Proof::default()).ok()
}

/// Tells the test what came to one of its sockets; what is no STUN, or in old words, is nothing of ours.
pub(super) fn hear(test: &mut impl Asking, now: Duration, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    let Some(id) = modern_id(&message) else { return };
    if message.method() != BINDING || message.fingerprint() == Some(false) {
        return;
    }
    match message.class() {
        Class::Success => {
            if let Some(mapped) = message.mapped() {
                test.handle_answer(now, socket, from, Answer { id, mapped, other: message.other_address() });
            }
        }
        Class::Error => test.handle_failed(now, id),
        Class::Request => test.handle_request(now, socket, from, id),
        Class::Indication => {}
    }
}

fn modern_id(message: &Message<'_>) -> Option<[u8; 12]> {
    let id = message.id();
    let bytes = id.as_bytes()[4..].try_into().ok()?;
    (!id.is_classic()).then_some(bytes)
}
