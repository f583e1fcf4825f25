#!/usr/bin/env bash
# Builds everything once, runs every test, and ends with one line that sums them up.
set -uo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0

cargo build --locked --workspace --bin menes || exit 1
export MENES_BIN="$PWD/${CARGO_TARGET_DIR:-target}/debug/menes"
case ${CARGO_TARGET_DIR:-} in /*) MENES_BIN="$CARGO_TARGET_DIR/debug/menes" ;; esac

cargo test --locked --workspace --no-fail-fast -- --test-threads=2 2>&1 | tee "$log"
[ "${PIPESTATUS[0]}" = 0 ] || status=1

passed=$(awk '/^test result:/{n += $4} END {print n + 0}' "$log")
failed=$(awk '/^test result:/{n += $6} END {print n + 0}' "$log")
ignored=$(awk '/^test result:/{n += $8} END {print n + 0}' "$log")
if [ "$failed" = 0 ] && [ "$status" != 0 ]; then
    echo "a test binary did not build or did not finish" >&2
    failed=1
fi
echo "$passed passed, $failed failed, $ignored skipped"
exit "$status"
