//! Dialogues with the registry: this frame at this time, these frames out.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::super::limits::Limits;
use super::super::wire::{FIRST_WINDOW, Frame, MAX_DATA, RawPeer, Reason};
use super::registry::{Conn, Next, Registry};
use crate::key::Identity;

const TOKEN: [u8; 12] = [4; 12];

struct Hall {
    registry: Registry,
    now: Instant,
}

#[derive(Clone, Copy)]
struct Guest {
    conn: Conn,
    key: RawPeer,
}

fn ip() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

impl Hall {
    fn new(limits: Limits) -> Self {
        Self { registry: Registry::new(limits), now: Instant::now() }
    }

    fn guest(&mut self, seed: u8) -> Guest {
        let peer = Identity::from_seed([seed; 32]).peer_id();
        assert!(self.registry.handle_arrival(self.now, ip()));
        self.registry.handle_handshake(ip(), true);
        let conn = self.registry.handle_registration(self.now, peer, ip());
        let guest = Guest { conn, key: *peer.as_bytes() };
        assert!(matches!(self.said(guest)[..], [Frame::Welcome { .. }]));
        guest
    }

    fn say(&mut self, guest: Guest, frame: Frame) {
        self.registry.handle(self.now, guest.conn, frame).unwrap();
    }

    /// Everything that is sent to a guest now.
    fn said(&mut self, guest: Guest) -> Vec<Frame> {
        self.said_up_to(guest, usize::MAX).0
    }

    fn said_up_to(&mut self, guest: Guest, budget: usize) -> (Vec<Frame>, Next) {
        let mut out = Vec::new();
        let next = self.registry.poll_transmit(self.now, guest.conn, &mut out, budget);
        let mut bytes = BytesMut::from(&out[..]);
        let mut frames = Vec::new();
        while let Some(frame) = Frame::read(&mut bytes).unwrap() {
            frames.push(frame);
        }
        (frames, next)
    }

    fn open(&mut self, guest: Guest, channel: u32, to: Guest) {
        self.say(guest, Frame::Open { channel, peer: to.key, token: TOKEN, window: 1 << 20 });
    }

    /// Two guests with a stream that both have asked for.
    fn pair(&mut self) -> (Guest, Guest) {
        let (ann, bob) = (self.guest(1), self.guest(2));
        self.open(ann, 1, bob);
        self.open(bob, 7, ann);
        (ann, bob)
    }
}

fn data(channel: u32, len: usize) -> Frame {
    Frame::Data { channel, bytes: vec![5; len].into() }
}

fn sealed(n: u8) -> Bytes {
    vec![n; 100].into()
}

#[test]
fn a_signal_reaches_its_peer_with_the_name_of_who_sent_it() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob) = (hall.guest(1), hall.guest(2));
    hall.say(ann, Frame::Signal { peer: bob.key, sealed: sealed(9) });
    assert_eq!(hall.said(bob), [Frame::Signal { peer: ann.key, sealed: sealed(9) }]);
    assert_eq!(hall.said(ann), []);
}

#[test]
fn a_signal_to_nobody_is_refused() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob) = (hall.guest(1), hall.guest(2));
    hall.registry.handle_gone(bob.conn);
    hall.say(ann, Frame::Signal { peer: bob.key, sealed: sealed(9) });
    assert_eq!(hall.said(ann), [Frame::Refused { peer: bob.key, why: Reason::NotThere }]);
}

#[test]
fn a_peer_that_does_not_read_holds_a_bounded_number_of_signals() {
    let mut hall = Hall::new(Limits::default().signals(0));
    let (ann, bob) = (hall.guest(1), hall.guest(2));
    for n in 0..1000 {
        hall.say(ann, Frame::Signal { peer: bob.key, sealed: sealed(n as u8) });
    }
    let refused = hall.said(ann);
    assert!(refused.iter().all(|frame| *frame == Frame::Refused { peer: bob.key, why: Reason::Busy }));
    assert_eq!(hall.said(bob).len(), 256);
    assert_eq!(hall.registry.counters().signals_refused, 1000 - 256);
}

