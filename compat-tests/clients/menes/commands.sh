# The commands of `menes` for a running server; what they do is looked at with the `nats` command.
# shellcheck shell=bash
source "$(dirname "$0")/../nats-cli/lib.sh"

menes() { "$MENES" "$@"; }

# label, what was seen, what was expected
check() {
    echo "$1: $2"
    [ "$2" = "$3" ] || { echo "$1: saw '$2', expected '$3'" >&2; exit 1; }
}

# label, expected exit code, command
fails() {
    local label=$1 code=$2 seen=0 output
    shift 2
    output=$("$@" 2>&1 >/dev/null </dev/null) || seen=$?
    echo "$label: $seen ${output%%$'\n'*}"
    [ "$seen" = "$code" ] || { echo "$label: exit code $seen, expected $code: $output" >&2; exit 1; }
}

field() { python3 -c 'import json,sys; value=json.load(sys.stdin)
for key in sys.argv[1:]: value=value[int(key) if key.lstrip("-").isdigit() else key]
print(json.dumps(value) if isinstance(value,(dict,list,bool)) or value is None else value)' "$@"; }

# Stations
menes station create Orders --partitions 2 --max-messages 1000 >/dev/null
check "a stream for each partition" "$(nats stream info 'orders$2' --json | field config max_msgs)" 1000
menes station edit orders --max-age 3600 >/dev/null
check "changed" "$(nats stream info 'orders$1' --json | field config max_age)" 3600000000000
check "listed" "$(menes st ls -o json | field 0 name)" orders
grep -q '^orders  *2  *message_age_sec 3600' <<<"$(menes station ls)"
check "shown" "$(menes station show orders -o json | field partitions)" 2

# Messages
for n in 1 2 3; do menes produce orders "message $n" -H "kind:test $n" >/dev/null; done
echo "from a file" > "$SCENARIO_DIR/message"
grep -q '"partition":2' <<<"$(menes produce orders "@$SCENARIO_DIR/message" --partition 2 -o json)"
grep -q '2 messages stored' <<<"$(printf 'line 1\nline 2\n' | menes produce orders --lines)"
check "once" "$(menes produce orders x --partition 1 --id a -o json | field duplicate) $(menes produce orders x --partition 1 --id a -o json | field duplicate)" "false true"
stored=$(( $(nats stream info 'orders$1' --json | field state messages) + $(nats stream info 'orders$2' --json | field state messages) ))
check "all of them" "$stored" 7
check "from standard input" "$(printf body | menes produce fresh - -o json | field sequence)" 1
check "a station is made" "$(nats stream info 'fresh$1' --json | field state messages)" 1
check "taken" "$(menes consume orders --group billing --count 7 -o json | grep -c payload)" 7
check "acknowledged" "$(nats consumer info 'orders$2' billing --json | field num_ack_pending)" 0
check "nothing left" "$(menes consume orders --group billing --idle 300 -o json)" ""
grep -q '^partition 1 #1  4 B  body$' <<<"$(menes consume fresh --group g -n 1 2>/dev/null)"

# Groups
grep -q '^billing  *0  *0' <<<"$(menes group ls orders)"
menes group reset orders billing --start >/dev/null
check "reset" "$(menes group show orders billing -o json | field lag)" 7
check "one partition" "$(menes group reset orders billing --sequence 2 --partition 1 -o json | field sequences 0 sequence)" 2
menes group reset orders billing --end >/dev/null
menes group pause orders billing --for 60 >/dev/null
check "paused" "$(nats consumer info 'orders$1' billing --json | field paused)" true
menes group resume orders billing >/dev/null
menes group edit orders billing --deliveries -1 --backoff 100,200 >/dev/null
check "retry policy" "$(nats consumer info 'orders$1' billing --json | field config backoff)" "[100000000, 200000000]"
grep -q 'backoff, ms *\[100,200\]' <<<"$(menes group show orders billing)"
menes group rm orders billing --yes >/dev/null
fails "gone" 3 menes group show orders billing

# Schemas
menes schema create person --type json '{"type":"object","required":["f"]}' >/dev/null
menes schema attach person fresh >/dev/null
menes produce fresh '{"f":1}' >/dev/null
fails "refused" 1 menes produce fresh '{"g":1}'
grep -q 'Schema validation has failed' <<<"$(nats request 'fresh$1.final' 'no JSON' --raw)"
echo '{"required":[]}' > "$SCENARIO_DIR/person.json"
check "a version" "$(menes schema create person --type json "@$SCENARIO_DIR/person.json" --compatible -o json | field version)" 2
menes schema activate person 2 >/dev/null
menes produce fresh '{"g":1}' >/dev/null
grep -q '^-- version 2 (active)' <<<"$(menes schema show person)"
grep -q '^person  *json  *2  *2  *fresh' <<<"$(menes schema ls)"
menes schema detach fresh >/dev/null
menes schema rm person -y >/dev/null

# Dead letters
check "kept" "$(menes dls ls fresh -o json | field 0 kind)" schema
grep -q 'Schema validation has failed' <<<"$(menes dls ls fresh)"
check "searched" "$(menes dls ls fresh --search 'NO json' -o json | field 0 payload)" bm8gSlNPTg==
id=$(menes dls ls fresh --search 'no json' -o json | field 0 id)
grep -q '^payload *no JSON$' <<<"$(menes dls show "$id")"
grep -q '^2 dead letters' <<<"$(menes dls export fresh -f "$SCENARIO_DIR/letters")"
check "exported" "$(wc -l < "$SCENARIO_DIR/letters")" 2
before=$(nats stream info 'fresh$1' --json | field state messages)
menes dls edit "$id" '{"f":"mended"}' >/dev/null
check "published again" "$(nats stream info 'fresh$1' --json | field state messages)" $((before + 1))
fails "which" 2 menes dls drop fresh
fails "not asked" 2 menes dls drop fresh --all
menes dls drop fresh --all --yes >/dev/null
check "dropped" "$(menes dls ls fresh -o json)" "[]"

check "status" "$(menes status -o json | field stations)" 2
menes station purge fresh --yes >/dev/null
check "purged" "$(nats stream info 'fresh$1' --json | field state messages)" 0
menes station rm fresh --yes >/dev/null
fails "no such stream" 1 nats stream info 'fresh$1'

# Trouble
fails "no such station" 3 menes station show none
fails "there already" 6 menes station create orders
fails "no confirmation" 2 menes station rm orders
fails "no such command" 2 menes station frobnicate
fails "no such flag" 2 menes produce orders x --nonsense
fails "bad name" 2 menes produce 'a b' x
fails "no such file" 3 menes produce orders @/no/such/file
fails "wrong password" 4 menes station ls --password wrong
fails "nobody there" 5 menes station ls -s nats://127.0.0.1:1
fails "no such partition" 2 menes produce orders x --partition 9
fails "no such context" 3 menes station ls -C none
mkdir -p "$XDG_CONFIG_HOME/nats/context"
echo "{\"url\":\"$NATS_URL\",\"user\":\"$NATS_USER\",\"password\":\"$NATS_PASSWORD\"}" > "$XDG_CONFIG_HOME/nats/context/here.json"
check "a context of the nats command" "$(env -u NATS_URL -u NATS_USER -u NATS_PASSWORD "$MENES" station ls -C here -o json | field 0 name)" orders
