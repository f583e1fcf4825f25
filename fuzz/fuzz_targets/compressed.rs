#![no_main]

#[path = "../checks/compressed.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::compressed(data));
