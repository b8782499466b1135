#![no_main]

#[path = "../checks/duct.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    checks::stream(input);
});
