#![no_main]

#[path = "../checks/schemas.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::schema(data));
