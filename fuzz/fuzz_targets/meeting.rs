#![no_main]

#[path = "../checks/meeting.rs"]
mod meeting;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    meeting::meeting(bytes);
});
