//! Compiles the little C++ that lets RocksDB encrypt its files with our keys.
//!
//! RocksDB's own encrypting file system takes its cipher as a C++ object, which the C interface
//! does not offer. The headers are those of the crate that RocksDB itself comes from.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

const SOURCE: &str = "src/state/encrypted_env.cc";

fn main() {
    println!("cargo:rerun-if-changed={SOURCE}");
    println!("cargo:rerun-if-env-changed=ROCKSDB_INCLUDE_DIR");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        // RocksDB is built without exceptions and type information being asked for across the seam.
        .flag_if_supported("-fno-rtti")
        .define("NDEBUG", None)
        .warnings(false)
        .include(headers())
        .file(SOURCE)
        .compile("menes_encrypted_env");
}

/// The folder of RocksDB's public headers.
fn headers() -> PathBuf {
    if let Some(folder) = env::var_os("ROCKSDB_INCLUDE_DIR") {
        return folder.into();
    }
    let cargo = env::var_os("CARGO").expect("cargo runs build scripts");
    let target = env::var("TARGET").expect("cargo names the target");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--filter-platform"])
        .arg(target)
        .output()
        .expect("cargo can be run");
    let metadata = String::from_utf8_lossy(&output.stdout);
    let manifest = metadata
        .split("\"manifest_path\":\"")
        .filter_map(|rest| rest.split('"').next())
        .find(|path| path.contains("librocksdb-sys"))
        .expect("librocksdb-sys is a dependency; else set ROCKSDB_INCLUDE_DIR");
    let folder = PathBuf::from(manifest).with_file_name("rocksdb/include");
    fs::metadata(folder.join("rocksdb/env_encryption.h")).expect("RocksDB has its headers there");
    folder
}
