//! Two sessions and the paths between them, in virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::ProtocolError;
use super::channels::ChannelKind;
use super::path::{PathId, SessionId};
use super::record::{Kind, Record, next_record};
use super::state::{Event, Multipath, Role, State};

const CALLER: usize = 0;
const ANSWERER: usize = 1;

/// Bytes on their way to each end of a path, with the instant at which they arrive.
#[derive(Default)]
struct Wire {
    delay: Duration,
    /// Since when it begins slowly: ten packets in the first round trip, and twice as many in each further one.
    slow_since: Option<Instant>,
    /// And never more than this in a millisecond.
    limit: Option<usize>,
    /// What waits for its turn then.
    waiting: [BytesMut; 2],
    /// Nothing arrives, and neither end is told.
    stuck: bool,
    flying: [VecDeque<(Instant, Bytes)>; 2],
    arrived: [BytesMut; 2],
}

impl Wire {
    /// What is sent to this end in a millisecond, at most.
    fn capacity(&self, now: Instant) -> usize {
        let Some(since) = self.slow_since else { return usize::MAX };
        let rtt = 2 * self.delay.as_micros();
        let doubled = ((now - since).as_micros() / rtt).min(20);
        usize::try_from((14_600_u128 << doubled) * 1000 / rtt).unwrap().min(self.limit.unwrap_or(usize::MAX))
    }

    /// What the sender's system takes before it has sent anything of it.
    fn room(&self, to: usize) -> i64 {
        if self.slow_since.is_some() { 100_000 - self.waiting[to].len() as i64 } else { 200_000 }
    }
}

struct World {
    now: Instant,
    /// Both ends are of a version that knows nothing of what greetings say in the place of a channel.
    old: bool,
    ends: [State; 2],
    wires: BTreeMap<PathId, Wire>,
    over: Vec<(usize, PathId)>,
    random: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let end = |role| State::new(role, SessionId([7; 16]), now);
        let ends = [end(Role::Caller), end(Role::Answerer)];
        Self { now, old: false, ends, wires: BTreeMap::new(), over: Vec::new(), random: seed }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn connect(&mut self, id: u64, delay: Duration) {
        self.wires.insert(PathId(id), Wire { delay, ..Wire::default() });
        for end in &mut self.ends {
            end.attach(PathId(id), 1, self.now);
        }
    }

    /// The path breaks with all that is on it.
    fn cut(&mut self, id: u64) {
        self.wires.remove(&PathId(id));
        for end in &mut self.ends {
            end.detach(PathId(id), self.now);
        }
    }

    fn step(&mut self, by: Duration) {
        self.now += by;
        for end in [CALLER, ANSWERER] {
            if let Some(due) = self.ends[end].poll_timeout().filter(|due| *due <= self.now) {
                // What is due at once is looked at in the next step.
                self.ends[end].handle_timeout(due.max(self.now - by), self.now);
            }
            self.transmit(end);
            self.deliver(end);
            while let Some(event) = self.ends[end].poll_event() {
                if let Event::Over(path) = event {
                    self.over.push((end, path));
                    self.ends[1 - end].detach(path, self.now);
                    self.wires.remove(&path);
                }
            }
        }
    }

    fn transmit(&mut self, end: usize) {
        for (id, wire) in &mut self.wires {
            self.ends[end].begin_batch(self.now);
            // A path takes a bounded number of bytes at a time.
            let mut room = wire.room(1 - end);
            while room > 0 {
                let Some(mut record) = self.ends[end].poll_transmit(*id) else { break };
                if self.old {
                    assert!(!matches!(record.kind, Kind::At | Kind::Came), "an older end does not know it");
                    record.channel = if record.kind == Kind::Hello { 0 } else { record.channel };
                }
                let bytes = &mut wire.waiting[1 - end];
                let before = bytes.len();
                State::write_record(&record, bytes);
                room -= (bytes.len() - before) as i64;
            }
            let capacity = wire.capacity(self.now);
            let waiting = &mut wire.waiting[1 - end];
            if !waiting.is_empty() {
                let bytes = waiting.split_to(waiting.len().min(capacity));
                wire.flying[1 - end].push_back((self.now + wire.delay, bytes.freeze()));
            }
        }
    }

