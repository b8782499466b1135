#![no_main]

#[path = "../checks/turn.rs"]
mod turn;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    turn::server(bytes);
});
