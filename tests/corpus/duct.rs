//! The fuzz target's corpus, replayed and mutated: no bytes make a duct panic, hang, or say what they do not.

#[path = "../../fuzz/checks/duct.rs"]
mod checks;

use crate::{corpus, mutated};

const MUTATIONS: usize = 20_000;

#[test]
fn the_corpus_holds() {
    let came: usize = corpus("duct_stream", 6).iter().map(|input| checks::stream(input)).sum();
    assert!(came > 20, "only {came} objects");
}

#[test]
fn mutated_streams_say_what_a_plain_reading_says() {
    let mut came = 0;
    mutated(&corpus("duct_stream", 6), MUTATIONS, |bytes| came += checks::stream(bytes));
    assert!(came > MUTATIONS / 20, "only {came} objects came");
}