    fn deliver(&mut self, end: usize) {
        for (id, wire) in &mut self.wires {
            while !wire.stuck && wire.flying[end].front().is_some_and(|(due, _)| *due <= self.now) {
                let (_, bytes) = wire.flying[end].pop_front().unwrap();
                wire.arrived[end].extend_from_slice(&bytes);
            }
            while let Some(record) = next_record(&mut wire.arrived[end]).unwrap() {
                self.ends[end].handle_record(*id, record, self.now).unwrap();
            }
        }
    }

    fn run(&mut self, times: usize) {
        (0..times).for_each(|_| self.step(Duration::from_millis(1)));
    }
}

/// Bytes of which each says where it stands.
fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

#[test]
fn the_first_bytes_arrive_with_the_greeting() {
    let mut world = World::new(1);
    world.connect(1, Duration::from_millis(10));
    let id = world.ends[CALLER].open(ChannelKind::Stream).unwrap();
    world.ends[CALLER].write(id, b"first");
    world.run(12);
    assert_eq!(world.ends[ANSWERER].accept(), Some((id, ChannelKind::Stream)));
    assert_eq!(world.ends[ANSWERER].read(id).unwrap(), &b"first"[..]);
}

#[test]
fn nothing_is_lost_doubled_or_reordered_whatever_the_paths_do() {
    whatever_the_paths_do(false);
}

#[test]
fn nothing_is_lost_doubled_or_reordered_between_older_ends() {
    whatever_the_paths_do(true);
}

/// Four channels each way, while paths come and go, some broken with what they carried: each byte
/// arrives once, in order.
fn whatever_the_paths_do(old: bool) {
    let mut changes = 0;
    for seed in 0..40 {
        let mut world = World::new(seed);
        world.old = old;
        world.connect(1, Duration::from_millis(20));
        let total = 1_500_000;
        let ids: Vec<u32> = (0..4).map(|_| world.ends[CALLER].open(ChannelKind::Stream).unwrap()).collect();
        let mut sent = [[0; 4]; 2];
        let mut got = [[0; 4]; 2];
        let mut path = 1;
        for turn in 0.. {
            assert!(turn < 20_000, "it gets on: {sent:?} {got:?}");
            for end in [CALLER, ANSWERER] {
                for (n, id) in ids.iter().enumerate() {
                    // The answerer has the channel once its opening arrived.
                    if world.ends[end].channel(*id).is_none() {
                        continue;
                    }
                    let len = (total - sent[end][n]).min(world.random(30_000) as usize);
                    sent[end][n] += world.ends[end].write(*id, &pattern(sent[end][n], len));
                    while let Some(data) = world.ends[end].read(*id) {
                        assert!(
                            data == pattern(got[end][n], data.len()),
                            "seed {seed}: other bytes at {}",
                            got[end][n]
                        );
                        got[end][n] += data.len();
                    }
                }
            }
            match world.random(20) {
                0 => {
                    path += 1;
                    let delay = Duration::from_millis(1 + world.random(40));
                    world.connect(path, delay);
                }
                1 | 2 => {
                    let one = PathId(1 + world.random(path));
                    if let Some(wire) = world.wires.get_mut(&one) {
                        wire.stuck = !wire.stuck;
                    }
                }
                3 => {
                    let one = 1 + world.random(path);
                    world.cut(one);
                    if world.wires.is_empty() {
                        path += 1;
                        world.connect(path, Duration::from_millis(5));
                    }
                }
                _ => {}
            }
            if world.ends[CALLER].active().is_none() {
                path += 1;
                world.connect(path, Duration::from_millis(5));
            }
            world.step(Duration::from_millis(1));
            if got == [[total; 4]; 2] {
                break;
            }
        }
        changes += path - 1;
    }
    assert!(changes > 200, "paths did change: {changes}");
}

