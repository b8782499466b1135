//! The fuzz targets' corpus, replayed and mutated: no bytes make the STUN room panic or break its promises.

#[path = "../../fuzz/checks/stun.rs"]
mod checks;

use crate::{Random, corpus};

const MUTATIONS: usize = 100_000;

#[test]
fn the_corpus_of_the_parser_holds() {
    assert!(corpus("stun_message", 6).iter().all(|input| checks::message(input)), "each is a message");
}

#[test]
fn the_corpus_of_the_server_holds() {
    assert!(corpus("stun_server", 6).iter().all(|input| checks::server(input)), "each is answered");
}

#[test]
fn mutated_messages_break_neither_parser_nor_client_nor_server() {
    let (messages, servers) = (corpus("stun_message", 6), corpus("stun_server", 6));
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (mut read, mut answered) = (0, 0);
    for _ in 0..MUTATIONS / 2 {
        let mutated = mutate(&messages[random.below(messages.len())], 0, &mut random);
        read += usize::from(checks::message(&mutated));
        let mutated = mutate(&servers[random.below(servers.len())], 1, &mut random);
        answered += usize::from(checks::server(&mutated));
    }
    assert!(read > MUTATIONS / 20 && answered > MUTATIONS / 20, "only {read} were read and {answered} answered");
}

#[test]
fn random_bytes_break_nothing() {
    let mut random = Random(42);
    for _ in 0..MUTATIONS {
        let len = random.below(120);
        let noise: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
        checks::server(&noise);
    }
}

/// One to four changes: a bit, a byte, bytes cut off, bytes repeated, a length field; often with a length that is right
/// again, so that the parser does not stop at the first check. The message begins at `header`.
fn mutate(input: &[u8], header: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len().max(1));
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            2 => bytes.truncate(at),
            3 if bytes.len() < 4096 => bytes.extend_from_within(at..),
            _ => bytes.extend([0, random.below(64) as u8, 0, random.below(9) as u8]),
        }
    }
    if bytes.len() >= header + 20 && random.below(4) > 0 {
        bytes.truncate(bytes.len() - (bytes.len() - header) % 4);
        let body = (bytes.len() - header - 20) as u16;
        bytes[header + 2..header + 4].copy_from_slice(&body.to_be_bytes());
    }
    bytes
}
