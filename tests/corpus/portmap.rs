//! The corpus of the fuzz target for a gateway's answer, replayed and mutated: no bytes make reading it panic.

#[path = "../../fuzz/checks/portmap.rs"]
mod checks;

use crate::{corpus, mutated};

const MUTATIONS: usize = 20_000;

#[test]
fn the_corpus_holds() {
    assert!(corpus("portmap_answer", 16).iter().all(|input| checks::answer(input)), "each is an answer");
}

#[test]
fn mutated_inputs_break_nothing() {
    let mut good = 0;
    mutated(&corpus("portmap_answer", 16), MUTATIONS, |bytes| good += usize::from(checks::answer(bytes)));
    assert!(good > MUTATIONS / 10, "only {good} were read to the end");
}
