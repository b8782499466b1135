//! The corpus of the fuzz target for bodies, replayed and mutated: no body makes reading one panic, grow, or run on.

#[path = "../../fuzz/checks/comm.rs"]
mod checks;

use crate::{Random, named};

const MUTATIONS: usize = 20_000;
/// Letters that mean something to YAML.
const SIGNS: &[u8] = b"[]{}&*!:,-?|>'\"%@` \n#ax1";

#[test]
fn the_corpus_of_bodies_holds() {
    for (name, input) in named("comm_body", 16) {
        assert_eq!(checks::body(&input), !name.starts_with("no_"), "{name}");
    }
}

#[test]
fn changed_bodies_do_no_harm() {
    let (corpus, mut random) = (named("comm_body", 16), Random(7));
    for _ in 0..MUTATIONS {
        let (_, mut input) = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(4) {
            let at = random.below(input.len());
            match random.below(3) {
                0 => input[at] = random.below(256) as u8,
                1 => input.insert(at, SIGNS[random.below(SIGNS.len())]),
                _ => drop(input.remove(at)),
            }
            if input.is_empty() {
                input.push(b' ');
            }
        }
        checks::body(&input);
    }
}
