#![no_main]

#[path = "../checks/smart.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    checks::frames(input);
});
