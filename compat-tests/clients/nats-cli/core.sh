#!/usr/bin/env bash
# Core NATS with the `nats` command: publish, subscribe, request, reply, bench.
source "$(dirname "$0")/lib.sh"

refused "wrong password" nats --password wrong pub s x
show "publish" nats pub s hello -H Key:value

# There is no event for "subscribed": publish until the subscriber has its message and ends.
"$NATS_CLI" sub 'news.*' --count 1 --raw >"$SCENARIO_DIR/subscribed" 2>"$SCENARIO_DIR/subscriber.log" &
subscriber=$!
while kill -0 $subscriber 2>/dev/null; do nats pub news.today hello --quiet; done
wait $subscriber
expect "subscribed" hello cat "$SCENARIO_DIR/subscribed"

show "nobody replies" nats request nobody hello --raw --timeout 2s
"$NATS_CLI" reply service 'reply to {{Request}}' >"$SCENARIO_DIR/replier.log" 2>&1 &
until nats request service hello --raw >"$SCENARIO_DIR/reply" 2>/dev/null && grep -q hello "$SCENARIO_DIR/reply"; do :; done
expect "reply" "reply to hello" cat "$SCENARIO_DIR/reply"

show "account" nats account info
show "round trip time" nats rtt
nats server check connection >/dev/null
nats bench pub bench --msgs 20000 --size 64 --no-progress >"$SCENARIO_DIR/bench.log" 2>&1
grep -q "msgs/sec" "$SCENARIO_DIR/bench.log"
echo "bench: done"
