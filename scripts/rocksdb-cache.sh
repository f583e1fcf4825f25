#!/usr/bin/env bash
# Builds RocksDB once per machine and keeps the archive, so that no clean build compiles it again.
#
# Prints the folder that holds librocksdb.a, for ROCKSDB_LIB_DIR. The folder's name carries the
# version of the wrapper crate and its features: another version gets another folder.
#
#   scripts/rocksdb-cache.sh          build if absent, then print the folder
#   scripts/rocksdb-cache.sh --path   only print the folder
set -euo pipefail

version=0.25.0
features=lz4,zstd,bindgen-runtime
target=$(rustc -vV | sed -n 's/^host: //p')
cache=${MENES_CACHE:-$HOME/.cache/menes}
folder=$cache/rocksdb-$version-${features//,/-}-$target

if [ "${1:-}" = --path ]; then
    echo "$folder"
    exit 0
fi

if [ ! -f "$folder/librocksdb.a" ]; then
    echo "building RocksDB once into $folder (15 to 20 minutes on two cores)" >&2
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/building.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/src"
    cat >"$work/Cargo.toml" <<TOML
[package]
name = "rocksdb-archive"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
rocksdb = { version = "=$version", default-features = false, features = ["${features//,/\", \"}"] }

[profile.dev.package.librocksdb-sys]
opt-level = 3
debug = false
TOML
    echo >"$work/src/lib.rs"
    # Without these flags RocksDB computes its CRC32C in software, about half as fast.
    case $target in
    x86_64-*) export CXXFLAGS="${CXXFLAGS:-} -msse4.2 -mpclmul" ;;
    esac
    (
        cd "$work"
        unset ROCKSDB_LIB_DIR ROCKSDB_STATIC CARGO_TARGET_DIR
        cargo build --quiet --target-dir "$work/target" >&2
    )
    archive=$(find "$work/target" -name librocksdb.a | head -n 1)
    [ -n "$archive" ] || { echo "RocksDB was built, but no librocksdb.a was found under $work/target" >&2; exit 1; }
    mkdir -p "$work/out"
    strip --strip-debug "$archive" -o "$work/out/librocksdb.a"
    rm -rf "$folder"
    mv "$work/out" "$folder"
fi
echo "$folder"
