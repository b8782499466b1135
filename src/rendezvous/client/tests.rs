//! Two desks that hear from each other, in memory.

use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::wire::{FIRST_WINDOW, Frame, Reason};
use super::desk::{Desk, Ended};
use super::signal::SignalError;
use super::talks::{Carriage, TalkId};
use crate::key::Identity;

struct End {
    desk: Desk,
    identity: Identity,
}

impl End {
    fn new(seed: u8) -> Self {
        let identity = Identity::from_seed([seed; 32]);
        let mut desk = Desk::new(identity.clone(), Carriage::Server, Instant::now());
        desk.rise(1 << 20, None);
        Self { desk, identity }
    }

    fn key(&self) -> [u8; 32] {
        *self.identity.peer_id().as_bytes()
    }

    fn begin(&mut self, other: &Self) -> TalkId {
        let (id, frame) = self.desk.talks.begin(Instant::now(), other.identity.peer_id()).unwrap();
        self.desk.out.push_back(frame);
        id
    }

    fn say(&mut self, id: TalkId, message: &[u8]) {
        let frame = self.desk.talks.seal(Instant::now(), id, message).unwrap();
        self.desk.out.push_back(frame);
    }

    fn next(&mut self, id: TalkId) -> Option<Result<Bytes, SignalError>> {
        self.desk.talks.next(id, &Context::from_waker(Waker::noop()))
    }

