#![no_main]

#[path = "../checks/websocket.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| match input.split_first() {
    Some((b'G', _)) => drop(checks::request(input)),
    _ => drop(checks::frames(input)),
});
