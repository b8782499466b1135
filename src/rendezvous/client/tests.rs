//! Two desks that hear from each other, in memory.

use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::wire::{FIRST_WINDOW, Frame, Reason};
use super::desk::{Desk, Ended};
use super::signal::SignalError;
use super::talks::TalkId;
use crate::key::Identity;

struct End {
    desk: Desk,
    identity: Identity,
}

impl End {
    fn new(seed: u8) -> Self {
        let identity = Identity::from_seed([seed; 32]);
        let mut desk = Desk::new(identity.clone(), Instant::now());
        desk.rise(1 << 20, None);
        Self { desk, identity }
    }

    fn key(&self) -> [u8; 32] {
        *self.identity.peer_id().as_bytes()
    }

    fn begin(&mut self, other: &Self) -> TalkId {
        let (id, frame) = self.desk.talks.begin(other.identity.peer_id()).unwrap();
        self.desk.out.push_back(frame);
        id
    }

    fn say(&mut self, id: TalkId, message: &[u8]) {
        let frame = self.desk.talks.seal(id, message).unwrap();
        self.desk.out.push_back(frame);
    }

    fn next(&mut self, id: TalkId) -> Option<Result<Bytes, SignalError>> {
        self.desk.talks.next(id, &Context::from_waker(Waker::noop()))
    }

    fn accept(&mut self) -> Option<TalkId> {
        let (id, _, told) = self.desk.talks.accept()?;
        self.desk.out.extend(told);
        Some(id)
    }
}

/// Carries all signals from one end to the other, as a server does.
fn carry(from: &mut End, to: &mut End, now: Instant) -> usize {
    let mut carried = 0;
    while let Some(frame) = from.desk.out.pop_front() {
        let Frame::Signal { peer, sealed } = frame else { continue };
        assert_eq!(peer, to.key());
        to.desk.handle(now, Frame::Signal { peer: from.key(), sealed }).unwrap();
        carried += 1;
    }
    carried
}

#[test]
fn two_conversations_of_the_same_two_peers_are_kept_apart() {
    let (mut ann, mut bob, now) = (End::new(1), End::new(2), Instant::now());
    let (first, second, back) = (ann.begin(&bob), ann.begin(&bob), bob.begin(&ann));
    ann.say(first, b"first");
    ann.say(second, b"second");
    bob.say(back, b"back");
    carry(&mut ann, &mut bob, now);
    carry(&mut bob, &mut ann, now);
    let (a, b) = (bob.accept().unwrap(), bob.accept().unwrap());
    assert_eq!((bob.next(a), bob.next(b)), (Some(Ok("first".into())), Some(Ok("second".into()))));
    let c = ann.accept().unwrap();
    assert_eq!(ann.next(c), Some(Ok("back".into())));
    assert_eq!((bob.accept(), ann.accept(), ann.next(first)), (None, None, None));
}

#[test]
fn one_peer_can_not_fill_the_backlog_and_all_together_wait_within_bounds() {
    let (mut bob, now) = (End::new(2), Instant::now());
    let mut waiting = 0;
    for seed in 3..60 {
        let mut ann = End::new(seed);
        for _ in 0..20 {
            ann.begin(&bob);
        }
        carry(&mut ann, &mut bob, now + Duration::from_secs(u64::from(seed)));
    }
    while bob.accept().is_some() {
        waiting += 1;
    }
    assert_eq!(waiting, 256, "of 57 peers, 8 each, 256 in all");
}

#[test]
fn strangers_are_heard_at_a_limited_rate() {
    let (mut bob, now) = (End::new(2), Instant::now());
    let mut heard = 0;
    for seed in 3..=255 {
        let mut ann = End::new(seed);
        ann.begin(&bob);
        carry(&mut ann, &mut bob, now);
        heard += usize::from(bob.accept().is_some());
    }
    assert_eq!(heard, 200);
}

