//! Decides: how a simulated STUN server answers, or fails to.

use std::any::Any;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Machine, Message};
use crate::nat::probe::Change;
use crate::nat::{Packet, Proto, TcpFlags};

/// What is wrong with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It has one address only, and ignores CHANGE-REQUEST.
    OneAddress,
    /// It names a second address, but ignores CHANGE-REQUEST and answers from where it was asked.
    Ignores,
    /// It names a second address, but leaves requests with CHANGE-REQUEST unanswered.
    Refrains,
    /// It names a second address at which nobody answers.
    HalfDead,
    /// It tells this mapping to everyone.
    Lies(SocketAddr),
    /// Each answer comes twice.
    Twice,
    /// Each answer comes this much later.
    Late(Duration),
    /// It never answers.
    Silent,
}

/// A STUN server on {address 1, 2} x {port 1, 2} over UDP, and on all four over TCP without CHANGE-REQUEST.
#[derive(Debug)]
pub struct Responder {
    primary: SocketAddr,
    alternate: SocketAddr,
    fault: Fault,
    outbox: VecDeque<(Duration, Packet)>,
    /// Requests that arrived.
    pub requests: u64,
}

impl Responder {
    /// A server asked first at `primary`; `alternate` has the other address and port.
    pub fn new(primary: SocketAddr, alternate: SocketAddr, fault: Fault) -> Self {
        Self { primary, alternate, fault, outbox: VecDeque::new(), requests: 0 }
    }

    /// Its addresses, to be given to the network.
    pub fn addresses(&self) -> Vec<IpAddr> {
        vec![self.primary.ip(), self.alternate.ip()]
    }

    fn answer(&self, packet: &Packet, id: [u8; 12], change: Change) -> Option<Packet> {
        let asked = packet.dst;
        let known = [self.primary.ip(), self.alternate.ip()].contains(&asked.ip())
            && [self.primary.port(), self.alternate.port()].contains(&asked.port());
        let change = match self.fault {
            Fault::Silent => return None,
            Fault::Refrains if change != Change::None => return None,
            Fault::HalfDead if asked.ip() == self.alternate.ip() || change == Change::Both => return None,
            Fault::OneAddress if asked != self.primary => return None,
            Fault::Ignores | Fault::OneAddress => Change::None,
            _ if packet.proto == Proto::Tcp => Change::None,
            _ => change,
        };
        let other = SocketAddr::new(
            if asked.ip() == self.primary.ip() { self.alternate.ip() } else { self.primary.ip() },
            if asked.port() == self.primary.port() { self.alternate.port() } else { self.primary.port() },
        );
        let from = match change {
            Change::None => asked,
            Change::Port => SocketAddr::new(asked.ip(), other.port()),
            Change::Both => other,
        };
        let mapped = if let Fault::Lies(lie) = self.fault { lie } else { packet.src };
        let other = (self.fault != Fault::OneAddress).then_some(other);
        let payload = Message::Answer { id, mapped, other }.encode();
        known.then(|| match packet.proto {
            Proto::Udp => Packet::udp(from, packet.src, payload),
            Proto::Tcp => Packet::tcp(from, packet.src, TcpFlags::SYN | TcpFlags::ACK, payload),
        })
    }
}

impl Machine for Responder {
    fn handle_packet(&mut self, now: Duration, packet: Packet) {
        let Some(Message::Request { id, change }) = Message::decode(&packet.payload) else { return };
        self.requests += 1;
        let Some(answer) = self.answer(&packet, id, change) else { return };
        let at = if let Fault::Late(by) = self.fault { now + by } else { now };
        if self.fault == Fault::Twice {
            self.outbox.push_back((at, answer.clone()));
        }
        self.outbox.push_back((at, answer));
    }

    fn handle_timeout(&mut self, _now: Duration) {}

    fn poll_transmit(&mut self, now: Duration) -> Option<Packet> {
        let due = self.outbox.front().is_some_and(|(at, _)| *at <= now);
        if due { self.outbox.pop_front().map(|(_, packet)| packet) } else { None }
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.outbox.front().map(|(at, _)| *at)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
