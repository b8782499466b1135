#![no_main]

#[path = "../checks/rendezvous.rs"]
mod rendezvous;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rendezvous::frames(bytes);
});
