//! The corpus of the fuzz target for a TURN server's bytes, replayed and mutated: no bytes make reading it panic.

#[path = "../fuzz/checks/turn.rs"]
mod checks;

use std::fs;
use std::path::Path;

const MUTATIONS: usize = 20_000;

fn corpus() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/turn_server");
    let mut inputs: Vec<Vec<u8>> =
        fs::read_dir(dir).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    inputs.sort();
    assert!(inputs.len() > 15, "the corpus is gone");
    inputs
}

#[test]
fn the_corpus_holds() {
    let open = corpus().iter().filter(|input| checks::server(input)).count();
    assert!(open >= 8, "{open} give an address");
}

#[test]
fn mutated_inputs_break_nothing() {
    let (inputs, mut random) = (corpus(), Random(0x9E37_79B9_7F4A_7C15));
    let mut good = 0;
    for _ in 0..MUTATIONS {
        let mut bytes = inputs[random.below(inputs.len())].clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len().max(1));
            match random.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.push(random.below(256) as u8),
                2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
                _ if at < bytes.len() => bytes[at] = random.below(256) as u8,
                _ => {}
            }
        }
        good += usize::from(checks::server(&bytes));
    }
    assert!(good > MUTATIONS / 50, "only {good} were read to the end");
}

/// Xorshift: enough to mutate with, and the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}
