//! Decides: the course of one connection: HELLO from both ends, then messages, and signs of life all
//! the while.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::envelope::{Envelope, Malformed, MessageId, VERSION};
use crate::smart::Identity;

/// When an end speaks though it has nothing to say, and when it takes the other for dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A heartbeat is sent after so long without sending anything.
    pub heartbeat: Duration,
    /// The peer is dead after so long without anything from it, and one that does not greet.
    pub patience: Duration,
}

impl Default for Timing {
    /// The protocol's: 5 s and 15 s.
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(5), patience: Duration::from_secs(15) }
    }
}

/// What a frame means to the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incoming {
    /// The peer has said who it is. Comes once, before everything else.
    Greeted(Identity),
    /// A message; with an id it is to be acknowledged.
    Message(Bytes, Option<MessageId>),
    /// A message of ours has arrived.
    Acknowledged(MessageId),
    /// The peer wants published messages that begin so, and no others but its other topics'.
    Subscribed(Bytes),
    /// The peer takes that back.
    Unsubscribed(Bytes),
    /// Nothing for anybody above: a heartbeat, or a frame to be skipped.
    Nothing,
}

/// Why a connection is closed from this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The first frame was something else.
    #[error("its first frame is no HELLO")]
    NoHello,
    /// It speaks another version.
    #[error("it speaks version {0} of the protocol; this end speaks {VERSION}")]
    Version(u8),
    /// A second HELLO.
    #[error("it greeted twice")]
    GreetedTwice,
    /// HELLO is malformed.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// It was silent too long.
    #[error("nothing came from it for {0:?}")]
    Silent(Duration),
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    timing: Timing,
    greeted: bool,
    /// False while this end reads nothing: then the peer's silence is our doing.
    reading: bool,
    last_in: Instant,
    last_out: Instant,
    malformed: u64,
}

impl Session {
    /// A connection that begins now; this end's HELLO is on its way.
    pub fn new(now: Instant, timing: Timing) -> Self {
        Self { timing, greeted: false, reading: true, last_in: now, last_out: now, malformed: 0 }
    }

    /// Takes a frame.
    ///
    /// # Errors
    /// [`Fault`]: the connection is to be closed.
    pub fn handle_frame(&mut self, now: Instant, frame: Bytes) -> Result<Incoming, Fault> {
        self.last_in = now;
        let envelope = match Envelope::decode(frame) {
            Err(malformed @ Malformed::Hello(_)) => return Err(malformed.into()),
            Err(_) if self.greeted => {
                self.malformed += 1;
                return Ok(Incoming::Nothing);
            }
            Err(_) => return Err(Fault::NoHello),
            Ok(envelope) => envelope,
        };
        if !self.greeted {
            return self.greet(&envelope);
        }
        Ok(match envelope {
            Envelope::Data(payload) => Incoming::Message(payload, None),
            Envelope::DataReq(id, payload) => Incoming::Message(payload, Some(id)),
            Envelope::Ack(id) => Incoming::Acknowledged(id),
            Envelope::Subscribe(topic) => Incoming::Subscribed(topic),
            Envelope::Unsubscribe(topic) => Incoming::Unsubscribed(topic),
            Envelope::Hello { .. } => return Err(Fault::GreetedTwice),
            Envelope::Heartbeat | Envelope::Skipped => Incoming::Nothing,
        })
    }

    fn greet(&mut self, envelope: &Envelope) -> Result<Incoming, Fault> {
        let Envelope::Hello { version, identity } = *envelope else { return Err(Fault::NoHello) };
        if version != VERSION {
            return Err(Fault::Version(version));
        }
        self.greeted = true;
        Ok(Incoming::Greeted(identity))
    }

    /// Bytes have come, perhaps a part of a long frame. They count once the peer has greeted.
    pub fn handle_read(&mut self, now: Instant) {
        if self.greeted {
            self.last_in = now;
        }
    }

    /// Bytes have left.
    pub fn handle_sent(&mut self, now: Instant) {
        self.last_out = now;
    }

    /// This end stops reading because it has no room, or reads on.
    pub fn handle_reading(&mut self, now: Instant, reading: bool) {
        if reading && !self.reading {
            self.last_in = now;
        }
        self.reading = reading;
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next, if nothing happens.
    pub fn poll_timeout(&self) -> Instant {
        let beat = self.last_out + self.timing.heartbeat;
        let dead = self.last_in + self.timing.patience;
        match (self.greeted, self.reading) {
            (false, _) => dead,
            (true, true) => beat.min(dead),
            (true, false) => beat,
        }
    }

    /// Whether a heartbeat is due.
    ///
    /// # Errors
    /// [`Fault::Silent`]: the peer is dead.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<bool, Fault> {
        if self.reading && now >= self.last_in + self.timing.patience {
            return Err(Fault::Silent(self.timing.patience));
        }
        let due = self.greeted && now >= self.last_out + self.timing.heartbeat;
        if due {
            self.last_out = now;
        }
        Ok(due)
    }

