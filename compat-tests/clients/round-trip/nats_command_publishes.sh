#!/usr/bin/env bash
# The nats command publishes to a station's stream subject: subject, text.
source "$(dirname "$0")/../nats-cli/lib.sh"
show "publish" nats pub "$1" "$2" --jetstream