#[test]
fn signals_beyond_the_rate_are_refused_until_time_has_passed() {
    let mut hall = Hall::new(Limits::default().signals(10));
    let (ann, bob) = (hall.guest(1), hall.guest(2));
    for _ in 0..60 {
        hall.say(ann, Frame::Signal { peer: bob.key, sealed: sealed(0) });
    }
    assert_eq!((hall.said(bob).len(), hall.said(ann).len()), (50, 10));
    hall.now += Duration::from_secs(1);
    for _ in 0..60 {
        hall.say(ann, Frame::Signal { peer: bob.key, sealed: sealed(0) });
    }
    assert_eq!(hall.said(bob).len(), 10);
}

#[test]
fn a_newer_registration_replaces_the_older() {
    let mut hall = Hall::new(Limits::default());
    let (old, bob) = (hall.guest(1), hall.guest(2));
    let new = hall.guest(1);
    assert_eq!(hall.said_up_to(old, 1000), (vec![Frame::Goodbye(Reason::Replaced)], Next::End));
    hall.registry.handle_gone(old.conn);
    hall.say(bob, Frame::Signal { peer: new.key, sealed: sealed(1) });
    assert_eq!(hall.said(new).len(), 1);
    assert_eq!(hall.registry.counters().peers, 2);
}

#[test]
fn beyond_the_limit_a_peer_is_told_to_come_later() {
    let mut hall = Hall::new(Limits::default().peers(1));
    hall.guest(1);
    let peer = Identity::from_seed([2; 32]).peer_id();
    let conn = hall.registry.handle_registration(hall.now, peer, ip());
    let guest = Guest { conn, key: *peer.as_bytes() };
    assert_eq!(hall.said_up_to(guest, 1000), (vec![Frame::Goodbye(Reason::Busy)], Next::End));
}

#[test]
fn what_is_sent_before_the_other_end_comes_is_kept_in_order() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob) = (hall.guest(1), hall.guest(2));
    hall.open(ann, 1, bob);
    hall.say(ann, Frame::Data { channel: 1, bytes: "first".into() });
    hall.say(ann, Frame::Data { channel: 1, bytes: "second".into() });
    hall.say(ann, Frame::Finish { channel: 1 });
    assert_eq!(hall.said(bob), []);
    hall.open(bob, 7, ann);
    let expected = [
        Frame::Window { channel: 7, more: (1 << 20) - FIRST_WINDOW },
        Frame::Data { channel: 7, bytes: "firstsecond".into() },
        Frame::Finish { channel: 7 },
    ];
    assert_eq!(granted(hall.said(bob)), expected);
}

/// The windows of a channel added up, which come in parts.
fn granted(frames: Vec<Frame>) -> Vec<Frame> {
    let mut merged: Vec<Frame> = Vec::new();
    for frame in frames {
        match (merged.last_mut(), &frame) {
            (Some(Frame::Window { channel: a, more }), Frame::Window { channel: b, more: and }) if a == b => {
                *more += and
            }
            _ => merged.push(frame),
        }
    }
    merged
}

#[test]
fn streams_are_joined_only_when_both_ask_for_the_same() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob, eve) = (hall.guest(1), hall.guest(2), hall.guest(3));
    hall.open(ann, 1, bob);
    hall.open(eve, 1, ann);
    hall.open(eve, 2, bob);
    hall.say(bob, Frame::Open { channel: 1, peer: ann.key, token: [9; 12], window: FIRST_WINDOW });
    hall.say(ann, data(1, 10));
    assert_eq!((hall.said(bob), hall.said(eve)), (vec![], vec![]));
    assert_eq!(hall.registry.counters().pairs_joined, 0);
}

#[test]
fn who_waits_too_long_for_the_other_end_is_told() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob) = (hall.guest(1), hall.guest(2));
    hall.open(ann, 1, bob);
    hall.say(ann, data(1, 1000));
    hall.now += Duration::from_secs(29);
    hall.registry.handle_timeout(hall.now);
    assert_eq!(hall.said(ann), []);
    hall.now += Duration::from_secs(2);
    hall.registry.handle_timeout(hall.now);
    assert_eq!(hall.said(ann), [Frame::Close { channel: 1, why: Reason::NotThere }]);
    assert_eq!(hall.registry.counters().buffered, 0);
}

