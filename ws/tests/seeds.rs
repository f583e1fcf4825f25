//! Runs the checks of the fuzz target on the seeds that are checked in.

#[path = "../../fuzz/checks/frames.rs"]
mod checks;

use std::{fs, path::PathBuf};

#[test]
fn frames_seeds_hold() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/frames");
    let mut seeds = 0;
    for entry in fs::read_dir(&folder).expect("seeds are checked in") {
        let path = entry.expect("a readable folder").path();
        checks::frames(&fs::read(&path).expect("a readable seed"));
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds in {}", folder.display());
}