#[test]
fn a_better_path_takes_over_and_the_old_one_is_kept_to_go_back_to() {
    let mut world = World::new(3);
    world.connect(1, Duration::from_millis(50));
    let id = world.ends[CALLER].open(ChannelKind::Stream).unwrap();
    world.ends[CALLER].write(id, &pattern(0, 100_000));
    world.run(30);
    world.connect(2, Duration::from_millis(5));
    assert_eq!(world.ends[CALLER].active(), Some(PathId(1)), "not before the other end knows");
    world.run(30);
    assert_eq!(world.ends[CALLER].active(), Some(PathId(2)));
    assert_eq!(world.ends[ANSWERER].active(), Some(PathId(2)));
    let rtt = world.ends[CALLER].rtt(PathId(2)).unwrap();
    assert!((10..=12).contains(&rtt.as_millis()), "{rtt:?}");
    world.run(300);
    world.cut(2);
    world.ends[CALLER].write(id, &pattern(100_000, 100_000));
    world.run(210);
    assert_eq!(world.ends.each_ref().map(State::active), [Some(PathId(1)); 2]);
    let mut got = Vec::new();
    while let Some(data) = world.ends[ANSWERER].read(id) {
        got.extend_from_slice(&data);
    }
    assert_eq!(got, pattern(0, 200_000));
}

#[test]
fn who_hears_nothing_goes_to_a_spare_path_and_back_when_the_better_one_is_well() {
    for talker in [CALLER, ANSWERER] {
        let mut world = World::new(8);
        world.connect(1, Duration::from_millis(20));
        let id = world.ends[CALLER].open(ChannelKind::Stream).unwrap();
        world.ends[CALLER].write(id, b"hello");
        world.run(100);
        world.wires.insert(PathId(2), Wire { delay: Duration::from_millis(5), ..Wire::default() });
        world.ends.iter_mut().for_each(|end| end.attach(PathId(2), 0, world.now));
        world.run(5000);
        world.wires.get_mut(&PathId(2)).unwrap().stuck = true;
        assert!(world.ends[talker].write(id, b"are you there?") > 0);
        world.run(1300);
        assert_eq!(world.ends.each_ref().map(State::active), [Some(PathId(1)); 2], "by {talker}");
        world.wires.get_mut(&PathId(2)).unwrap().stuck = false;
        world.run(30_000);
        assert_eq!(world.ends.each_ref().map(State::active), [Some(PathId(2)); 2], "by {talker}");
    }
}

#[test]
fn few_paths_are_kept() {
    let mut world = World::new(9);
    for path in 1..=6 {
        world.connect(path, Duration::from_millis(5));
        world.run(50);
    }
    assert_eq!(world.wires.len(), 3, "the one in use and two spare ones: {:?}", world.over);
    assert_eq!(world.ends[CALLER].active(), Some(PathId(6)));
}

#[test]
fn the_end_of_each_way_is_told_and_a_channel_that_is_over_is_forgotten() {
    let mut world = World::new(4);
    world.connect(1, Duration::from_millis(1));
    let id = world.ends[CALLER].open(ChannelKind::Stream).unwrap();
    world.ends[CALLER].write(id, b"question");
    world.ends[CALLER].finish(id);
    world.run(5);
    assert_eq!(world.ends[ANSWERER].read(id).unwrap(), &b"question"[..]);
    assert!(world.ends[ANSWERER].channel(id).unwrap().is_at_end());
    assert_eq!(world.ends[ANSWERER].write(id, b"answer"), 6);
    world.ends[ANSWERER].release(id);
    world.run(5);
    assert_eq!(world.ends[CALLER].read(id).unwrap(), &b"answer"[..]);
    assert!(world.ends[CALLER].channel(id).unwrap().is_at_end());
    world.ends[CALLER].release(id);
    world.run(5);
    assert!(world.ends[CALLER].channel(id).is_none() && world.ends[ANSWERER].channel(id).is_none());
}