#[test]
fn a_sender_that_exceeds_its_credit_loses_its_stream_alone() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob) = (hall.guest(1), hall.guest(2));
    hall.open(ann, 1, bob);
    for _ in 0..4 {
        hall.say(ann, data(1, MAX_DATA));
    }
    hall.say(ann, data(1, 33));
    assert_eq!(hall.said(ann), [Frame::Close { channel: 1, why: Reason::Violation }]);
    hall.say(ann, data(1, 1));
    hall.say(ann, Frame::Signal { peer: bob.key, sealed: sealed(1) });
    assert_eq!(hall.said(bob).len(), 1);
    assert_eq!(hall.registry.counters().buffered, 0);
}

#[test]
fn a_receiver_can_not_grant_more_than_its_window() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob) = hall.pair();
    hall.say(bob, Frame::Window { channel: 7, more: u32::MAX });
    assert!(hall.said(bob).contains(&Frame::Close { channel: 7, why: Reason::Violation }));
    assert!(hall.said(ann).contains(&Frame::Close { channel: 1, why: Reason::Gone }));
    assert_eq!(hall.registry.counters().pairs, 0);
}

#[test]
fn streams_to_one_peer_have_their_turns() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob, cid) = (hall.guest(1), hall.guest(2), hall.guest(3));
    for (guest, channel) in [(ann, 10), (cid, 20)] {
        hall.open(bob, channel, guest);
        hall.open(guest, 1, bob);
    }
    hall.said(bob);
    for _ in 0..4 {
        hall.say(ann, data(1, MAX_DATA));
    }
    hall.say(cid, data(1, 100));
    hall.say(ann, Frame::Signal { peer: bob.key, sealed: sealed(1) });
    let order: Vec<u32> = hall
        .said(bob)
        .iter()
        .map(|frame| match frame {
            Frame::Signal { .. } => 0,
            Frame::Data { channel, .. } => *channel,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, [0, 10, 10, 20, 10, 10], "the signal first, and the small stream not last");
}

#[test]
fn an_address_that_has_used_up_its_quota_is_told_so_at_both_ends() {
    let mut hall = Hall::new(Limits::default().quota(20_000));
    let (ann, bob) = hall.pair();
    hall.said(ann);
    hall.said(bob);
    hall.say(ann, data(1, 16_000));
    hall.say(ann, data(1, 16_000));
    assert_eq!(hall.said(ann), [Frame::Close { channel: 1, why: Reason::Quota }]);
    assert!(matches!(hall.said(bob)[..], [Frame::Data { .. }, Frame::Close { channel: 7, why: Reason::Quota }]));
    assert_eq!(hall.registry.counters().pairs_refused, 1);
}

#[test]
fn a_rate_holds_back_grants_and_nothing_else() {
    let rate = 100_000;
    let mut hall = Hall::new(Limits::default().rate(rate));
    let (ann, bob) = hall.pair();
    hall.said(bob);
    let mut sent = u64::from(FIRST_WINDOW);
    let mut credit = u64::from(FIRST_WINDOW);
    for _ in 0..1000 {
        while credit > 0 {
            let len = credit.min(MAX_DATA as u64);
            hall.say(ann, data(1, len as usize));
            credit -= len;
        }
        let got: usize = hall
            .said(bob)
            .iter()
            .filter_map(|f| if let Frame::Data { bytes, .. } = f { Some(bytes.len()) } else { None })
            .sum();
        if got > 0 {
            hall.say(bob, Frame::Window { channel: 7, more: got as u32 });
        }
        hall.now += Duration::from_millis(100);
        for frame in hall.said(ann) {
            let Frame::Window { channel: 1, more } = frame else { panic!("{frame:?}") };
            (credit, sent) = (credit + u64::from(more), sent + u64::from(more));
        }
    }
    let expected = 100 * rate;
    assert!(sent > expected * 9 / 10 && sent < expected * 11 / 10, "{sent} in 100 s");
}

