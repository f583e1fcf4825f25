//! Runs the checks of the fuzz targets on the seeds that are checked in.

#[path = "../../fuzz/checks/protocol.rs"]
mod checks;

use std::{fs, path::PathBuf};

fn for_each_seed(target: &str, check: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/seeds")
        .join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(&folder).expect("seeds are checked in") {
        let path = entry.expect("a readable folder").path();
        check(&fs::read(&path).expect("a readable seed"));
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds in {}", folder.display());
}

#[test]
fn client_parser_seeds_hold() {
    for_each_seed("client_parser", checks::client_parser);
}

#[test]
fn server_parser_seeds_hold() {
    for_each_seed("server_parser", checks::server_parser);
}

#[test]
fn headers_seeds_hold() {
    for_each_seed("headers", checks::headers);
}

#[test]
fn connect_seeds_hold() {
    for_each_seed("connect", checks::connect);
}

#[test]
fn transform_seeds_hold() {
    for_each_seed("transform", checks::transform);
}