#[test]
fn closing_says_everything_first() {
    let mut world = World::new(5);
    world.connect(1, Duration::from_millis(3));
    let id = world.ends[CALLER].open(ChannelKind::Stream).unwrap();
    let data = pattern(0, 200_000);
    assert_eq!(world.ends[CALLER].write(id, &data), data.len());
    world.ends[CALLER].close();
    world.run(40);
    let mut got = Vec::new();
    while let Some(data) = world.ends[ANSWERER].read(id) {
        got.extend_from_slice(&data);
    }
    assert_eq!(got, data);
    assert!(world.ends[CALLER].is_over() && world.ends[ANSWERER].is_over());
    assert!(world.ends[ANSWERER].open(ChannelKind::Stream).is_none());
}

#[test]
fn a_path_that_falls_silent_is_given_up() {
    let mut world = World::new(6);
    world.connect(1, Duration::from_millis(3));
    world.run(20);
    let caller = &mut world.ends[CALLER];
    let begun = world.now;
    let mut now = begun;
    while caller.active().is_some() {
        now = caller.poll_timeout().unwrap();
        caller.handle_timeout(now, now);
        while caller.poll_transmit(PathId(1)).is_some() {}
    }
    assert_eq!((now - begun).as_secs(), 19, "asked after ten seconds without a word, given up after ten more");
}

#[test]
fn pieces_of_what_is_no_greeting_keep_no_path() {
    let begun = Instant::now();
    let mut state = State::new(Role::Answerer, SessionId([7; 16]), begun);
    state.attach(PathId(1), 0, begun);
    let is_over = |second| {
        let now = begun + Duration::from_secs(second);
        state.handle_heard(PathId(1), now);
        state.handle_timeout(now, now);
        while state.poll_transmit(PathId(1)).is_some() {}
        std::iter::from_fn(|| state.poll_event()).any(|event| event == Event::Over(PathId(1)))
    };
    assert!((1..60).any(is_over), "it lives as long as somebody drips");
}

#[test]
fn records_before_the_greeting_and_channels_out_of_order_are_refused() {
    let now = Instant::now();
    let mut state = State::new(Role::Answerer, SessionId([7; 16]), now);
    state.attach(PathId(1), 1, now);
    let open = |id| Record::new(Kind::Open, id, vec![0]);
    assert_eq!(state.handle_record(PathId(1), open(1), now), Err(ProtocolError::OutOfPlace(Kind::Open)));
    let mut caller = State::new(Role::Caller, SessionId([7; 16]), now);
    caller.attach(PathId(1), 1, now);
    let hello = caller.poll_transmit(PathId(1)).unwrap();
    state.handle_record(PathId(1), hello, now).unwrap();
    state.handle_record(PathId(1), open(3), now).unwrap();
    assert_eq!(state.handle_record(PathId(1), open(1), now), Err(ProtocolError::OutOfPlace(Kind::Open)));
    assert_eq!(state.handle_record(PathId(1), open(4), now), Err(ProtocolError::OutOfPlace(Kind::Open)));
    let data = Record::new(Kind::Data, 9, vec![0]);
    assert_eq!(state.handle_record(PathId(1), data, now), Err(ProtocolError::OutOfPlace(Kind::Data)));
}

#[test]
fn who_opens_channels_and_reads_no_answer_is_refused_in_time() {
    let mut world = World::new(17);
    world.connect(1, Duration::from_millis(1));
    world.run(10);
    let (now, state) = (world.now, &mut world.ends[ANSWERER]);
    let open = |n: u32| Record::new(Kind::Open, 2 * n + 1, vec![0]);
    let taken = (0..1_000_000).take_while(|n| state.handle_record(PathId(1), open(*n), now).is_ok()).count();
    assert!((10_000..200_000).contains(&taken), "{taken}");
    assert_eq!(state.handle_record(PathId(1), open(1_000_000), now), Err(ProtocolError::Unread));
}

