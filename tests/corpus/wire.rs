//! The corpora of the fuzz targets for what pools, smart sockets, WebSockets, peers' sessions and keys read, replayed and mutated.
//! The same files are what `cargo fuzz` starts from.

#[path = "../../fuzz/checks/keys.rs"]
mod keys;
#[path = "../../fuzz/checks/pool.rs"]
mod pool;
#[path = "../../fuzz/checks/records.rs"]
mod records;
mod seeds;
#[path = "../../fuzz/checks/smart.rs"]
mod smart;
#[path = "../../fuzz/checks/websocket.rs"]
mod websocket;

use std::fs;
use std::path::PathBuf;

fn dir(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// What a fuzz run begins with, by name. With `NATPIPE_WRITE_CORPUS` set the files are written first.
fn corpus(target: &str, seeds: &[(&str, Vec<u8>)]) -> Vec<Vec<u8>> {
    if std::env::var_os("NATPIPE_WRITE_CORPUS").is_some() {
        fs::create_dir_all(dir(target)).unwrap();
        seeds.iter().for_each(|(name, bytes)| fs::write(dir(target).join(name), bytes).unwrap());
    }
    for (name, bytes) in seeds {
        assert_eq!(&fs::read(dir(target).join(name)).unwrap(), bytes, "{target}/{name}");
    }
    let mut files: Vec<_> =
        fs::read_dir(dir(target)).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    files.sort();
    assert!(files.len() >= seeds.len());
    files
}

/// The corpus with a few changes: bits, cuts, insertions, repetitions, two of them one behind the other.
fn mutated(corpus: &[Vec<u8>], times: usize, mut check: impl FnMut(&[u8])) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % bound.max(1)
    };
    for _ in 0..times {
        let mut bytes = corpus[below(corpus.len())].clone();
        for _ in 0..1 + below(4) {
            let at = below(bytes.len());
            match below(6) {
                0 | 1 if at < bytes.len() => bytes[at] ^= 1 << below(8),
                2 => bytes.truncate(at),
                3 => bytes.insert(at, below(256) as u8),
                4 if bytes.len() < 20_000 => bytes.extend_from_slice(&corpus[below(corpus.len())]),
                _ if bytes.len() < 20_000 => bytes.extend_from_within(at..),
                _ => {}
            }
        }
        check(&bytes);
    }
}

#[test]
fn pools_envelopes_hold() {
    let corpus = corpus("pool_envelope", &seeds::envelopes());
    let good = corpus.iter().filter(|input| pool::envelope(input)).count();
    assert!(good >= 10, "only {good} are envelopes");
    let mut good = 0;
    mutated(&corpus, 50_000, |bytes| good += usize::from(pool::envelope(bytes)));
    assert!(good > 2_000, "only {good} mutated ones were envelopes");
}

#[test]
fn smart_sockets_frames_hold() {
    let corpus = corpus("smart_frames", &seeds::smart());
    let came: usize = corpus.iter().map(|input| smart::frames(input)).sum();
    assert!(came >= 20, "only {came} frames");
    let mut came = 0;
    mutated(&corpus, 20_000, |bytes| came += smart::frames(bytes));
    assert!(came > 20_000, "only {came} frames of mutated streams");
}

#[test]
fn websockets_frames_and_requests_hold() {
    let corpus = corpus("websocket", &seeds::websocket());
    let (requests, frames): (Vec<_>, Vec<_>) = corpus.into_iter().partition(|input| input.first() == Some(&b'G'));
    assert!(requests.iter().any(|input| websocket::request(input)));
    let came: usize = frames.iter().map(|input| websocket::frames(input)).sum();
    assert!(came >= 15, "only {came} messages");
    let (mut granted, mut came) = (0, 0);
    mutated(&requests, 3_000, |bytes| granted += usize::from(websocket::request(bytes)));
    mutated(&frames, 20_000, |bytes| came += websocket::frames(bytes));
    assert!(granted > 100 && came > 10_000, "only {granted} requests and {came} messages of mutated ones");
}

#[test]
fn peers_records_hold() {
    let corpus = corpus("peer_records", &seeds::records());
    let came: usize = corpus.iter().map(|input| records::records(input)).sum();
    assert!(came >= 15, "only {came} records");
    let mut came = 0;
    mutated(&corpus, 20_000, |bytes| came += records::records(bytes));
    assert!(came > 20_000, "only {came} records of mutated streams");
}

#[test]
fn tickets_urls_and_sealed_messages_hold() {
    let corpus = corpus("keys", &seeds::keys());
    let good = corpus.iter().filter(|input| keys::any(input)).count();
    assert!(good >= 10, "only {good} are good");
    let mut good = 0;
    mutated(&corpus, 3_000, |bytes| good += usize::from(keys::any(bytes)));
    assert!(good > 200, "only {good} mutated ones were good");
}
