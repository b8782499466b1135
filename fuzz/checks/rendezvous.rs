//! What must hold for any bytes that peers send to a rendezvous server: shared by the fuzz target and the test that replays
//! its corpus.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use natpipe::Identity;
use natpipe::rendezvous::{Conn, Frame, Limits, MAX_DATA, Next, RawPeer, Reason, Registry};

/// Frames that are read are written again as the same bytes, and a registry whose peers send them, in turn, stays
/// within its limits, sends only frames, and holds nothing when all have left. How many frames were read.
pub fn frames(input: &[u8]) -> usize {
    let mut hall = Hall::new();
    let mut received = BytesMut::from(input);
    let mut read = 0;
    loop {
        let before = received.clone();
        let Ok(Some(frame)) = Frame::read(&mut received) else { break };
        let bytes = &before[..before.len() - received.len()];
        let mut again = Vec::new();
        frame.write(&mut again);
        // A reason of a later version is read as some reason, a greeting of one is cut.
        let lossy = matches!(
            frame,
            Frame::Hello { .. }
                | Frame::Welcome { .. }
                | Frame::Refused { why: Reason::Other, .. }
                | Frame::Close { why: Reason::Other, .. }
                | Frame::Goodbye(Reason::Other)
        );
        assert!(again == bytes || lossy, "{frame:?}");
        hall.say(read % 2, frame);
        read += 1;
        if read % 8 == 7 {
            hall.listen();
        }
    }
    hall.leave();
    read
}

/// The keys of the two peers that the registry knows, for those who make a corpus.
pub fn keys() -> [RawPeer; 2] {
    [1, 2].map(|seed| *Identity::from_seed([seed; 32]).peer_id().as_bytes())
}

const BUFFER: usize = 1 << 20;

struct Hall {
    registry: Registry,
    now: Instant,
    guests: [Conn; 2],
}

fn ip() -> IpAddr {
    [192, 0, 2, 1].into()
}

impl Hall {
    fn new() -> Self {
        let (mut registry, now) = (Registry::new(Limits::default().buffer(BUFFER).connects(0)), Instant::now());
        let guests = [1, 2].map(|seed| {
            assert!(registry.handle_arrival(now, ip()));
            registry.handle_handshake(ip(), true);
            registry.handle_registration(now, Identity::from_seed([seed; 32]).peer_id(), ip())
        });
        Self { registry, now, guests }
    }

    fn say(&mut self, at: usize, frame: Frame) {
        if self.registry.handle(self.now, self.guests[at], frame).is_err() {
            self.registry.handle_violation(self.guests[at], Reason::Violation);
            self.registry.handle_gone(self.guests[at]);
            self.registry.handle_left(ip());
            assert!(self.registry.handle_arrival(self.now, ip()));
            self.registry.handle_handshake(ip(), true);
            let peer = Identity::from_seed([at as u8 + 1; 32]).peer_id();
            self.guests[at] = self.registry.handle_registration(self.now, peer, ip());
        }
        assert!(self.registry.counters().buffered as usize <= BUFFER);
    }

    fn listen(&mut self) {
        self.now += Duration::from_secs(5);
        self.registry.handle_timeout(self.now);
        while self.registry.poll_wake().is_some() {}
        for guest in self.guests {
            let mut out = Vec::new();
            let next = self.registry.poll_transmit(self.now, guest, &mut out, 64 * 1024);
            assert!(out.len() < 64 * 1024 + 3 * MAX_DATA && next != Next::At(self.now), "{}", out.len());
            let mut bytes = BytesMut::from(&out[..]);
            while Frame::read(&mut bytes).unwrap().is_some() {}
            assert!(bytes.is_empty());
        }
    }

    fn leave(mut self) {
        self.listen();
        for guest in self.guests {
            self.registry.handle_gone(guest);
            self.registry.handle_left(ip());
        }
        let counters = self.registry.counters();
        assert_eq!((counters.peers, counters.pairs, counters.buffered), (0, 0, 0));
    }
}
