//! The fuzz target's corpus, replayed and mutated: no bytes make a duct panic, hang, or say what they do not.
#![cfg(all(feature = "duct", unix))]

#[path = "../fuzz/checks/duct.rs"]
mod checks;

use std::fs;
use std::path::Path;

const MUTATIONS: usize = 20_000;

fn corpus() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/duct_stream");
    let mut inputs: Vec<Vec<u8>> =
        fs::read_dir(dir).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    inputs.sort();
    assert!(inputs.len() > 5, "the corpus is gone");
    inputs
}

#[test]
fn the_corpus_holds() {
    let came: usize = corpus().iter().map(|input| checks::stream(input)).sum();
    assert!(came > 20, "only {came} objects");
}

#[test]
fn mutated_streams_say_what_a_plain_reading_says() {
    let corpus = corpus();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut came = 0;
    for _ in 0..MUTATIONS {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len().max(1));
            match random.below(4) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
                1 => bytes.truncate(at),
                2 => bytes.insert(at, random.below(256) as u8),
                _ => bytes.extend_from_within(at.min(bytes.len())..),
            }
        }
        came += checks::stream(&bytes);
    }
    assert!(came > MUTATIONS / 20, "only {came} objects came");
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