#[test]
fn messages_that_nobody_reads_end_the_conversation_and_not_the_memory() {
    let (mut ann, mut bob, now) = (End::new(1), End::new(2), Instant::now());
    let id = ann.begin(&bob);
    for n in 0..1000_u32 {
        ann.say(id, &n.to_be_bytes());
    }
    carry(&mut ann, &mut bob, now);
    let heard = bob.accept().unwrap();
    for n in 0..256_u32 {
        assert_eq!(bob.next(heard), Some(Ok(Bytes::copy_from_slice(&n.to_be_bytes()))));
    }
    assert_eq!(bob.next(heard), Some(Err(SignalError::Overflow)));
}

#[test]
fn a_message_has_its_limit_and_one_of_that_length_arrives() {
    let (mut ann, mut bob, now) = (End::new(1), End::new(2), Instant::now());
    let id = ann.begin(&bob);
    let long = vec![7; super::Signal::MAX_MESSAGE];
    ann.say(id, &long);
    assert_eq!(ann.desk.talks.seal(id, &[&long[..], b"!"].concat()), Err(SignalError::TooLong(long.len() + 1)));
    carry(&mut ann, &mut bob, now);
    let heard = bob.accept().unwrap();
    assert_eq!(bob.next(heard), Some(Ok(long.into())));
}

#[test]
fn a_refusal_ends_the_conversations_with_that_peer_alone() {
    let (mut ann, bob, cid) = (End::new(1), End::new(2), End::new(3));
    let (to_bob, to_cid) = (ann.begin(&bob), ann.begin(&cid));
    ann.desk.handle(Instant::now(), Frame::Refused { peer: bob.key(), why: Reason::NotThere }).unwrap();
    assert_eq!((ann.next(to_bob), ann.next(to_cid)), (Some(Err(SignalError::NotThere)), None));
}

#[test]
fn a_stream_keeps_to_its_credit_and_to_its_turn() {
    let mut ann = End::new(1);
    let cx = Context::from_waker(Waker::noop());
    let (big, _) = ann.desk.streams.open([2; 32], [0; 12]);
    let (small, _) = ann.desk.streams.open([2; 32], [1; 12]);
    assert!(ann.desk.streams.poll_write(big, &cx, &[1; 200_000]).is_ready());
    assert!(ann.desk.streams.poll_write(small, &cx, &[2; 10]).is_ready());
    let sent = |end: &mut End| {
        let mut out = Vec::new();
        end.desk.transmit(&mut out, usize::MAX);
        let (mut bytes, mut sent) = (bytes::BytesMut::from(&out[..]), Vec::new());
        while let Some(frame) = Frame::read(&mut bytes).unwrap() {
            if let Frame::Data { channel, bytes } = frame {
                sent.push((channel, bytes.len()));
            }
        }
        sent
    };
    let first = sent(&mut ann);
    assert_eq!(first[1], (small, 10), "the second turn is the other stream's");
    let of_big = |sent: &[(u32, usize)]| sent.iter().filter(|(n, _)| *n == big).map(|(_, len)| len).sum::<usize>();
    assert_eq!(of_big(&first), FIRST_WINDOW as usize);
    assert_eq!(sent(&mut ann), []);
    ann.desk.handle(Instant::now(), Frame::Window { channel: big, more: 1000 }).unwrap();
    assert_eq!(sent(&mut ann), [(big, 1000)]);
}

#[test]
fn a_server_that_sends_more_than_the_window_is_left() {
    let mut ann = End::new(1);
    let (number, _) = ann.desk.streams.open([2; 32], [0; 12]);
    let data = || Frame::Data { channel: number, bytes: vec![0; 16_000].into() };
    let ended = (0..100).find_map(|_| ann.desk.handle(Instant::now(), data()).err());
    assert!(matches!(ended, Some(Ended::Violation(_))), "{ended:?}");
    for frame in [Frame::Hello { version: 1 }, Frame::Welcome { version: 1, keepalive: 1, window: 1 }] {
        assert!(ann.desk.handle(Instant::now(), frame).is_err());
    }
}

#[test]
fn pings_of_the_server_are_answered_within_bounds() {
    let mut ann = End::new(1);
    for n in 0..10_000 {
        ann.desk.handle(Instant::now(), Frame::Ping(n)).unwrap();
    }
    assert!(ann.desk.out.len() <= 128 && ann.desk.out[5] == Frame::Pong(5), "{}", ann.desk.out.len());
}
