//! The corpora of the fuzz targets, replayed and mutated: no bytes of a stranger make what reads them panic, hang, grow or break its
//! promises. The same files are what `cargo fuzz` starts from. Where a corpus is made by a test, `NATPIPE_WRITE_CORPUS` writes it.

#![cfg(unix)]

mod comm;
mod duct;
mod nat;
mod places;
mod portmap;
mod rendezvous;
mod seeds;
mod stun;
mod turn;
mod wire;

use std::fs;
use std::path::PathBuf;

fn dir(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The inputs of a target by name, in order; so many are to be there.
fn named(target: &str, least: usize) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(dir(target)).unwrap().map(|file| file.unwrap());
    let mut inputs: Vec<_> =
        files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect();
    inputs.sort();
    assert!(inputs.len() >= least, "the corpus of {target} is gone");
    inputs
}

/// The inputs alone.
fn corpus(target: &str, least: usize) -> Vec<Vec<u8>> {
    named(target, least).into_iter().map(|(_, input)| input).collect()
}

/// The inputs, of which those that are given here have to be as they are given.
fn seeded(target: &str, seeds: &[(&str, Vec<u8>)]) -> Vec<Vec<u8>> {
    if std::env::var_os("NATPIPE_WRITE_CORPUS").is_some() {
        fs::create_dir_all(dir(target)).unwrap();
        seeds.iter().for_each(|(name, bytes)| fs::write(dir(target).join(name), bytes).unwrap());
    }
    for (name, bytes) in seeds {
        assert_eq!(&fs::read(dir(target).join(name)).unwrap(), bytes, "{target}/{name}");
    }
    corpus(target, seeds.len())
}

/// The corpus with a few changes each: a bit, a byte, a cut, an insertion, a repetition, another input behind it.
fn mutated(corpus: &[Vec<u8>], times: usize, mut check: impl FnMut(&[u8])) {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..times {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            match random.below(7) {
                0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
                2 if at < bytes.len() => bytes[at] = random.below(256) as u8,
                3 => bytes.truncate(at),
                4 => bytes.insert(at, random.below(256) as u8),
                5 if bytes.len() < 20_000 => bytes.extend_from_slice(&corpus[random.below(corpus.len())]),
                _ if bytes.len() < 20_000 => bytes.extend_from_within(at..),
                _ => {}
            }
        }
        check(&bytes);
    }
}

/// Xorshift: enough to mutate with, and the same in each run.
struct Random(u64);

impl Random {
    /// Less than this; 0 where nothing is.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }
}
