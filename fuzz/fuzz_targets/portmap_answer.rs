#![no_main]

#[path = "../checks/portmap.rs"]
mod portmap;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    portmap::answer(bytes);
});
