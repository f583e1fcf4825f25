#!/usr/bin/env bash
# Accounts with the `nats` command: a subscription and a request from one account into another.
source "$(dirname "$0")/lib.sh"

b() { nats --user b --password b "$@"; }

"$NATS_CLI" --user b --password b sub 'from.a.news.*' --count 1 --raw >"$SCENARIO_DIR/subscribed" 2>"$SCENARIO_DIR/subscriber.log" &
subscriber=$!
while kill -0 $subscriber 2>/dev/null; do nats pub news.today hello --quiet; done
wait $subscriber
expect "a stream of another account" hello cat "$SCENARIO_DIR/subscribed"

"$NATS_CLI" reply 'svc.*' 'reply to {{Request}}' >"$SCENARIO_DIR/replier.log" 2>&1 &
until b request ask.me hello --raw >"$SCENARIO_DIR/reply" 2>/dev/null && grep -q hello "$SCENARIO_DIR/reply"; do :; done
expect "a service of another account" "reply to hello" cat "$SCENARIO_DIR/reply"

show "an account" b account info
show "accounts" nats --user sys --password sys server report accounts
