# What every `nats` scenario shares. Prints what the command printed, with times, ids, addresses and
# durations replaced by their kind, so that the lines of two servers can be compared.
# shellcheck shell=bash
set -euo pipefail
export NO_COLOR=1 COLUMNS=120 LC_ALL=C.UTF-8

# NATS_URL, NATS_USER and NATS_PASSWORD are the command's own variables.
# In the background start "$NATS_CLI" itself: killing a function there kills a shell, not the command.
nats() { "$NATS_CLI" "$@"; }
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

normalise() {
    sed -E \
        -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:]{8}(\.[0-9]+)?(Z| \+0000 UTC)?/<time>/g' \
        -e 's/^[0-9]{2}:[0-9]{2}:[0-9]{2} /<time> /' \
        -e 's/\[[0-9]{2}:[0-9]{2}:[0-9]{2}\]/[<time>]/g' \
        -e 's/\b[0-9.]+(ns|µs|us|ms)\b/<duration>/g' \
        -e 's/\bin [0-9.]+s\b/in <duration>/' \
        -e 's/\b[0-9.]+s ago/<duration> ago/' \
        -e 's/\([0-9.]+s\)/(<duration>)/' \
        -e 's/\bN[A-Z2-7]{55}\b/<server>/g' \
        -e 's/127\.0\.0\.1:[0-9]+/<address>/g' \
        -e 's/(Client ID: )[0-9]+/\1<number>/' \
        -e 's/(Version: )[0-9a-z.-]+/\1<version>/' \
        -e 's/("_nats.ver": )"[^"]*"/\1"<version>"/' \
        -e 's/("_nats.level": )"[^"]*"/\1"<level>"/' -e 's/(hosted at level )[0-9]+/\1<level>/' \
        -e "s#${SCENARIO_DIR}#<folder>#g" \
        -e 's/_INBOX\.[A-Za-z0-9.]+/<inbox>/g' \
        -e 's/[─━]+/─/g' -e 's/ +/ /g' -e 's/ +$//'
}

# Tables are as wide as their widest cell, so spaces and rules are squeezed; a line never is.
print() { normalise | sed "s/^/$1> /"; }

# The first line of a command's output.
first_line() {
    local output
    output=$("$@") && echo "${output%%$'\n'*}"
}

# show LABEL COMMAND...: runs it, expects success, prints its output.
show() {
    local label=$1 output
    shift
    if ! output=$("$@" 2>&1); then
        echo "$label failed: $output" >&2
        exit 1
    fi
    print "$label" <<<"$output"
}

# refused LABEL COMMAND...: runs it, expects failure, prints what it said.
refused() {
    local label=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "$label succeeded: $output" >&2
        exit 1
    fi
    print "$label" <<<"$output"
}

# expect LABEL EXPECTED COMMAND...: runs it and compares its output.
expect() {
    local label=$1 expected=$2 output
    shift 2
    output=$("$@")
    if [ "$output" != "$expected" ]; then
        echo "$label: saw '$output', expected '$expected'" >&2
        exit 1
    fi
    echo "$label: $output"
}
