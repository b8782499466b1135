//! The corpus of places and envelopes, replayed and mutated.

use std::fs;

use crate::{Random, corpus, dir};
use natpipe::Identity;
use natpipe::key::envelope;
use natpipe::key::seal::{Conversation, Ephemeral};

#[path = "../../fuzz/checks/meeting.rs"]
mod checks;

const MUTATIONS: usize = 600;

/// With `NATPIPE_WRITE_CORPUS` set the files are written.
#[test]
fn the_corpus_is_what_it_says() {
    let key = checks::reader().peer_id();
    let writer = Identity::from_seed([3; 32]);
    let sealed = Conversation::begin(&writer, key, Ephemeral::random().unwrap()).unwrap().seal(b"hello").unwrap();
    let files: [(&str, Vec<u8>); 7] = [
        ("broker", b"mqtt://example.org".to_vec()),
        ("login", b"mqtts://ann:s%40crt%3A%20word@[2001:db8::1]:443".to_vec()),
        ("web", b"wss://ann:%C3%A4@example.org/mqtt?a=b".to_vec()),
        ("socket", b"ws://10.0.0.1:8083/mqtt".to_vec()),
        ("server", format!("natpipe://example.org:443/#{key}").into_bytes()),
        ("webserver", format!("ws://example.org/meet#{key}").into_bytes()),
        ("envelope", envelope::close(writer.peer_id(), key, &sealed, &Ephemeral::random().unwrap()).unwrap()),
    ];
    for (name, bytes) in files {
        if std::env::var_os("NATPIPE_WRITE_CORPUS").is_some() {
            fs::write(dir("meeting").join(name), &bytes).unwrap();
        }
        let kept = fs::read(dir("meeting").join(name)).unwrap();
        assert!(checks::meeting(&kept), "{name} is nothing");
    }
}

#[test]
fn mutations_of_the_corpus_break_no_promise() {
    let (corpus, mut random) = (corpus("meeting", 7), Random(1));
    let mut something = 0;
    for _ in 0..MUTATIONS {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(3) {
            let (at, other) = (random.below(bytes.len()), random.below(corpus.len()));
            match random.below(4) {
                0 if !bytes.is_empty() => bytes[at] = b"%@:/#[]?.0aZ\0\xFF"[random.below(14)],
                1 => bytes.truncate(at),
                2 if !bytes.is_empty() => bytes.insert(at, random.below(256) as u8),
                _ => bytes.extend_from_slice(&corpus[other][random.below(corpus[other].len())..]),
            }
        }
        something += usize::from(checks::meeting(&bytes));
    }
    assert!(something > MUTATIONS / 50, "{something} of {MUTATIONS} were anything");
}
