//! The corpus of the fuzz target for bodies, replayed and mutated: no body makes reading one panic, grow, or run on.

#[path = "../fuzz/checks/comm.rs"]
mod checks;

use std::fs;
use std::path::Path;

const MUTATIONS: usize = 20_000;
/// Letters that mean something to YAML.
const SIGNS: &[u8] = b"[]{}&*!:,-?|>'\"%@` \n#ax1";

fn corpus() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/comm_body");
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap());
    let mut inputs: Vec<_> =
        files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect();
    inputs.sort();
    assert!(inputs.len() > 15, "the corpus is gone");
    inputs
}

#[test]
fn the_corpus_of_bodies_holds() {
    for (name, input) in corpus() {
        assert_eq!(checks::body(&input), !name.starts_with("no_"), "{name}");
    }
}

#[test]
fn changed_bodies_do_no_harm() {
    let (corpus, mut state) = (corpus(), 7_u64);
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize
    };
    for _ in 0..MUTATIONS {
        let (_, mut input) = corpus[next() % corpus.len()].clone();
        for _ in 0..=next() % 4 {
            let at = next() % input.len();
            match next() % 3 {
                0 => input[at] = next() as u8,
                1 => input.insert(at, SIGNS[next() % SIGNS.len()]),
                _ => drop(input.remove(at)),
            }
            if input.is_empty() {
                input.push(b' ');
            }
        }
        checks::body(&input);
    }
}
