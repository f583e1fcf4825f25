//! Runs the checks of the fuzz target on the seeds that are checked in.

#[path = "../../fuzz/checks/compressed.rs"]
mod compressed;
#[path = "../../fuzz/checks/frames.rs"]
mod frames;

use std::{fs, path::PathBuf};

#[test]
fn frames_seeds_hold() {
    hold("frames", frames::frames);
}

#[test]
fn compressed_seeds_hold() {
    hold("compressed", compressed::compressed);
}

fn hold(name: &str, check: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/seeds")
        .join(name);
    let mut seeds = 0;
    for entry in fs::read_dir(&folder).expect("seeds are checked in") {
        let path = entry.expect("a readable folder").path();
        check(&fs::read(&path).expect("a readable seed"));
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds in {}", folder.display());
}
