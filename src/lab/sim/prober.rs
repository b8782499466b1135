//! Decides: how a simulated host runs a probe: its sockets are ports, its requests simulated packets.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Machine, Message};
use crate::nat::probe::{Answer, Effect, Probe, Setup, SocketId, Transmit};
use crate::nat::{Packet, Proto, TcpFlags};

/// Ports for sockets that want any: above those that a probe chooses itself.
const ANY_PORT: u16 = 40_000;

/// A host that tests its NAT. Over TCP a request travels in the SYN and its answer in the SYN-ACK, which is
/// all that a NAT sees of a short connection.
#[derive(Debug)]
pub struct Prober {
    probe: Probe,
    proto: Proto,
    local: IpAddr,
    ports: BTreeMap<u16, SocketId>,
    outbox: VecDeque<Packet>,
    done_at: Option<Duration>,
}

impl Prober {
    /// A host at the setup's local address, which starts at time zero.
    pub fn new(setup: Setup) -> Self {
        let (proto, local) = (setup.proto, setup.local);
        let probe = Probe::new(setup);
        let mut prober = Self { probe, proto, local, ports: BTreeMap::new(), outbox: VecDeque::new(), done_at: None };
        prober.drain(Duration::ZERO);
        prober
    }

    /// The probe.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }

    /// When the report was done.
    pub fn done_at(&self) -> Option<Duration> {
        self.done_at
    }

    fn drain(&mut self, now: Duration) {
        while let Some(effect) = self.probe.poll_effect() {
            match effect {
                Effect::Open { socket, port } => self.open(now, socket, port),
                Effect::Send(transmit) => self.send(transmit),
            }
        }
        if self.probe.is_done() {
            self.done_at.get_or_insert(now);
        }
    }

    fn open(&mut self, now: Duration, socket: SocketId, port: u16) {
        let taken = port == 0 || self.ports.contains_key(&port);
        let port = if taken { (ANY_PORT..).find(|p| !self.ports.contains_key(p)).unwrap_or(ANY_PORT) } else { port };
        self.ports.insert(port, socket);
        self.probe.handle_opened(now, socket, SocketAddr::new(self.local, port));
    }

    fn send(&mut self, transmit: Transmit) {
        let Some((port, _)) = self.ports.iter().find(|(_, socket)| **socket == transmit.socket) else { return };
        let src = SocketAddr::new(self.local, *port);
        let payload = Message::Request { id: transmit.id, change: transmit.change }.encode();
        self.outbox.push_back(match self.proto {
            Proto::Udp => Packet::udp(src, transmit.to, payload),
            Proto::Tcp => Packet::tcp(src, transmit.to, TcpFlags::SYN, payload),
        });
    }
}

impl Machine for Prober {
    fn handle_packet(&mut self, now: Duration, packet: Packet) {
        let Some(socket) = self.ports.get(&packet.dst.port()).copied() else { return };
        match Message::decode(&packet.payload) {
            Some(Message::Answer { id, mapped, other }) => {
                self.probe.handle_answer(now, socket, packet.src, Answer { id, mapped, other });
            }
            Some(Message::Request { id, .. }) => self.probe.handle_request(now, socket, packet.src, id),
            None => {}
        }
        self.drain(now);
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.probe.handle_timeout(now);
        self.drain(now);
    }

    fn poll_transmit(&mut self, _now: Duration) -> Option<Packet> {
        self.outbox.pop_front()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.probe.poll_timeout()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