    fn accept(&mut self) -> Option<TalkId> {
        let (id, _, told) = self.desk.talks.accept(Instant::now())?;
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
    assert_eq!(
        ann.desk.talks.seal(Instant::now(), id, &[&long[..], b"!"].concat()),
        Err(SignalError::TooLong(long.len() + 1))
    );
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

/// Two ends with brokers between them, which do what a random number says.
struct Between {
    ends: [End; 2],
    now: Instant,
    random: u64,
    /// What is under way: to whom, and when it arrives.
    under_way: Vec<(usize, Instant, bytes::Bytes)>,
    /// Everything that was ever sent, for those who play it again.
    recorded: Vec<(usize, bytes::Bytes)>,
}

impl Between {
    fn new(seed: u64) -> Self {
        let end = |seed| {
            let identity = Identity::from_seed([seed; 32]);
            let mut desk = Desk::new(identity.clone(), Carriage::Brokers { open: true }, Instant::now());
            desk.up = true;
            End { desk, identity }
        };
        Self { ends: [end(1), end(2)], now: Instant::now(), random: seed, under_way: vec![], recorded: vec![] }
    }

    fn random(&mut self, of: u64) -> u64 {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) % of
    }

    /// So many of ten copies are lost; others are doubled and come late.
    fn step(&mut self, lost: u64) {
        self.now += Duration::from_millis(20);
        for from in 0..2 {
            let again = self.ends[from].desk.talks.handle_timeout(self.now);
            self.ends[from].desk.out.extend(again);
            while let Some(frame) = self.ends[from].desk.out.pop_front() {
                let Frame::Signal { sealed, .. } = frame else { panic!() };
                self.recorded.push((1 - from, sealed.clone()));
                for _ in 0..=self.random(2) {
                    let late = Duration::from_millis(self.random(300));
                    if self.random(10) >= lost {
                        self.under_way.push((1 - from, self.now + late, sealed.clone()));
                    }
                }
            }
        }
        let (come, later): (Vec<_>, Vec<_>) = self.under_way.drain(..).partition(|(_, at, _)| *at <= self.now);
        self.under_way = later;
        for (to, _, sealed) in come {
            self.deliver(to, sealed);
        }
    }

    fn deliver(&mut self, to: usize, sealed: bytes::Bytes) {
        let from = self.ends[1 - to].key();
        self.ends[to].desk.handle(self.now, Frame::Signal { peer: from, sealed }).unwrap();
    }

    fn say(&mut self, at: usize, id: TalkId, message: &[u8]) {
        let frame = self.ends[at].desk.talks.seal(self.now, id, message).unwrap();
        self.ends[at].desk.out.push_back(frame);
    }

    fn begin(&mut self) -> TalkId {
        let peer = self.ends[1].identity.peer_id();
        let (id, frame) = self.ends[0].desk.talks.begin(self.now, peer).unwrap();
        self.ends[0].desk.out.push_back(frame);
        id
    }

    fn accept(&mut self, at: usize) -> Option<TalkId> {
        let (id, _, told) = self.ends[at].desk.talks.accept(self.now)?;
        self.ends[at].desk.out.extend(told);
        Some(id)
    }

    fn leave(&mut self, at: usize, id: TalkId) {
        let told = self.ends[at].desk.talks.end(self.now, id);
        self.ends[at].desk.out.extend(told);
    }
}

#[test]
fn over_brokers_everything_arrives_once_and_in_order_whatever_they_do() {
    for seed in 0..40 {
        let mut world = Between::new(seed);
        let lost = seed % 5;
        let at_ann = world.begin();
        let (mut at_bob, mut heard, mut back) = (None, Vec::new(), Vec::new());
        for n in 0..25_u8 {
            world.say(0, at_ann, &[n]);
        }
        let mut said_back = 0;
        for _ in 0..1500 {
            world.step(lost);
            if at_bob.is_none() {
                at_bob = world.accept(1);
            }
            let Some(bob) = at_bob else { continue };
            while let Some(Ok(message)) = world.ends[1].next(bob) {
                heard.push(message[0]);
            }
            if said_back < 10 {
                world.say(1, bob, &[100 + said_back]);
                said_back += 1;
            }
            while let Some(Ok(message)) = world.ends[0].next(at_ann) {
                back.push(message[0]);
            }
            if heard.len() == 25 && back.len() == 10 {
                break;
            }
        }
        assert_eq!(heard, (0..25).collect::<Vec<u8>>(), "seed {seed}");
        assert_eq!(back, (100..110).collect::<Vec<u8>>(), "seed {seed}");
        // The last word of one that leaves arrives as well, and then nothing is left.
        world.say(0, at_ann, b"last");
        world.leave(0, at_ann);
        let bob = at_bob.unwrap();
        let mut last = Vec::new();
        for _ in 0..1000 {
            world.step(lost);
            if let Some(next) = world.ends[1].next(bob) {
                last.push(next);
            }
            if last.len() == 2 {
                break;
            }
        }
        assert_eq!(last, [Ok(Bytes::from_static(b"last")), Err(SignalError::Ended)], "seed {seed}");
        world.leave(1, bob);
        (0..600).for_each(|_| world.step(lost));
        assert!(world.ends.iter().all(|end| !end.desk.talks.has_unsaid() && end.desk.talks.is_empty()), "seed {seed}");
        assert!(world.ends.iter().all(|end| end.desk.talks.poll_timeout().is_none()), "seed {seed}");
    }
}

#[test]
fn who_plays_an_old_conversation_again_is_answered_and_not_heard() {
    let mut world = Between::new(1);
    let at_ann = world.begin();
    world.say(0, at_ann, b"once");
    let mut at_bob = None;
    for _ in 0..50 {
        world.step(0);
        at_bob = at_bob.or_else(|| world.accept(1));
    }
    let bob = at_bob.unwrap();
    assert_eq!(world.ends[1].next(bob), Some(Ok(Bytes::from_static(b"once"))));
    world.leave(1, bob);
    world.leave(0, at_ann);
    (0..600).for_each(|_| world.step(0));
    // Bob has forgotten it. Somebody has not.
    let recorded: Vec<_> = world.recorded.clone();
    for _ in 0..3 {
        recorded.iter().filter(|(to, _)| *to == 1).for_each(|(to, sealed)| world.deliver(*to, sealed.clone()));
    }
    let again = world.accept(1).expect("it looks like a beginning");
    assert_eq!(world.accept(1), None, "one for all copies");
    (0..1200).for_each(|_| world.step(0));
    assert_eq!(world.ends[1].next(again), Some(Err(SignalError::NoAnswer)), "nothing of it was heard");
    assert!(world.accept(0).is_none(), "the answers to it mean nothing to Ann");
}

#[test]
fn a_broker_that_delivers_nothing_ends_the_conversation_in_time() {
    let mut world = Between::new(7);
    let at_ann = world.begin();
    let begun = world.now;
    while world.ends[0].next(at_ann).is_none() {
        world.step(10);
        assert!(world.now < begun + Duration::from_secs(30));
    }
    assert_eq!(world.ends[0].next(at_ann), Some(Err(SignalError::NoAnswer)));
    assert!(world.now >= begun + Duration::from_secs(19));
    assert!(world.recorded.len() < 20, "{} messages", world.recorded.len());
}

#[test]
fn one_that_only_calls_is_not_called() {
    let mut world = Between::new(3);
    let identity = world.ends[1].identity.clone();
    world.ends[1].desk = Desk::new(identity, Carriage::Brokers { open: false }, world.now);
    world.begin();
    (0..100).for_each(|_| world.step(0));
    assert!(world.accept(1).is_none() && world.ends[1].desk.talks.is_empty());
}
