#!/usr/bin/env bash
# What an operator does with `nats server` and a user with `nats account`. NATS_USER is a user of the
# system's account, `a` one of another account. Every command must succeed and show what it is asked
# for; figures differ from run to run, so the lines are not compared.
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# has LABEL PATTERN COMMAND...: runs it, expects success and a line that matches.
has() {
    local label=$1 pattern=$2 output
    shift 2
    if ! output=$("$@" 2>&1); then
        echo "$label failed: $output" >&2
        exit 1
    fi
    if ! grep -qE -- "$pattern" <<<"$output"; then
        echo "$label shows nothing like '$pattern': $output" >&2
        exit 1
    fi
    echo "$label: fine"
}

user() { NATS_USER=a NATS_PASSWORD=a nats "$@"; }

user stream add S --subjects 's.>' --defaults >/dev/null
user consumer add S C --pull --defaults >/dev/null
user pub s.1 hello --jetstream >/dev/null 2>&1
user kv add B >/dev/null
user kv put B k v >/dev/null
NATS_USER=a NATS_PASSWORD=a "$NATS_CLI" reply service 'yes' >/dev/null 2>&1 &
NATS_USER=a NATS_PASSWORD=a "$NATS_CLI" sub 'some.subject' >/dev/null 2>&1 &
for _ in $(seq 200); do
    user request service x --timeout 100ms --raw 2>/dev/null | grep -q yes && break
done

has ping 'one-of-these' nats server ping
has list 'one-of-these .* yes' nats server list
has info 'Server information for one-of-these' nats server info
has 'info by name' 'JetStream' nats server info one-of-these

has 'report connections' 'nats|NATS CLI' nats server report connections
has 'report connections of an account' 'A' nats server report connections --account A
has 'report accounts' '\bA\b' nats server report accounts
has 'report jetstream' 'one-of-these' nats server report jetstream
has 'report health' 'one-of-these' nats server report health
has 'report cpu' 'one-of-these' nats server report cpu
has 'report mem' 'one-of-these' nats server report mem
has 'report routes' 'Cluster Report' nats server report routes
has 'report gateways' 'Super Cluster Report' nats server report gateways
has 'report leafnodes' 'eafnode|No' nats server report leafnodes

has 'request variables' '"server_name": ?"one-of-these"' nats server request variables
has 'request connections' '"cid"' nats server request connections --sort start
has 'request connections of an account' '"authorized_user": ?"a"' nats server request connections --filter-account A
has 'request jetstream' '"stream_detail"' nats server request jetstream --streams
has 'request jetstream-health' '"status": ?"ok"' nats server request jetstream-health
has 'request accounts' '"system_account": ?"SYS"' nats server request accounts
has 'request one account' '"account_name": ?"A"' nats server request accounts --account A
has 'request subscriptions' 'some.subject' nats server request subscriptions --detail
has 'request routes' '"num_routes": ?0' nats server request routes
has 'request gateways' '"outbound_gateways"' nats server request gateways
has 'request leafnodes' '"leafnodes": ?0' nats server request leafnodes
has 'request ipqueue' 'server' nats server request ipqueue
has 'account info of another' '\bA\b' nats server account info A

has 'check connection' '^OK' nats server check connection
has 'check server' '^OK' nats server check server --name one-of-these --js-required
has 'check jetstream' '^OK' user server check jetstream
has 'check consumer' '^OK' user server check consumer --stream S --consumer C
has 'check message' '^OK' user server check message --stream S --subject s.1
has 'check request' '^OK' user server check request --subject service
has 'check kv' '^OK' user server check kv --bucket B --key k
has 'check in prometheus format' 'nats_server_check' nats server check server --name one-of-these --format prometheus

has 'account info' 'Account: A' user account info
has 'account report connections' 'NATS CLI' user account report connections
has 'account report statistics' 'zone:a, big' user account report statistics

id=$(nats server info --json one-of-these 2>/dev/null | sed -nE 's/.*"server_id": ?"(N[A-Z2-7]+)".*/\1/p' | head -1 || true)
if [ -z "$id" ]; then
    id=$(nats server request variables | sed -nE 's/.*"server_id": ?"(N[A-Z2-7]+)".*/\1/p' | head -1)
fi
has 'config reload' 'one-of-these|eload' nats server config reload "$id" --force
cid=$(nats server request connections --filter-account A | tr ',{' '\n\n' | sed -nE 's/.*"cid": ?([0-9]+).*/\1/p' | head -1)
has 'request kick' '.' nats server request kick "$cid" "$id"

has 'trace' 'some.subject|Client' user trace some.subject
has 'trace into a stream' 'S' user trace s.2