    /// Frames that were skipped because they are malformed.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(envelope: &Envelope) -> Bytes {
        let mut bytes = Vec::new();
        envelope.encode(&mut bytes);
        Bytes::from(bytes).slice(4..)
    }

    fn hello(version: u8) -> Bytes {
        frame(&Envelope::Hello { version, identity: Identity::from([5; 16]) })
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn greeted(at: Instant) -> Session {
        let mut session = Session::new(at, Timing::default());
        session.handle_frame(at, hello(1)).unwrap();
        session
    }

    #[test]
    fn nothing_comes_before_hello() {
        let now = Instant::now();
        let first = |bytes| Session::new(now, Timing::default()).handle_frame(now, bytes);
        assert_eq!(first(hello(1)), Ok(Incoming::Greeted(Identity::from([5; 16]))));
        assert_eq!(first(hello(2)), Err(Fault::Version(2)));
        assert_eq!(first(frame(&Envelope::Heartbeat)), Err(Fault::NoHello));
        assert_eq!(first(frame(&Envelope::Data(Bytes::new()))), Err(Fault::NoHello));
        assert_eq!(first(Bytes::new()), Err(Fault::NoHello));
        assert_eq!(first(Bytes::from_static(b"\x01\x01")), Err(Fault::Malformed(Malformed::Hello(1))));
        assert_eq!(greeted(now).handle_frame(now, hello(1)), Err(Fault::GreetedTwice));
    }

    #[test]
    fn malformed_and_unknown_frames_are_skipped_after_it() {
        let now = Instant::now();
        let mut session = greeted(now);
        for skipped in [&b""[..], b"\x99", b"\x04short", b"\x05"] {
            assert_eq!(session.handle_frame(now, Bytes::from_static(skipped)), Ok(Incoming::Nothing));
        }
        assert_eq!(session.malformed(), 2);
    }

    #[test]
    fn two_silent_ends_keep_each_other_alive_by_heartbeats() {
        let mut now = Instant::now();
        let begun = now;
        let (mut a, mut b) = (greeted(now), greeted(now));
        let mut beats = 0;
        while now < begun + seconds(60) {
            now = a.poll_timeout().min(b.poll_timeout());
            let (from_a, from_b) = (a.handle_timeout(now).unwrap(), b.handle_timeout(now).unwrap());
            if from_a {
                b.handle_frame(now, frame(&Envelope::Heartbeat)).unwrap();
            }
            if from_b {
                a.handle_frame(now, frame(&Envelope::Heartbeat)).unwrap();
            }
            beats += u32::from(from_a) + u32::from(from_b);
        }
        assert_eq!(beats, 24, "one each 5 s from each end");
    }

    #[test]
    fn a_peer_is_dead_after_15_seconds_of_silence_and_not_before() {
        let begun = Instant::now();
        let mut session = greeted(begun);
        for n in 1..15 {
            assert!(session.handle_timeout(begun + seconds(n)).is_ok());
        }
        assert_eq!(session.handle_timeout(begun + seconds(15)), Err(Fault::Silent(seconds(15))));
        let mut silent = Session::new(begun, Timing::default());
        assert_eq!(silent.poll_timeout(), begun + seconds(15));
        assert_eq!(silent.handle_timeout(begun + seconds(15)), Err(Fault::Silent(seconds(15))));
    }

    #[test]
    fn silence_is_not_held_against_a_peer_that_is_not_read() {
        let begun = Instant::now();
        let mut session = greeted(begun);
        session.handle_reading(begun + seconds(10), false);
        assert_eq!(session.handle_timeout(begun + seconds(40)), Ok(true));
        session.handle_reading(begun + seconds(41), true);
        assert!(session.handle_timeout(begun + seconds(50)).is_ok());
        assert!(session.handle_timeout(begun + seconds(56)).is_err());
    }

    #[test]
    fn who_sends_needs_no_heartbeat() {
        let begun = Instant::now();
        let mut session = greeted(begun);
        session.handle_sent(begun + seconds(4));
        assert_eq!(session.handle_timeout(begun + seconds(6)), Ok(false));
        assert_eq!(session.poll_timeout(), begun + seconds(9));
    }
}
