use std::time::Duration;

use super::*;
use crate::smart::protocol::{Envelope, Frames};

const NOBODY: Option<Identity> = None;

fn rules() -> Rules {
    Rules::from(&Options::default())
}

fn desk(rules: Rules) -> Desk<&'static str> {
    Desk::new(rules, [7; 8])
}

fn name(n: u8) -> Identity {
    Identity::from([n; 16])
}

fn joined(n: u8) -> Joined {
    Joined { identity: name(n), comes_back: false }
}

fn send(desk: &mut Desk<&'static str>, text: &str) -> Result<Taken, Refused> {
    desk.send(Instant::now(), &mut Payload::from(text), NOBODY)
}

/// What a connection would write next, as text; ids are shown as `!`.
fn written(desk: &mut Desk<&'static str>, key: PeerKey) -> Vec<String> {
    let (mut load, mut all) = (Load::default(), Vec::new());
    while desk.take(Instant::now(), key, &mut load) {
        while !load.is_written() {
            let mut parts = [std::io::IoSlice::new(&[]); 3];
            let count = load.parts(&mut parts);
            // Written in halves, as a full socket takes it.
            let part: Vec<u8> = parts[..count].iter().flat_map(|part| part.to_vec()).collect();
            let half = part.len().div_ceil(2);
            all.extend_from_slice(&part[..half]);
            load.handle_written(half);
        }
    }
    shown(all)
}

fn shown(bytes: Vec<u8>) -> Vec<String> {
    let (mut frames, mut found) = (Frames::new(1 << 24), Vec::new());
    frames.push(bytes.into());
    while let Some(frame) = frames.next().unwrap() {
        let text = |payload: Bytes| String::from_utf8_lossy(&payload).into_owned();
        found.push(match Envelope::decode(frame).unwrap() {
            Envelope::Data(payload) => text(payload),
            Envelope::DataReq(_, payload) => format!("{}!", text(payload)),
            other => format!("{other:?}"),
        });
    }
    found
}