#[test]
fn datagrams_leave_room_for_the_words_of_their_path() {
    let mut world = World::new(18);
    world.connect(1, Duration::from_millis(5));
    let id = world.ends[CALLER].open(ChannelKind::Datagram).unwrap();
    world.run(50);
    let now = world.now;
    let caller = &mut world.ends[CALLER];
    let (record, _) = caller.datagram(id, b"one of many");
    let taken = (0..1000).filter(|_| caller.send_datagram_in_order(PathId(1), record.clone())).count();
    assert!(taken < 100, "{taken}");
    caller.handle_change(now);
    let said: Vec<Kind> = std::iter::from_fn(|| caller.poll_transmit(PathId(1))).map(|record| record.kind).collect();
    assert_eq!(said.iter().filter(|kind| **kind == Kind::Datagram).count(), taken, "all that were said to be taken");
    assert!(said.contains(&Kind::Ping), "the path is asked all the same");
}

#[test]
fn the_greeting_of_another_session_is_refused() {
    let now = Instant::now();
    let mut caller = State::new(Role::Caller, SessionId([8; 16]), now);
    caller.attach(PathId(1), 1, now);
    let mut state = State::new(Role::Answerer, SessionId([7; 16]), now);
    state.attach(PathId(1), 1, now);
    let hello = caller.poll_transmit(PathId(1)).unwrap();
    assert_eq!(state.handle_record(PathId(1), hello, now), Err(ProtocolError::Greeting));
}

/// As above, but bytes take all paths at once, at both ends.
#[test]
fn nothing_is_lost_doubled_or_reordered_on_several_paths_at_once_whatever_they_do() {
    let (mut changes, mut together) = (0, 0);
    for seed in 100..130 {
        let mut world = World::new(seed);
        world.ends = world.ends.map(|end| end.with_multipath(Multipath::Throughput));
        world.connect(1, Duration::from_millis(20));
        world.connect(2, Duration::from_millis(3));
        let total = 3_000_000;
        let id = world.ends[CALLER].open(ChannelKind::Stream).unwrap();
        let (mut sent, mut got, mut path) = ([0; 2], [0; 2], 2);
        for turn in 0.. {
            assert!(turn < 20_000, "seed {seed}: it gets on: {sent:?} {got:?}");
            for end in [CALLER, ANSWERER] {
                if world.ends[end].channel(id).is_none() {
                    continue;
                }
                let len = (total - sent[end]).min(world.random(300_000) as usize);
                sent[end] += world.ends[end].write(id, &pattern(sent[end], len));
                while let Some(data) = world.ends[end].read(id) {
                    assert!(data == pattern(got[end], data.len()), "seed {seed}: other bytes at {}", got[end]);
                    got[end] += data.len();
                }
            }
            let one = 1 + world.random(path);
            match world.random(30) {
                0 => {
                    path += 1;
                    let delay = Duration::from_millis(1 + world.random(40));
                    world.connect(path, delay);
                }
                1 | 2 => {
                    if let Some(wire) = world.wires.get_mut(&PathId(one)) {
                        wire.stuck = !wire.stuck;
                    }
                }
                3 => world.cut(one),
                _ => {}
            }
            if world.ends[CALLER].active().is_none() {
                path += 1;
                world.connect(path, Duration::from_millis(5));
            }
            world.step(Duration::from_millis(1));
            together += usize::from(world.wires.values().filter(|wire| !wire.flying[ANSWERER].is_empty()).count() > 1);
            if got == [total; 2] {
                break;
            }
        }
        changes += path - 2;
    }
    assert!(changes > 40 && together > 300, "paths did change: {changes}, and were used together: {together}");
}

