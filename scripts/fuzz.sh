#!/usr/bin/env bash
# Fuzzes each target for SECONDS_EACH each, or those named in TARGETS. FUZZ_TARGET_DIR says where to build.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "fuzzing wants nightly Rust and cargo-fuzz: rustup toolchain install nightly && cargo install --locked cargo-fuzz" >&2
    exit 1
fi
where=(${FUZZ_TARGET_DIR:+--target-dir "$FUZZ_TARGET_DIR"})
for target in ${TARGETS:-$(cargo +nightly fuzz list)}; do
    echo "== $target"
    mkdir -p "corpus/$target" "seeds/$target"
    cargo +nightly fuzz run "${where[@]}" "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="${SECONDS_EACH:-60}" -max_len=65536
done
