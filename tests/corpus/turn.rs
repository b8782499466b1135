//! The corpus of the fuzz target for a TURN server's bytes, replayed and mutated: no bytes make reading it panic.

#[path = "../../fuzz/checks/turn.rs"]
mod checks;

use crate::{corpus, mutated};

const MUTATIONS: usize = 20_000;

#[test]
fn the_corpus_holds() {
    let open = corpus("turn_server", 16).iter().filter(|input| checks::server(input)).count();
    assert!(open >= 8, "{open} give an address");
}

#[test]
fn mutated_inputs_break_nothing() {
    let mut good = 0;
    mutated(&corpus("turn_server", 16), MUTATIONS, |bytes| good += usize::from(checks::server(bytes)));
    assert!(good > MUTATIONS / 50, "only {good} were read to the end");
}
