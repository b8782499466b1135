#![no_main]

#[path = "../checks/pool.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    checks::envelope(input);
});
