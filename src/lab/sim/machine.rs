//! Decides: what a simulated host is asked to do, and the simplest host.

use std::any::Any;
use std::collections::VecDeque;
use std::time::Duration;

use crate::nat::Packet;

/// A host's program, moved by the network: input by `handle_*`, output by `poll_*` after each input.
pub trait Machine: Any {
    /// A packet arrived.
    fn handle_packet(&mut self, now: Duration, packet: Packet);

    /// The time of [`poll_timeout`](Self::poll_timeout) has come.
    fn handle_timeout(&mut self, now: Duration);

    /// The next packet to send now; asked until `None`.
    fn poll_transmit(&mut self, now: Duration) -> Option<Packet>;

    /// When to call [`handle_timeout`](Self::handle_timeout).
    fn poll_timeout(&self) -> Option<Duration>;

    /// The same value, for the test that wants its own type back.
    fn as_any(&self) -> &dyn Any;

    /// As [`as_any`](Self::as_any), to change it.
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

/// Sends what it is given and keeps what it gets.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Packets to send at the next turn.
    pub outbox: VecDeque<Packet>,
    /// Packets that arrived, with their time.
    pub inbox: Vec<(Duration, Packet)>,
}

impl Machine for Recorder {
    fn handle_packet(&mut self, now: Duration, packet: Packet) {
        self.inbox.push((now, packet));
    }

    fn handle_timeout(&mut self, _now: Duration) {}

    fn poll_transmit(&mut self, _now: Duration) -> Option<Packet> {
        self.outbox.pop_front()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
