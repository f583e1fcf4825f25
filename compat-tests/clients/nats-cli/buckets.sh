#!/usr/bin/env bash
# Key/value and object buckets with the `nats` command.
source "$(dirname "$0")/lib.sh"

show "kv add" nats kv add BUCKET --history 5 --description "for tests"
expect "kv put" 1 nats kv put BUCKET key 1
expect "kv put again" 2 nats kv put BUCKET key 2
expect "kv get" 2 nats kv get BUCKET key --raw
show "kv get shown" nats kv get BUCKET key --revision 1
expect "kv update" 3 nats kv update BUCKET key 3 2
refused "kv stale update" nats kv update BUCKET key 4 2
expect "kv create" new nats kv create BUCKET other new
refused "kv create again" nats kv create BUCKET other no
show "kv keys" nats kv ls BUCKET
show "kv history" nats kv history BUCKET key
nats kv del BUCKET other --force >/dev/null
refused "kv deleted" nats kv get BUCKET other
show "kv info" nats kv info BUCKET

# The watcher prints the state it finds; it ends when killed.
"$NATS_CLI" kv watch BUCKET key >"$SCENARIO_DIR/watched" 2>&1 &
watcher=$!
until grep -q "BUCKET > key: 3" "$SCENARIO_DIR/watched"; do sleep 0.01; done
nats kv put BUCKET key watched >/dev/null
until grep -q "BUCKET > key: watched" "$SCENARIO_DIR/watched"; do sleep 0.01; done
kill $watcher
echo "kv watch: seen"
nats kv purge BUCKET key --force >/dev/null
show "kv after purge" nats kv history BUCKET key
nats kv rm BUCKET --force
refused "kv missing bucket" nats kv get BUCKET key

head -c 1000000 /dev/zero | tr '\0' 'x' >"$SCENARIO_DIR/large"
show "object add" nats object add FILES
show "object put" nats object put FILES "$SCENARIO_DIR/large" --name large --no-progress --force
nats object get FILES large --output "$SCENARIO_DIR/copy" --no-progress --force >/dev/null
cmp "$SCENARIO_DIR/large" "$SCENARIO_DIR/copy"
echo "object get: the same"
show "object info" nats object info FILES large
show "object list" nats object ls FILES
nats object rm FILES large --force >/dev/null
refused "object deleted" nats object get FILES large --output "$SCENARIO_DIR/gone" --no-progress --force
nats object rm FILES --force >/dev/null