fn id_of_first(desk: &mut Desk<&'static str>, key: PeerKey) -> MessageId {
    let (mut load, mut frames) = (Load::default(), Frames::new(1 << 20));
    assert!(desk.take(Instant::now(), key, &mut load));
    let mut parts = [std::io::IoSlice::new(&[]); 8];
    let count = load.parts(&mut parts);
    frames.push(parts[..count].iter().flat_map(|part| part.to_vec()).collect::<Vec<_>>().into());
    match Envelope::decode(frames.next().unwrap().unwrap()).unwrap() {
        Envelope::DataReq(id, _) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn round_robin_goes_from_one_peer_to_the_next() {
    let mut desk = desk(rules());
    let keys = [1, 2, 3].map(|n| desk.join(Instant::now(), joined(n), "").unwrap());
    for n in 0..7 {
        send(&mut desk, &n.to_string()).unwrap();
    }
    assert_eq!(keys.map(|key| written(&mut desk, key).concat()), ["036", "14", "25"]);
    // When one leaves, the turn goes on where it was.
    desk.leave(Instant::now(), keys[0], Load::default());
    for n in 7..9 {
        send(&mut desk, &n.to_string()).unwrap();
    }
    assert_eq!([keys[1], keys[2]].map(|key| written(&mut desk, key).concat()), ["7", "8"]);
}

#[test]
fn what_is_sent_while_nobody_is_there_is_kept_in_order_for_the_first_who_comes() {
    for mode in [SendMode::RoundRobin, SendMode::Publish] {
        let mut desk = desk(Rules { mode, ..rules() });
        for n in 0..5 {
            send(&mut desk, &n.to_string()).unwrap();
        }
        let key = desk.join(Instant::now(), joined(1), "").unwrap();
        assert_eq!(written(&mut desk, key).concat(), "01234", "{mode:?}");
    }
}

#[test]
fn a_published_message_is_encoded_once_and_goes_to_all_who_want_it() {
    let mut desk = desk(Rules { mode: SendMode::Publish, ..rules() });
    let keys = [1, 2, 3].map(|n| desk.join(Instant::now(), joined(n), "").unwrap());
    desk.handle_topic(keys[1], Bytes::from_static(b"news."), true);
    desk.handle_topic(keys[2], Bytes::from_static(b"sport."), true);
    send(&mut desk, "news.1").unwrap();
    send(&mut desk, "sport.1").unwrap();
    let got = keys.map(|key| written(&mut desk, key));
    assert_eq!(got, [vec!["news.1", "sport.1"], vec!["news.1"], vec!["sport.1"]]);
    desk.handle_topic(keys[1], Bytes::from_static(b"news."), false);
    send(&mut desk, "sport.2").unwrap();
    assert_eq!(written(&mut desk, keys[1]), ["sport.2"]);
}

#[test]
fn by_identity_a_message_waits_for_its_peer_and_only_for_one_that_can_come() {
    let mut desk = desk(Rules { mode: SendMode::ByIdentity, ..rules() });
    let now = Instant::now();
    assert_eq!(send(&mut desk, "to whom?"), Err(Refused::NoDestination));
    let to = |desk: &mut Desk<_>, n: u8, text: &str| desk.send(now, &mut Payload::from(text), Some(name(n)));
    to(&mut desk, 2, "early").unwrap();
    let one = desk.join(now, joined(1), "").unwrap();
    assert!(written(&mut desk, one).is_empty());
    assert_eq!(to(&mut desk, 3, "nobody"), Err(Refused::NoSuchPeer));
    let two = desk.join(now, Joined { comes_back: true, ..joined(2) }, "").unwrap();
    assert_eq!(written(&mut desk, two), ["early"]);
    // One that this end connects to again is waited for.
    desk.leave(now, two, Load::default());
    to(&mut desk, 2, "later").unwrap();
    let two = desk.join(now, joined(2), "").unwrap();
    assert_eq!(written(&mut desk, two), ["later"]);
}

#[test]
fn peers_that_never_come_back_leave_a_bounded_number_of_messages() {
    let limits = Limits { messages: 4, bytes: 1000 };
    let mut desk = desk(Rules { mode: SendMode::Publish, limits, ..rules() });
    let now = Instant::now();
    for n in 0..100 {
        let key = desk.join(now, Joined { comes_back: true, ..joined(n) }, "").unwrap();
        (0..3).for_each(|text| assert!(send(&mut desk, &format!("{n}.{text}")).is_ok()));
        desk.leave(now, key, Load::default());
    }
    // As many as may wait, and none that has lost a part of what was for it.
    assert_eq!((desk.counters().waiting, desk.counters().lost), (63, 237));
    for n in 0..100 {
        let key = desk.join(now, joined(n), "").unwrap();
        let all: Vec<_> = (0..3).map(|text| format!("{n}.{text}")).collect();
        assert_eq!(written(&mut desk, key), if n < 79 { Vec::new() } else { all });
        desk.leave(now, key, Load::default());
    }
}

#[test]
fn one_break_loses_nothing_though_queue_and_load_are_full() {
    let limits = Limits { messages: 4, bytes: 1000 };
    let mut desk = desk(Rules { mode: SendMode::Publish, limits, ..rules() });
    let now = Instant::now();
    let comes_back = |n| Joined { comes_back: true, ..joined(n) };
    let mut sent = 0;
    let fill = |desk: &mut Desk<_>, sent: &mut u64| {
        while send(desk, &sent.to_string()).is_ok() {
            *sent += 1;
        }
    };
    for round in 1..4 {
        let key = desk.join(now, comes_back(1), "").unwrap();
        fill(&mut desk, &mut sent);
        let mut load = Load::default();
        assert!(desk.take(now, key, &mut load));
        fill(&mut desk, &mut sent);
        desk.leave(now, key, load);
        assert!(sent > 4 * round, "more than one queue was taken");
        assert_eq!((desk.counters().waiting, desk.counters().lost), (sent, 0), "break {round}");
    }
    let key = desk.join(now, comes_back(1), "").unwrap();
    let all: Vec<_> = (0..sent).map(|n| n.to_string()).collect();
    assert_eq!(written(&mut desk, key), all);
}

#[test]
fn each_peer_that_is_away_has_a_limit_of_its_own_and_sending_costs_no_other_its_messages() {
    let limits = Limits { messages: 4, bytes: 1000 };
    let to = |desk: &mut Desk<_>, n: u8| desk.send(Instant::now(), &mut Payload::from("m"), Some(name(n)));
    for when_full in [WhenFull::Fail, WhenFull::DropOldest] {
        let mut desk = desk(Rules { mode: SendMode::ByIdentity, limits, when_full, ..rules() });
        for n in 0..16 {
            (0..4).for_each(|_| assert_eq!(to(&mut desk, n), Ok(Taken::Queued(None))));
            assert_eq!(to(&mut desk, n).is_err(), when_full == WhenFull::Fail);
        }
        // Now as much waits as may for all of them: one more is refused, or takes the place of the oldest.
        assert_eq!(to(&mut desk, 100).is_err(), when_full == WhenFull::Fail);
        let dropped = if when_full == WhenFull::Fail { 0 } else { 17 };
        let counters = desk.counters();
        assert_eq!((counters.waiting, counters.dropped, counters.lost), (64, dropped, 0));
        let key = desk.join(Instant::now(), joined(0), "").unwrap();
        assert_eq!(written(&mut desk, key).len(), if when_full == WhenFull::Fail { 4 } else { 3 });
    }
}

#[test]
fn a_double_identity_is_refused_and_the_first_stays() {
    let mut desk = desk(rules());
    let first = desk.join(Instant::now(), joined(1), "").unwrap();
    assert_eq!(desk.join(Instant::now(), joined(1), ""), Err(Double));
    send(&mut desk, "still").unwrap();
    assert_eq!(written(&mut desk, first), ["still"]);
}

#[test]
fn what_a_lost_connection_had_not_written_goes_to_another_in_order() {
    let mut desk = desk(rules());
    let now = Instant::now();
    let first = desk.join(now, joined(1), "").unwrap();
    for text in ["a", "b", "c"] {
        send(&mut desk, text).unwrap();
    }
    let mut load = Load::default();
    assert!(desk.take(now, first, &mut load));
    // The first frame and a part of the second had left: the second counts as not sent.
    load.handle_written(6 + 2);
    send(&mut desk, "d").unwrap();
    desk.leave(now, first, load);
    send(&mut desk, "e").unwrap();
    let second = desk.join(now, joined(2), "").unwrap();
    assert_eq!(written(&mut desk, second).concat(), "bcde");
}

#[test]
fn what_was_addressed_to_a_peer_that_can_not_come_back_is_lost_and_counted() {
    let mut desk = desk(rules());
    let now = Instant::now();
    let key = desk.join(now, joined(1), "").unwrap();
    desk.send(now, &mut Payload::from("yours"), Some(name(1))).unwrap();
    send(&mut desk, "anybody's").unwrap();
    desk.leave(now, key, Load::default());
    assert_eq!(desk.counters().lost, 1);
    let other = desk.join(now, joined(2), "").unwrap();
    assert_eq!(written(&mut desk, other), ["anybody's"]);
}

#[test]
fn at_the_high_water_mark_it_happens_as_was_asked_for() {
    let limits = Limits { messages: 2, bytes: 1000 };
    let after = |when_full, with_peer: bool| {
        let mut desk = desk(Rules { limits, when_full, ..rules() });
        let peer = with_peer.then(|| desk.join(Instant::now(), joined(1), "").unwrap());
        let taken: Vec<_> = ["a", "b", "c"].map(|text| send(&mut desk, text)).into();
        let key = peer.unwrap_or_else(|| desk.join(Instant::now(), joined(1), "").unwrap());
        (taken[2], written(&mut desk, key).concat(), desk.counters().dropped)
    };
    for with_peer in [true, false] {
        let queued = Ok(Taken::Queued(None));
        assert_eq!(after(WhenFull::Wait, with_peer), (Err(Refused::Full), "ab".into(), 0));
        assert_eq!(after(WhenFull::Fail, with_peer), (Err(Refused::Full), "ab".into(), 0));
        assert_eq!(after(WhenFull::DropOldest, with_peer), (queued, "bc".into(), 1));
        assert_eq!(after(WhenFull::DropNewest, with_peer), (Ok(Taken::Dropped), "ab".into(), 1));
    }
}

#[test]
fn bytes_are_limited_too_and_a_larger_message_passes_alone() {
    let limits = Limits { messages: 100, bytes: 10 };
    let mut desk = desk(Rules { limits, ..rules() });
    let key = desk.join(Instant::now(), joined(1), "").unwrap();
    let large = "x".repeat(50_000);
    send(&mut desk, &large).unwrap();
    assert_eq!(send(&mut desk, "y"), Err(Refused::Full));
    assert_eq!(written(&mut desk, key), [large]);
    send(&mut desk, "y").unwrap();
}

#[test]
fn one_slow_subscriber_loses_only_its_own_copies() {
    let limits = Limits { messages: 2, bytes: 1000 };
    let mut desk = desk(Rules { limits, mode: SendMode::Publish, when_full: WhenFull::DropOldest, ..rules() });
    let (slow, fast) =
        (desk.join(Instant::now(), joined(1), "").unwrap(), desk.join(Instant::now(), joined(2), "").unwrap());
    let mut got = Vec::new();
    for n in 0..5 {
        send(&mut desk, &n.to_string()).unwrap();
        got.extend(written(&mut desk, fast));
    }
    assert_eq!((got.concat().as_str(), written(&mut desk, slow).concat().as_str()), ("01234", "34"));
    assert_eq!(desk.counters().dropped, 3);
}

fn sure() -> Rules {
    Rules { delivery: Delivery::AtLeastOnce, ..rules() }
}

#[test]
fn a_message_is_sent_again_until_it_is_acknowledged() {
    let mut desk = desk(sure());
    let begun = Instant::now();
    let key = desk.join(begun, joined(1), "").unwrap();
    desk.send(begun, &mut Payload::from("m"), NOBODY).unwrap();
    let id = id_of_first(&mut desk, key);
    assert_eq!(desk.poll_timeout(), Some(begun + Duration::from_secs(5)));
    desk.handle_timeout(begun + Duration::from_secs(4));
    assert!(written(&mut desk, key).is_empty());
    desk.handle_timeout(begun + Duration::from_secs(5));
    assert_eq!(id_of_first(&mut desk, key), id, "the same message has the same id");
    desk.handle_ack(key, &[9; 16]);
    assert_eq!(desk.counters().unacknowledged, 1, "an ACK for nothing changes nothing");
    desk.handle_ack(key, &id);
    desk.handle_ack(key, &id);
    let outcomes = desk.take_outcomes();
    assert!(matches!(outcomes[..], [Outcome { given_up: None, .. }]), "{outcomes:?}");
    assert_eq!((desk.counters().acknowledged, desk.counters().resent, desk.poll_timeout()), (1, 1, None));
}

#[test]
fn it_is_given_up_after_its_tries_and_the_sender_gets_word() {
    let mut desk = desk(sure());
    let begun = Instant::now();
    let key = desk.join(begun, joined(1), "").unwrap();
    desk.send(begun, &mut Payload::from("m"), NOBODY).unwrap();
    let mut times = 0;
    while let Some(due) = desk.poll_timeout() {
        times += written(&mut desk, key).len();
        desk.handle_timeout(due);
    }
    assert_eq!(times, 6);
    let outcomes = desk.take_outcomes();
    let [Outcome { given_up: Some(given_up), .. }] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert_eq!((given_up.payload.as_ref(), given_up.tries), (&b"m"[..], 6));
}

#[test]
fn waiting_for_a_peer_costs_no_try_but_time() {
    let resend = Resend { within: Some(Duration::from_secs(60)), ..Resend::default() };
    let mut desk = desk(Rules { resend, ..sure() });
    let begun = Instant::now();
    desk.send(begun, &mut Payload::from("m"), NOBODY).unwrap();
    let mut now = begun;
    while now < begun + Duration::from_secs(59) {
        now += Duration::from_secs(1);
        desk.handle_timeout(now);
    }
    assert!(desk.take_outcomes().is_empty());
    desk.handle_timeout(begun + Duration::from_secs(60));
    let outcomes = desk.take_outcomes();
    assert!(matches!(&outcomes[..], [Outcome { given_up: Some(GivenUp { tries: 0, .. }), .. }]), "{outcomes:?}");
    // Nobody gets it later.
    let key = desk.join(now, joined(1), "").unwrap();
    assert!(written(&mut desk, key).is_empty());
}

#[test]
fn unacknowledged_messages_of_a_lost_connection_go_out_over_the_next_at_once() {
    let mut desk = desk(sure());
    let now = Instant::now();
    let key = desk.join(now, joined(1), "").unwrap();
    for text in ["a", "b"] {
        send(&mut desk, text).unwrap();
    }
    assert_eq!(written(&mut desk, key), ["a!", "b!"]);
    send(&mut desk, "c").unwrap();
    desk.leave(now, key, Load::default());
    let next = desk.join(now, joined(1), "").unwrap();
    assert_eq!(written(&mut desk, next), ["a!", "b!", "c!"]);
    assert_eq!(desk.counters().unacknowledged, 3);
}

#[test]
fn what_a_peer_has_not_read_yet_is_not_repeated_to_it() {
    let mut desk = desk(sure());
    let begun = Instant::now();
    let key = desk.join(begun, joined(1), "").unwrap();
    desk.send(begun, &mut Payload::from("m"), NOBODY).unwrap();
    for n in 1..100 {
        desk.handle_timeout(begun + Duration::from_secs(5 * n));
    }
    assert_eq!(written(&mut desk, key), ["m!"]);
    assert!(desk.take_outcomes().is_empty());
}

#[test]
fn a_peer_that_reads_nothing_holds_a_bounded_number_of_messages() {
    let limits = Limits { messages: 4, bytes: 1000 };
    let mut desk = desk(Rules { limits, when_full: WhenFull::DropOldest, ..sure() });
    let key = desk.join(Instant::now(), joined(1), "").unwrap();
    for n in 0..100 {
        send(&mut desk, &n.to_string()).unwrap();
    }
    // The queue as it was when it became full, and then the latest: those between were given up.
    assert_eq!(written(&mut desk, key), ["0!", "1!", "2!", "3!", "96!", "97!", "98!", "99!"]);
    assert_eq!(desk.counters().given_up, 96);
}

#[test]
fn what_waits_behind_a_full_queue_goes_before_what_is_sent_later() {
    let limits = Limits { messages: 2, bytes: 1000 };
    let mut desk = desk(Rules { limits, when_full: WhenFull::DropOldest, ..sure() });
    let key = desk.join(Instant::now(), joined(1), "").unwrap();
    for n in 0..4 {
        send(&mut desk, &n.to_string()).unwrap();
    }
    let mut load = Load::default();
    assert!(desk.take(Instant::now(), key, &mut load));
    send(&mut desk, "4").unwrap();
    assert_eq!(written(&mut desk, key), ["2!", "3!", "4!"], "0 and 1 are in the load");
}

#[test]
fn a_peer_can_not_acknowledge_what_went_to_another() {
    let mut desk = desk(sure());
    let begun = Instant::now();
    let keys = [1, 2].map(|n| desk.join(begun, joined(n), "").unwrap());
    desk.send(begun, &mut Payload::from("m"), NOBODY).unwrap();
    let id = id_of_first(&mut desk, keys[0]);
    desk.handle_ack(keys[1], &id);
    assert_eq!(desk.counters().unacknowledged, 1);
    // It goes to the other as well; then either may.
    desk.handle_timeout(begun + Duration::from_secs(5));
    assert_eq!(id_of_first(&mut desk, keys[1]), id);
    desk.handle_ack(keys[0], &id);
    assert_eq!(desk.counters().acknowledged, 1);
}

#[test]
fn acks_are_bounded_though_the_peer_does_not_read() {
    let mut desk = desk(rules());
    let key = desk.join(Instant::now(), joined(1), "").unwrap();
    for _ in 0..ACKS {
        desk.acknowledge(key, &[1; 16]);
    }
    let mut load = Load::default();
    assert!(desk.take(Instant::now(), key, &mut load));
    let mut parts = [std::io::IoSlice::new(&[]); 8];
    let count = load.parts(&mut parts);
    assert!(parts[..count].iter().map(|part| part.len()).sum::<usize>() < ACKS + 100);
}

#[test]
fn only_a_connection_that_sleeps_is_woken() {
    let mut desk = desk(rules());
    let key = desk.join(Instant::now(), joined(1), "driver").unwrap();
    send(&mut desk, "before it has looked").unwrap();
    assert!(desk.take_woken().is_empty());
    assert_eq!(written(&mut desk, key).len(), 1);
    assert!(desk.is_drained());
    send(&mut desk, "a").unwrap();
    send(&mut desk, "b").unwrap();
    assert_eq!(desk.take_woken(), ["driver"]);
    assert!(!desk.is_drained());
}

/// Any order of sending, writing, coming and going: what is at most once arrives once, or is counted.
#[test]
fn nothing_vanishes_whatever_happens() {
    let mut state = 11u64;
    let mut next = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let mut desk = desk(rules());
    let (mut keys, mut sent, mut got) = (Vec::new(), 0u64, Vec::new());
    for _ in 0..20_000 {
        match next(10) {
            0 if keys.len() < 4 => keys.push(desk.join(Instant::now(), joined(next(200) as u8), "")),
            1 => {
                let at = next(keys.len().max(1) as u64) as usize;
                if let Some(Ok(key)) = (at < keys.len()).then(|| keys.remove(at)) {
                    let mut load = Load::default();
                    desk.take(Instant::now(), key, &mut load);
                    desk.leave(Instant::now(), key, load);
                }
            }
            2 | 3 => {
                if let Some(Ok(key)) = keys.first() {
                    got.extend(written(&mut desk, *key));
                }
            }
            _ => {
                send(&mut desk, &sent.to_string()).unwrap();
                sent += 1;
            }
        }
        keys.retain(Result::is_ok);
    }
    keys.push(desk.join(Instant::now(), joined(255), ""));
    for key in keys.into_iter().flatten() {
        got.extend(written(&mut desk, key));
    }
    let mut numbers: Vec<u64> = got.iter().map(|text| text.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>());
}
