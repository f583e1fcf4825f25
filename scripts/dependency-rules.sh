#!/usr/bin/env bash
# The cores decide and cannot touch the world: their trees hold neither a runtime nor a disk store.
set -euo pipefail
cd "$(dirname "$0")/.."

status=0
stays_out() { # crate, then what must not be in its tree
    local crate=$1 found
    shift
    for banned in "$@"; do
        found=$(cargo tree --locked -p "$crate" -e normal --prefix none | awk '{print $1}' | grep -x "$banned" || true)
        if [ -n "$found" ]; then
            echo "$crate must not depend on $banned" >&2
            status=1
        fi
    done
}

for core in menes-protocol menes-jetstream menes-stations; do
    stays_out $core tokio rocksdb librocksdb-sys hyper rand socket2
done
stays_out menes-auth tokio rocksdb librocksdb-sys hyper socket2 menes-jetstream menes-broker
stays_out menes-storage tokio hyper
stays_out menes-ws rocksdb menes-jetstream menes-protocol
stays_out menes-protocol menes-jetstream menes-storage menes-broker
stays_out menes-jetstream menes-storage menes-stations menes-broker
stays_out menes-stations menes-storage menes-broker
stays_out menes-schemas tokio rocksdb hyper reqwest ureq socket2 menes-jetstream menes-stations menes-broker
[ $status = 0 ] && echo "dependency rules hold"
exit $status
