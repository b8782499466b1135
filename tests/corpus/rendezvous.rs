//! The fuzz target's corpus, replayed and mutated: no bytes make the server's state panic or break its promises.

use crate::{Random, corpus, seeded};
use natpipe::rendezvous::{FIRST_WINDOW, Frame, MAX_DATA, Reason};

#[path = "../../fuzz/checks/rendezvous.rs"]
mod checks;

const MUTATIONS: usize = 5_000;

/// Dialogues between the two peers that the check knows: frames in turn.
fn dialogues() -> Vec<(&'static str, Vec<Frame>)> {
    let [ann, bob] = checks::keys();
    let open = |channel, peer| Frame::Open { channel, peer, token: [3; 12], window: FIRST_WINDOW };
    let data = |channel, len| Frame::Data { channel, bytes: vec![7; len].into() };
    let signal = |peer, len: usize| Frame::Signal { peer, sealed: vec![9; len].into() };
    let hello = Frame::Hello { version: 1 };
    let done = |channel| Frame::Close { channel, why: Reason::Done };
    vec![
        ("greeting", vec![hello.clone(), hello.clone(), Frame::Ping(1), Frame::Ping(2), Frame::Pong(3)]),
        ("signals", vec![signal(bob, 66), signal(ann, 300), signal(bob, 5000), signal(ann, 66)]),
        ("nobody", vec![signal([8; 32], 100), open(1, [8; 32]), Frame::Goodbye(Reason::Done)]),
        ("stream", vec![open(1, bob), open(1, ann), data(1, 100), data(1, 10), Frame::Finish { channel: 1 }, done(1)]),
        ("early", vec![open(1, bob), Frame::Ping(1), data(1, MAX_DATA), Frame::Ping(2), data(1, 9), open(2, ann)]),
        ("window", vec![open(1, bob), open(1, ann), data(1, 900), Frame::Window { channel: 1, more: 900 }, data(1, 1)]),
        ("greedy", vec![open(1, bob), open(1, ann), Frame::Window { channel: 1, more: u32::MAX }, data(1, 1)]),
        (
            "liar",
            vec![
                Frame::Welcome { version: 1, keepalive: 1, window: 1 },
                Frame::Refused { peer: ann, why: Reason::Busy },
            ],
        ),
    ]
}

fn bytes(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.write(&mut out));
    out
}

#[test]
fn the_corpus_is_these_dialogues_and_holds() {
    let seeds: Vec<_> = dialogues().iter().map(|(name, frames)| (*name, bytes(frames))).collect();
    seeded("rendezvous", &seeds);
    for ((name, frames), (_, file)) in dialogues().iter().zip(&seeds) {
        assert_eq!(checks::frames(file), frames.len(), "{name}");
    }
}

#[test]
fn mutated_dialogues_break_nothing() {
    let (corpus, mut random) = (corpus("rendezvous", 8), Random(0x9E37_79B9_7F4A_7C15));
    let mut read = 0;
    for _ in 0..MUTATIONS {
        let mut input = corpus[random.below(corpus.len())].clone();
        let other = &corpus[random.below(corpus.len())];
        for _ in 0..1 + random.below(3) {
            let at = random.below(input.len().max(1));
            match random.below(5) {
                0 if at < input.len() => input[at] ^= 1 << random.below(8),
                1 if at < input.len() => input[at] = random.below(4) as u8,
                2 => input.truncate(at),
                3 if input.len() < 100_000 => input.extend_from_slice(other),
                _ => input.extend_from_within(..at),
            }
        }
        read += checks::frames(&input);
    }
    assert!(read > MUTATIONS, "only {read} frames were read");
}