#[test]
fn a_peer_that_leaves_takes_its_streams_with_it() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob) = hall.pair();
    hall.said(ann);
    hall.said(bob);
    hall.say(ann, data(1, 1000));
    hall.registry.handle_gone(ann.conn);
    assert!(matches!(hall.said(bob)[..], [Frame::Data { .. }, Frame::Close { channel: 7, why: Reason::Gone }]));
    let counters = hall.registry.counters();
    assert_eq!((counters.pairs, counters.buffered, counters.peers), (0, 0, 1));
    assert!(hall.registry.peers[&bob.conn].channels.is_empty());
}

#[test]
fn a_closed_stream_says_so_after_its_last_byte() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob) = hall.pair();
    hall.said(ann);
    hall.said(bob);
    hall.say(ann, data(1, 3));
    hall.say(ann, Frame::Finish { channel: 1 });
    hall.say(ann, Frame::Close { channel: 1, why: Reason::Done });
    let done = Frame::Close { channel: 7, why: Reason::Done };
    assert_eq!(hall.said(bob), [data(7, 3), Frame::Finish { channel: 7 }, done]);
}

#[test]
fn what_waits_for_a_slow_receiver_is_bounded() {
    let mut hall = Hall::new(Limits::default().buffer(16 * 100_000));
    let (ann, bob) = hall.pair();
    hall.said(ann);
    let mut refused = None;
    for n in 0..20 {
        hall.say(ann, data(1, 10_000));
        if let [Frame::Close { why, .. }] = hall.said(ann)[..] {
            refused = Some((n, why));
            break;
        }
    }
    assert_eq!(refused, Some((10, Reason::Busy)));
    let kept = hall.said(bob).iter().filter(|frame| matches!(frame, Frame::Data { .. })).count();
    assert_eq!((kept, hall.registry.counters().buffered), (10, 0));
}

#[test]
fn short_data_that_waits_costs_hardly_more_than_its_bytes() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob) = hall.pair();
    hall.said(bob);
    (0..20_000_u32).for_each(|n| hall.say(ann, Frame::Data { channel: 1, bytes: vec![n as u8].into() }));
    assert_eq!(hall.registry.peers[&bob.conn].channels[&7].items.len(), 3);
    let came: Vec<u8> = hall
        .said(bob)
        .iter()
        .flat_map(
            |frame| if let Frame::Data { channel: 7, bytes } = frame { bytes.to_vec() } else { panic!("{frame:?}") },
        )
        .collect();
    assert_eq!(came, (0..20_000_u32).map(|n| n as u8).collect::<Vec<_>>());
    assert_eq!(hall.registry.counters().buffered, 0);
}

#[test]
fn streams_that_are_opened_and_closed_again_and_again_leave_nothing_behind() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob) = (hall.guest(1), hall.guest(2));
    for _ in 0..1000 {
        hall.open(ann, 1, bob);
        hall.say(ann, Frame::Close { channel: 1, why: Reason::Done });
        // Nobody is there with this key: it is refused, and closed before that has been said.
        hall.say(ann, Frame::Open { channel: 2, peer: [0; 32], token: TOKEN, window: FIRST_WINDOW });
        hall.say(ann, Frame::Close { channel: 2, why: Reason::Done });
    }
    assert_eq!((hall.registry.waiting.remembered(), hall.registry.peers[&ann.conn].turns()), (0, 0));
}

#[test]
fn a_stream_that_is_asked_for_again_waits_its_full_time() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob) = (hall.guest(1), hall.guest(2));
    hall.open(ann, 1, bob);
    hall.say(ann, Frame::Close { channel: 1, why: Reason::Done });
    hall.now += Duration::from_secs(29);
    hall.open(ann, 1, bob);
    hall.now += Duration::from_secs(29);
    hall.registry.handle_timeout(hall.now);
    assert_eq!(hall.said(ann), []);
    hall.open(bob, 7, ann);
    assert_eq!(hall.registry.counters().pairs_joined, 1);
}

