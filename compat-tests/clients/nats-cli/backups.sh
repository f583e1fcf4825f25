#!/usr/bin/env bash
# Streams out to files and back with the `nats` command.
source "$(dirname "$0")/lib.sh"

nats stream add S --subjects "s.>" --defaults >/dev/null
nats consumer add S C --pull --ack explicit --defaults >/dev/null
for n in $(seq 20); do
    nats pub "s.$((n % 3))" "message $n" -H "Own: $n" >/dev/null 2>&1
done
nats consumer next S C --count 4 --ack >/dev/null 2>&1
nats stream rmm S 7 -f >/dev/null
nats stream rmm S 20 -f >/dev/null

folder="$SCENARIO_DIR/backup"
nats stream backup S "$folder" >/dev/null 2>&1
test -s "$folder/stream.tar.s2"
echo "backup: done"
refused "restore over itself" nats stream restore "$folder" --no-progress
nats stream rm S -f >/dev/null
nats stream restore "$folder" --no-progress >/dev/null 2>&1
state() {
    nats request "\$JS.API.STREAM.INFO.$1" "" --raw | grep -o '"state":{[^}]*}' | sed -E 's/"bytes":[0-9]+,//'
}
show "state" state S
content() {
    local seq
    for seq in $(seq "$2"); do
        nats request "\$JS.API.STREAM.MSG.GET.$1" "{\"seq\":$seq}" --raw
        echo
    done
}
show "content" content S 20
show "consumer" nats consumer next S C --count 2 --ack --raw
expect "it goes on" '{"stream":"S","seq":21}' nats request s.new "" --raw

# One of many pieces.
nats stream add BIG --subjects "big.>" --defaults >/dev/null
head -c 400000 /dev/urandom | base64 -w0 >"$SCENARIO_DIR/large"
for n in 1 2 3; do nats pub "big.$n" --force-stdin <"$SCENARIO_DIR/large" >/dev/null 2>&1; done
nats stream backup BIG "$SCENARIO_DIR/big" --no-progress >/dev/null 2>&1
nats stream rm BIG -f >/dev/null
nats stream restore "$SCENARIO_DIR/big" --no-progress >/dev/null 2>&1
show "big" state BIG
nats stream get BIG 3 >"$SCENARIO_DIR/got"
grep -qf "$SCENARIO_DIR/large" "$SCENARIO_DIR/got" && echo "big: whole"

# Damage is noticed.
nats stream rm S -f >/dev/null
printf 'x' | dd of="$folder/stream.tar.s2" bs=1 seek=200 conv=notrunc 2>/dev/null
if nats stream restore "$folder" --no-progress >/dev/null 2>&1; then
    echo "a damaged backup was restored" >&2
    exit 1
fi
echo "damage: refused"
show "nothing is left" nats stream ls --names
