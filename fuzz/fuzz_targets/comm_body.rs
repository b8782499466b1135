#![no_main]

#[path = "../checks/comm.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    checks::body(input);
});