#[test]
fn of_a_datagram_that_takes_two_paths_the_first_copy_is_taken_and_the_loss_of_one_path_costs_none() {
    let mut world = World::new(11);
    world.ends = world.ends.map(|end| end.with_multipath(Multipath::Duplicate));
    world.connect(1, Duration::from_millis(20));
    world.connect(2, Duration::from_millis(5));
    let id = world.ends[CALLER].open(ChannelKind::Datagram).unwrap();
    world.run(100);
    let mut ways_of = Vec::new();
    for n in 0..100_u8 {
        if n == 30 {
            world.wires.get_mut(&PathId(2)).unwrap().stuck = true;
        }
        let (record, ways) = world.ends[CALLER].datagram(id, &[n]);
        ways_of.push(ways.len());
        for way in ways {
            assert!(world.ends[CALLER].send_datagram_in_order(way, record.clone()));
        }
        world.run(5);
    }
    world.run(100);
    let got: Vec<u8> = std::iter::from_fn(|| world.ends[ANSWERER].read(id)).map(|data| data[0]).collect();
    assert_eq!(got, (0..100).collect::<Vec<u8>>());
    assert_eq!(ways_of[..30], [2; 30]);
}

/// The longest time in which nothing of a steady stream arrives, while a new path, slow in the beginning, takes over from one that is
/// well.
fn silence_of_a_move(old: bool, limit: Option<usize>) -> Duration {
    let mut world = World::new(12);
    world.old = old;
    world.connect(1, Duration::from_millis(20));
    let id = world.ends[CALLER].open(ChannelKind::Stream).unwrap();
    let (mut sent, mut got, mut last, mut longest) = (0, 0, world.now, Duration::ZERO);
    for turn in 0..4000 {
        if turn == 500 {
            let slow_since = Some(world.now);
            world
                .wires
                .insert(PathId(2), Wire { delay: Duration::from_millis(20), slow_since, limit, ..Wire::default() });
            world.ends.iter_mut().for_each(|end| end.attach(PathId(2), 0, world.now));
        }
        sent += world.ends[CALLER].write(id, &pattern(sent, 16_000));
        world.run(1);
        while let Some(data) = world.ends[ANSWERER].read(id) {
            assert!(data == pattern(got, data.len()), "other bytes at {got}");
            got += data.len();
            if turn > 300 {
                longest = longest.max(world.now - last);
            }
            last = world.now;
        }
    }
    assert_eq!(world.ends.each_ref().map(State::active), [Some(PathId(2)); 2]);
    assert!(limit.is_some() || sent - got < 2_000_000 && got > 50_000_000, "it keeps up: {got} of {sent}");
    assert!(!world.ends[CALLER].has_output(PathId(1)), "the path before rests");
    longest
}

#[test]
fn while_a_new_path_is_slow_the_one_before_goes_on_so_that_there_is_no_silence() {
    let [before, now] = [true, false].map(|old| silence_of_a_move(old, None));
    println!("longest silence: {before:?} without, {now:?} with");
    assert!(now < Duration::from_millis(40) && before > 2 * now, "{before:?} {now:?}");
}

#[test]
fn a_new_path_that_stays_slower_takes_over_without_a_silence_too() {
    let [before, now] = [true, false].map(|old| silence_of_a_move(old, Some(4000)));
    println!("longest silence: {before:?} without, {now:?} with");
    assert!(now < Duration::from_millis(80) && before > 2 * now, "{before:?} {now:?}");
}

#[test]
fn a_path_that_dies_in_the_midst_of_a_handover_costs_nothing() {
    for dies in [1, 2] {
        let mut world = World::new(13);
        world.connect(1, Duration::from_millis(20));
        let id = world.ends[CALLER].open(ChannelKind::Stream).unwrap();
        let (mut sent, mut got) = (0, 0);
        for turn in 0..3000 {
            if turn == 200 {
                let slow_since = Some(world.now);
                world.wires.insert(PathId(2), Wire { delay: Duration::from_millis(20), slow_since, ..Wire::default() });
                world.ends.iter_mut().for_each(|end| end.attach(PathId(2), 0, world.now));
            }
            if turn == 300 {
                assert_eq!(world.ends[CALLER].active(), Some(PathId(2)), "it takes over");
                world.cut(dies);
            }
            if sent < 8_000_000 {
                sent += world.ends[CALLER].write(id, &pattern(sent, 16_000));
            }
            world.run(1);
            while let Some(data) = world.ends[ANSWERER].read(id) {
                assert!(data == pattern(got, data.len()), "other bytes at {got}");
                got += data.len();
            }
        }
        assert!(got == sent && sent >= 8_000_000, "path {dies}: {got} of {sent}");
    }
}

