#!/usr/bin/env bash
# Prepares the released clients that compat-tests run against the server.
#
# Everything lands in one cache folder, in folders named after the content of their lock files, so
# a second run has nothing to do and two checkouts share what they have in common:
#
#   python-<hash>   nats-py, memphis-py, and nats-server for comparisons (requirements.txt)
#   node-<hash>     the nats.js packages, memphis-dev, esbuild, playwright-core (package-lock.json)
#   go-<hash>       the `nats` command (nats-go/go.sum)
#   rust-<hash>     the program with the Memphis SDK for Rust (memphis-rust), which is older than the
#                   workspace and so built beside it; rust-build keeps what it is built from
#
# The importer is tested against a real Postgres, from the package of the system.
#
#   scripts/setup-clients.sh           prepare what is missing
#   scripts/setup-clients.sh --paths   only print where things are, as name=path; fails with one
#                                      line if something is missing
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
clients=$root/compat-tests/clients
cache=${MENES_CACHE:-$HOME/.cache/menes}/clients

hash_of() { cat "$@" | sha256sum | cut -c1-12; }

python_home=$cache/python-$(hash_of "$clients/requirements.txt")
node_home=$cache/node-$(hash_of "$clients/package.json" "$clients/package-lock.json")
go_home=$cache/go-$(hash_of "$clients/nats-go/go.mod" "$clients/nats-go/go.sum")
rust_home=$cache/rust-$(hash_of "$clients"/memphis-rust/{Cargo.toml,Cargo.lock,src/main.rs})
chromium=${CHROMIUM:-/usr/bin/chromium}

fail() {
    echo "$*" >&2
    exit 1
}

missing_packages() {
    command -v python3 >/dev/null || echo python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    command -v node >/dev/null || echo nodejs
    command -v npm >/dev/null || echo npm
    [ -x "$chromium" ] || echo chromium
    [ -n "$(postgres_folder)" ] || echo postgresql
}

# The folder of initdb and postgres, which Debian keeps out of the path.
postgres_folder() {
    local found
    found=$(command -v initdb || compgen -G "/usr/lib/postgresql/*/bin/initdb" | sort -V | tail -1) || true
    [ -z "$found" ] || dirname "$(readlink -f "$found")"
}

is_ready() { [ -e "$1/.ready" ]; }

print_paths() {
    local packages
    packages=$(missing_packages | tr '\n' ' ')
    local home
    for home in "$python_home" "$node_home" "$go_home" "$rust_home"; do
        [ -z "$packages" ] && is_ready "$home" ||
            fail "the clients for compat-tests are not prepared: run \`make clients\` (or scripts/setup-clients.sh)"
    done
    link_node_modules
    echo "python=$python_home/bin/python"
    echo "nats_server=$python_home/bin/nats-server"
    echo "node=$(command -v node)"
    echo "nats=$go_home/nats"
    echo "go=$(command -v go)"
    echo "memphis_rust=$rust_home/memphis-rust"
    echo "chromium=$chromium"
    echo "postgres=$(postgres_folder)"
}

# Node looks for packages in the folders above a script; one link serves all Node clients.
link_node_modules() {
    [ "$(readlink "$clients/node_modules" 2>/dev/null)" = "$node_home/node_modules" ] && return
    ln -sfn "$node_home/node_modules" "$clients/node_modules"
}

install_packages() {
    local packages
    packages=$(missing_packages | tr '\n' ' ')
    [ -n "$packages" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "these packages are missing: sudo apt-get install -y $packages"
    fi
    echo "installing $packages" >&2
    apt-get update -qq
    # shellcheck disable=SC2086 # one word per package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >&2
}

require_go() {
    command -v go >/dev/null ||
        fail "Go is missing, the \`nats\` command and nats.go need it: https://go.dev/dl (1.26 or newer)"
}

# Builds one of the folders in a scratch folder and moves it into place, so that an interrupted run
# leaves nothing that looks finished.
prepare() {
    local home=$1 what=$2 build=$3
    is_ready "$home" && return
    echo "preparing $what" >&2
    rm -rf "$home"
    mkdir -p "$home"
    "$build" "$home" || fail "preparing $what failed"
    touch "$home/.ready"
}

build_python() {
    # A virtual environment holds absolute paths: it is made where it stays.
    python3 -m venv "$1" &&
        "$1/bin/pip" install --quiet --disable-pip-version-check --require-hashes \
            -r "$clients/requirements.txt" &&
        "$1/bin/python" -c 'import memphis, nats'
}

build_node() {
    cp "$clients/package.json" "$clients/package-lock.json" "$1" &&
        # No package here needs its install script.
        (cd "$1" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error >&2)
}

build_go() {
    (cd "$clients/nats-go" && go build -mod=readonly -o "$1/nats" github.com/nats-io/natscli/nats)
}

build_rust() {
    (cd "$clients/memphis-rust" && cargo build --quiet --locked --target-dir "$cache/rust-build") &&
        cp "$cache/rust-build/debug/memphis-rust" "$1/"
}

if [ "${1:-}" = --paths ]; then
    print_paths
    exit 0
fi

install_packages
require_go
mkdir -p "$cache"
# Two checkouts may be set up at once; the second waits and then finds everything done.
exec 9>"$cache/.lock"
flock 9
prepare "$python_home" "the Python clients" build_python
prepare "$node_home" "the Node clients" build_node
prepare "$go_home" "the nats command" build_go
prepare "$rust_home" "the Rust client" build_rust
print_paths
