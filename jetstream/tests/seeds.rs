//! Every seed of the fuzzer is read, or refused, without a panic.

#[path = "../../fuzz/checks/archives.rs"]
mod checks;

#[test]
fn archives_of_the_fuzzer_are_read_or_refused() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/archive");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("seeds") {
        let seed = std::fs::read(entry.expect("a seed").path()).expect("readable");
        checks::archive(&seed);
        count += 1;
    }
    assert!(count >= 8);
}
