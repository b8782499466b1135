//! Decides: what a client does with each frame, and what it has to send.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Instant;

use super::super::wire::{Frame, FrameError, RawPeer, Reason};
use super::streams::Streams;
use super::talks::{Carriage, Talks};
use crate::base::bell::Bell;
use crate::key::Identity;

/// Signals that wait to be sent before senders have to wait.
const ROOM: usize = 128;
/// Frames that wait to be sent before no conversation and no stream is begun, which wait for nobody.
const MOST: usize = 16 * 1024;
/// The relay window that a client grants, bytes, where the server allows as much.
const WINDOW: u32 = 1 << 20;

/// What a client holds, connected or not.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) talks: Talks,
    pub(super) streams: Streams,
    /// What is to be sent beside streams.
    pub(super) out: VecDeque<Frame>,
    /// Who waits for room in `out`.
    pub(super) room: Bell,
    pub(super) up: bool,
    /// Whether streams can be relayed at all.
    pub(super) relays: bool,
    /// No handle is left, or it was closed.
    pub(super) closing: bool,
    /// The last ping that was not answered.
    pub(super) pinged: Option<u64>,
    /// Our address in the connection.
    pub(super) local: Option<IpAddr>,
    /// This machine does not have that address any more.
    pub(super) moved: bool,
}

/// The server said something that ends the connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("{0}")]
    Goodbye(Reason),
    #[error("the server does not keep to the protocol: {0}")]
    Violation(&'static str),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl Desk {
    pub(super) fn new(identity: Identity, carriage: Carriage, now: Instant) -> Self {
        Self {
            talks: Talks::new(identity, carriage, now),
            relays: carriage == Carriage::Server,
            streams: Streams::default(),
            out: VecDeque::new(),
            room: Bell::default(),
            up: false,
            closing: false,
            pinged: None,
            local: None,
            moved: false,
        }
    }

    /// True when a signal has to wait before it is sent.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() >= ROOM
    }

    /// True when nothing new may begin: somebody begins more than is sent.
    pub(super) fn is_overfull(&self) -> bool {
        self.out.len() >= MOST
    }

    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty() || self.streams.has_output() || self.closing
    }

    /// The client is registered.
    pub(super) fn rise(&mut self, window: u32, local: Option<IpAddr>) {
        self.up = true;
        self.pinged = None;
        self.local = local;
        self.moved = false;
        self.streams.window = WINDOW.min(window);
    }

    /// The connection is gone, and what was on it. Peers are told when there is a new one.
    pub(super) fn fall(&mut self, now: Instant) {
        self.up = false;
        self.out.clear();
        self.streams.fall();
        self.out.extend(self.talks.fall(now));
        self.room.ring();
    }

    /// A frame came from the server.
    pub(super) fn handle(&mut self, now: Instant, frame: Frame) -> Result<(), Ended> {
        match frame {
            Frame::Signal { peer, sealed } => self.be_told(now, peer, &sealed),
            Frame::Refused { peer, why } => self.talks.refuse(peer, why),
            Frame::Data { channel, bytes } => self.streams.data(channel, bytes)?,
            Frame::Window { channel, more } => self.streams.grant(channel, more),
            Frame::Finish { channel } => self.streams.finish(channel),
            Frame::Close { channel, why } => self.streams.end(channel, why),
            Frame::Ping(number) => {
                // A server that asks for more answers than it takes gets none.
                if !self.is_full() {
                    self.out.push_back(Frame::Pong(number));
                }
            }
            Frame::Pong(number) => {
                if self.pinged == Some(number) {
                    self.pinged = None;
                }
            }
            Frame::Goodbye(why) => return Err(Ended::Goodbye(why)),
            Frame::Welcome { .. } | Frame::Hello { .. } | Frame::Open { .. } => {
                return Err(Ended::Violation("it is not its turn to say this"));
            }
        }
        Ok(())
    }

    /// A sealed message came.
    pub(super) fn be_told(&mut self, now: Instant, from: RawPeer, sealed: &[u8]) {
        let answer = self.talks.receive(now, from, sealed);
        // An acknowledgement that is left out is asked for again.
        if !self.is_full() {
            self.out.extend(answer);
            self.room.ring();
        }
    }

    /// Appends what is to be sent, up to about `budget` bytes.
    pub(super) fn transmit(&mut self, out: &mut Vec<u8>, budget: usize) {
        while out.len() < budget
            && let Some(frame) = self.out.pop_front()
        {
            frame.write(out);
        }
        if !self.is_full() {
            self.room.ring();
        }
        self.streams.transmit(out, budget);
    }
}
