#!/usr/bin/env bash
# Streams and consumers with the `nats` command.
source "$(dirname "$0")/lib.sh"

show "add" nats stream add ORDERS --subjects 'orders.>' --defaults
show "add work queue" nats stream add WORK --subjects 'work.*' --storage memory --retention work \
    --max-msgs 10 --discard new --max-age 1h --dupe-window 1m --defaults --json
refused "add again with other subjects" nats stream add ORDERS --subjects 'other' --defaults
show "publish" nats pub orders.new first -H Key:value --jetstream
nats pub orders.new 'order {{Count}}' --count 5 --quiet
show "info" nats stream info ORDERS
show "list" nats stream ls --names
show "get" nats stream get ORDERS 1
show "get the last of a subject" nats stream get ORDERS --last-for orders.new
show "subjects" nats stream subjects ORDERS
# It shows the changes in a form that differs from run to run.
nats stream edit ORDERS --max-msgs 100 --description "all orders" --force >/dev/null
show "edited" nats stream info ORDERS --json
refused "info of a missing stream" nats stream info NONE --no-select
nats stream rm WORK --force
show "report" nats stream report
show "state" nats stream state ORDERS
nats stream rmm ORDERS 2 --force
show "gaps" nats stream gaps ORDERS --force --json

show "add consumer" nats consumer add ORDERS worker --pull --filter orders.new --max-deliver 5 --defaults
show "consumer info" nats consumer info ORDERS worker --json
show "consumer list" nats consumer ls ORDERS --names
show "next" nats consumer next ORDERS worker --count 2
expect "next raw" "order 3" nats consumer next ORDERS worker --count 1 --raw
show "consumer after three" nats consumer info ORDERS worker
show "add push consumer" nats consumer add ORDERS pusher --target deliver.orders --deliver last --ack none --replay instant --defaults
show "consumer report" nats consumer report ORDERS
nats consumer rm ORDERS pusher --force
refused "missing consumer" nats consumer info ORDERS pusher --no-select
stored=$'first\norder 2\norder 3\norder 4\norder 5'
expect "subscribe to a stream" "$stored" nats sub --stream ORDERS --all --terminate-at-end --raw
expect "subscribe by direct get" first first_line nats sub --stream ORDERS --all --direct --count 3 --raw

show "purge a subject" nats stream purge ORDERS --subject orders.new --keep 1 --force
show "purge" nats stream purge ORDERS --force
nats bench js pub sync orders.bench --stream ORDERS --msgs 200 --no-progress >"$SCENARIO_DIR/bench.log" 2>&1
nats bench js pub async orders.bench --stream ORDERS --msgs 2000 --no-progress >>"$SCENARIO_DIR/bench.log" 2>&1
[ "$(grep -c "msgs/sec" "$SCENARIO_DIR/bench.log")" -ge 2 ]
# The consumer of a subscriber that left goes after five seconds, which a slow disk may take.
messages() { nats stream state ORDERS | grep -v "Active Consumers"; }
show "limit holds" messages
nats server check jetstream >/dev/null
nats server check stream --stream ORDERS >/dev/null
nats stream rm ORDERS --force
show "no streams" nats stream ls --names
