#!/usr/bin/env bash
# The nats command takes one message from a stream: stream, expected text.
source "$(dirname "$0")/../nats-cli/lib.sh"
nats consumer add "$1" nats-command --pull --defaults >/dev/null
expect "next" "$2" nats consumer next "$1" nats-command --count 1 --raw
# Single quotes: the header's name has a dollar sign.
grep -qF '$memphis_producedBy: round.trip' <<<"$(nats stream get "$1" 1)"