#[test]
fn streams_beyond_the_limits_are_refused() {
    let mut hall = Hall::new(Limits::default().pairs_per_peer(2));
    let (ann, bob) = (hall.guest(1), hall.guest(2));
    for channel in 0..3 {
        let token = [channel as u8; 12];
        hall.say(ann, Frame::Open { channel, peer: bob.key, token, window: FIRST_WINDOW });
    }
    assert_eq!(hall.said(ann), [Frame::Close { channel: 2, why: Reason::Busy }]);
    let mut none = Hall::new(Limits::default().pairs(0));
    let (ann, bob) = (none.guest(1), none.guest(2));
    none.open(ann, 1, bob);
    assert_eq!(none.said(ann), [Frame::Close { channel: 1, why: Reason::Busy }]);
}

#[test]
fn a_flood_of_opens_ends_the_connection_that_sends_it() {
    let mut hall = Hall::new(Limits::default());
    let (ann, bob) = (hall.guest(1), hall.guest(2));
    let mut open = |channel| {
        let frame = Frame::Open { channel, peer: bob.key, token: [0; 12], window: FIRST_WINDOW };
        hall.registry.handle(hall.now, ann.conn, frame)
    };
    assert!((0..10_000).any(|channel| open(channel).is_err()));
}

#[test]
fn who_says_what_only_a_server_says_is_dismissed() {
    let mut hall = Hall::new(Limits::default());
    let ann = hall.guest(1);
    let welcome = Frame::Welcome { version: 1, keepalive: 1, window: 1 };
    assert!(hall.registry.handle(hall.now, ann.conn, welcome).is_err());
    hall.registry.handle_violation(ann.conn, Reason::Violation);
    assert_eq!(hall.said_up_to(ann, 1000), (vec![Frame::Goodbye(Reason::Violation)], Next::End));
}

#[test]
fn pings_are_answered_and_a_flood_of_them_costs_one_answer() {
    let mut hall = Hall::new(Limits::default());
    let ann = hall.guest(1);
    (0..1000).for_each(|n| hall.say(ann, Frame::Ping(n)));
    assert_eq!(hall.said(ann), [Frame::Pong(999)]);
}

#[test]
fn any_order_of_frames_leaves_the_books_balanced() {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |limit: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) % limit
    };
    let mut hall = Hall::new(Limits::default().buffer(4 << 20).pairs_per_peer(4));
    let mut guests: Vec<Guest> = (1..5).map(|seed| hall.guest(seed)).collect();
    for _ in 0..100_000 {
        let at = below(4) as usize;
        let (from, to) = (guests[at], guests[below(4) as usize]);
        let channel = below(6) as u32;
        let frame = match below(12) {
            0..3 => {
                let token = [below(3) as u8; 12];
                Frame::Open { channel, peer: to.key, token, window: FIRST_WINDOW + below(99) as u32 }
            }
            3..6 => data(channel, 1 + below(MAX_DATA as u64) as usize),
            6 => Frame::Window { channel, more: below(20_000) as u32 },
            7 => Frame::Finish { channel },
            8 => Frame::Close { channel, why: Reason::Done },
            9 => Frame::Signal { peer: to.key, sealed: sealed(1) },
            _ => {
                hall.said_up_to(from, below(100_000) as usize);
                hall.now += Duration::from_millis(below(200));
                hall.registry.handle_timeout(hall.now);
                continue;
            }
        };
        if hall.registry.handle(hall.now, from.conn, frame).is_err() || below(500) == 0 {
            hall.registry.handle_violation(from.conn, Reason::Violation);
            hall.registry.handle_gone(from.conn);
            hall.registry.handle_left(ip());
            hall.now += Duration::from_secs(1);
            guests[at] = hall.guest(at as u8 + 1);
        }
    }
    assert!(hall.registry.counters().pairs_joined > 100);
    for guest in guests {
        hall.registry.handle_gone(guest.conn);
    }
    let counters = hall.registry.counters();
    assert_eq!((counters.buffered, counters.pairs, counters.peers), (0, 0, 0));
}
