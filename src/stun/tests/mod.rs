//! The room's tests, one file per subject.

mod exchanges;
mod messages;
mod queries;
mod serving;
mod vectors;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Addresses, Binding, Class, Corner, Limits, Message, TransactionId, Writer};

/// Milliseconds.
fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The bytes of a message.
fn written(class: Class, id: TransactionId, fill: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = vec![0; 2048];
    let mut writer = Writer::new(&mut out, class, super::BINDING, id).unwrap();
    fill(&mut writer);
    let len = writer.finish();
    out.truncate(len);
    out
}

fn id_of(bytes: &[u8]) -> TransactionId {
    Message::parse(bytes).unwrap().id()
}

/// A server without limits, and its replies.
struct Server {
    binding: Binding,
    now: Instant,
}

impl Server {
    fn new(addresses: Addresses) -> Self {
        let now = Instant::now();
        Self { binding: Binding::new(addresses, Limits::none(), [1, 2], now), now }
    }

    fn with_one_address() -> Self {
        Self::new(Addresses::one(addr("192.0.2.1:3478")))
    }

    fn with_two_addresses() -> Self {
        Self::new(Addresses::two(addr("192.0.2.1:3478"), addr("192.0.2.2:3479")).unwrap())
    }

    /// The reply's bytes, whom it goes to and from which socket.
    fn asked(&mut self, local: Corner, from: &str, bytes: &[u8]) -> Option<(Vec<u8>, SocketAddr, Corner)> {
        let mut out = [0xEE; 1500];
        let reply = self.binding.handle(self.now, local, addr(from), bytes, &mut out)?;
        Some((out[..reply.len].to_vec(), reply.to, reply.from))
    }
}
