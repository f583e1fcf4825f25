//! The seeds of the fuzz target, and every beginning of them.

#[path = "../../fuzz/checks/schemas.rs"]
mod checks;

use std::path::Path;

#[test]
fn seeds_of_the_fuzz_target_are_checked_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/schema");
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("the folder is there") {
        let data = std::fs::read(file.expect("readable").path()).expect("readable");
        for end in 0..=data.len() {
            checks::schema(&data[..end]);
        }
        count += 1;
    }
    assert!(count >= 6);
}