#[test]
fn bytes_take_several_paths_only_where_both_ends_want_it() {
    for [caller, answerer] in [[true, true], [true, false], [false, true]] {
        let mut world = World::new(14);
        let end = |end: State, wants| if wants { end.with_multipath(Multipath::Throughput) } else { end };
        let [one, two] = world.ends;
        world.ends = [end(one, caller), end(two, answerer)];
        world.connect(1, Duration::from_millis(20));
        world.run(100);
        world.connect(2, Duration::from_millis(20));
        world.run(200);
        let id = world.ends[CALLER].open(ChannelKind::Stream).unwrap();
        let (mut sent, mut got, mut together) = (0, 0, 0);
        for _ in 0..1000 {
            sent += world.ends[CALLER].write(id, &pattern(sent, 100_000));
            world.run(1);
            let loads =
                world.wires.values().map(|wire| wire.flying[ANSWERER].iter().map(|(_, b)| b.len()).sum::<usize>());
            together += usize::from(loads.filter(|load| *load > 10_000).count() > 1);
            while let Some(data) = world.ends[ANSWERER].read(id) {
                assert!(data == pattern(got, data.len()), "other bytes at {got}");
                got += data.len();
            }
        }
        assert!(got > 10_000_000, "{got}");
        assert_eq!(together > 100, caller && answerer, "{together}");
    }
}

#[test]
fn who_is_told_that_the_other_end_has_left_doubts_all_paths_until_something_comes() {
    let mut world = World::new(15);
    world.connect(1, Duration::from_millis(5));
    world.run(50);
    let now = world.now;
    world.ends[CALLER].handle_left(now);
    assert!(world.ends[CALLER].is_doubted(PathId(1)));
    world.run(15);
    assert!(!world.ends[CALLER].is_doubted(PathId(1)), "it was not so");
}

#[test]
fn who_was_not_let_run_does_not_blame_the_path() {
    let mut world = World::new(16);
    world.connect(1, Duration::from_millis(5));
    let id = world.ends[CALLER].open(ChannelKind::Stream).unwrap();
    world.run(50);
    world.ends[CALLER].write(id, b"a question");
    world.transmit(CALLER);
    // The answer has come meanwhile, but the timers are looked at first.
    world.now += Duration::from_secs(60);
    let (armed, now) = (world.ends[CALLER].poll_timeout().unwrap(), world.now);
    world.ends[CALLER].handle_timeout(armed, now);
    assert_eq!(world.ends[CALLER].active(), Some(PathId(1)));
    world.run(50);
    assert_eq!(world.ends.each_ref().map(State::active), [Some(PathId(1)); 2]);
    assert!(!world.ends[CALLER].is_doubted(PathId(1)));
}

#[test]
fn what_went_before_the_greeting_does_not_fill_the_one_path_for_ever() {
    let mut world = World::new(15);
    world.ends = world.ends.map(|end| end.with_multipath(Multipath::Throughput));
    world.connect(1, Duration::from_millis(20));
    let id = world.ends[CALLER].open(ChannelKind::Stream).unwrap();
    let (mut sent, mut got) = (world.ends[CALLER].write(id, &pattern(0, 200_000)), 0);
    for _ in 0..2000 {
        world.run(1);
        sent += world.ends[CALLER].write(id, &pattern(sent, 10_000));
        while let Some(data) = world.ends[ANSWERER].read(id) {
            assert!(data == pattern(got, data.len()), "other bytes at {got}");
            got += data.len();
        }
    }
    assert!(got > 10_000_000, "{got} of {sent}");
}
