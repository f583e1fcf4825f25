#!/usr/bin/env bash
# The gate: format, lints, and the rules about which crate may know what. Never writes.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
cargo clippy --locked --workspace --all-targets -- -D warnings
scripts/dependency-rules.sh
if command -v cargo-deny >/dev/null; then cargo deny --locked check; fi
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
