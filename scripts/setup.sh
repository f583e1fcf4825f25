#!/usr/bin/env bash
# Prepares a machine for building Menes. Quick when everything is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=$(scripts/doctor.sh --packages)
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $(echo $packages)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086
    apt-get install -y -qq $packages >/dev/null
fi
scripts/doctor.sh

folder=$(scripts/rocksdb-cache.sh)

# Plain cargo finds the archive too.
mkdir -p .cargo
config="[env]
ROCKSDB_LIB_DIR = \"$folder\"
ROCKSDB_STATIC = \"1\""
if [ "$(cat .cargo/config.toml 2>/dev/null)" != "$config" ]; then
    echo "$config" >.cargo/config.toml
fi
