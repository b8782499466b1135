//! What pools, smart sockets, WebSockets, peers' sessions and keys read.

#[path = "../../fuzz/checks/keys.rs"]
pub mod keys;
#[path = "../../fuzz/checks/pool.rs"]
mod pool;
#[path = "../../fuzz/checks/records.rs"]
mod records;
#[path = "../../fuzz/checks/smart.rs"]
mod smart;
#[path = "../../fuzz/checks/websocket.rs"]
mod websocket;

use crate::{mutated, seeded, seeds};

#[test]
fn pools_envelopes_hold() {
    let corpus = seeded("pool_envelope", &seeds::envelopes());
    let good = corpus.iter().filter(|input| pool::envelope(input)).count();
    assert!(good >= 10, "only {good} are envelopes");
    let mut good = 0;
    mutated(&corpus, 50_000, |bytes| good += usize::from(pool::envelope(bytes)));
    assert!(good > 2_000, "only {good} mutated ones were envelopes");
}

#[test]
fn smart_sockets_frames_hold() {
    let corpus = seeded("smart_frames", &seeds::smart());
    let came: usize = corpus.iter().map(|input| smart::frames(input)).sum();
    assert!(came >= 20, "only {came} frames");
    let mut came = 0;
    mutated(&corpus, 20_000, |bytes| came += smart::frames(bytes));
    assert!(came > 20_000, "only {came} frames of mutated streams");
}

#[test]
fn websockets_frames_and_requests_hold() {
    let corpus = seeded("websocket", &seeds::websocket());
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
    let corpus = seeded("peer_records", &seeds::records());
    let came: usize = corpus.iter().map(|input| records::records(input)).sum();
    assert!(came >= 15, "only {came} records");
    let mut came = 0;
    mutated(&corpus, 20_000, |bytes| came += records::records(bytes));
    assert!(came > 20_000, "only {came} records of mutated streams");
}

#[test]
fn tickets_urls_and_sealed_messages_hold() {
    let corpus = seeded("keys", &seeds::keys());
    let good = corpus.iter().filter(|input| keys::any(input)).count();
    assert!(good >= 10, "only {good} are good");
    let mut good = 0;
    mutated(&corpus, 3_000, |bytes| good += usize::from(keys::any(bytes)));
    assert!(good > 200, "only {good} mutated ones were good");
}
