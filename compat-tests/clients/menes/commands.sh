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

# A request that the broker refuses.
nats_error() {
    local said
    said=$(nats request "$1" "$2" --raw)
    [[ $said != *'"error"'* ]]
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
grep -qE '^#1  [0-9:.]+  4 B  body$' <<<"$(menes consume fresh --group g -n 1 2>/dev/null)"
grep -qE '^partition [12] #[0-9]+  [0-9:.]+  ' <<<"$(menes consume orders --group columns -n 1 2>/dev/null)"
menes group rm orders columns -y >/dev/null

# The sessions of the documentation
said=$(menes produce shop '{"id": 1, "total": 9.5}' 2>&1)
check "a station is announced" "${said%%$'\n'*}" 'created station shop: 1 partition, on disk, 1 replica, keeps 7 days   (change: menes station edit shop)'
grep -qE '^shop #1  23 B  stored on 1 of 1 in [0-9]+\.[0-9] ms$' <<<"$said"
said=$(menes consume shop --group billing --idle 2000 2>&1)
grep -qE '^#1  [0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}  23 B  \{"id": 1, "total": 9\.5\}$' <<<"$said"
grep -qE '^waiting for (more|messages), Ctrl-C stops \(position is kept for group billing\)$' <<<"$said"
said=$(menes status)
grep -qE '^1 node, up · .* · version [0-9.]+$' <<<"$said"
check "what needs attention" "$(menes status -o json | field needs_attention)" "[]"
menes produce shop second >/dev/null
grep -qE '^  group    shop/billing        lag 1, no members +menes group show shop billing$' <<<"$(menes status)"

# Stations, closer
check "in a line" "$(menes station create tall --partitions 2 --max-bytes 1GiB --storage memory --id-window 5s)" 'created station tall: 2 partitions, in memory, 1 replica, keeps 1.0 GiB   (change: menes station edit tall)'
check "a window" "$(menes station show tall -o json | field idempotency_window_ms)" 5000
said=$(menes station rm tall --dry-run)
grep -q '^would remove stream tall$1$' <<<"$said"
grep -q '^nothing was done: --dry-run only shows$' <<<"$said"
check "steps" "$(menes station create other --dry-run -o json | field dry_run)" true
check "still there" "$(menes station show tall -o json | field name)" tall
fails "not made" 3 menes station show other
menes station rm tall -y >/dev/null
check "names" "$(menes station ls -o name | tr '\n' ' ')" "fresh orders shop "
check "rows" "$(menes station ls -o csv | head -1)" "STATION,PARTITIONS,RETENTION,STORAGE,SCHEMA,GROUPS"
check "a message" "$(menes station get shop 1 -o json | field sequence)" 1
fails "no such message" 3 menes station get shop 99
grep -qE '^#2  .*  second$' <<<"$(menes station find shop SECOND)"
check "found nothing" "$(menes station find shop nothing)" ""
check "as they come" "$(menes station tail shop --all -n 2 -o json 2>/dev/null | wc -l | tr -d ' ')" 2
check "nobody writes" "$(menes station producers shop -o json)" "[]"
check "quiet" "$(menes station edit shop --max-age 2d -q)" ""
check "two days" "$(menes station show shop -o json | field max_age_ms)" 172800000
check "members" "$(menes group members shop -o json | field 0 group)" billing
menes station rm shop -y >/dev/null

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
check "no difference" "$(menes schema diff person 2 2 | tail -1)" "no difference"
said=$(menes schema diff person 1)
grep -qE '^- +"f"$' <<<"$said"
grep -q '^compatible: ' <<<"$said"
check "the other way round" "$(menes schema diff person 2 1 -o json | field is_compatible)" false
check "with a definition" "$(menes schema diff person --with '{"type":"array"}' -o json | field is_same)" false
fails "no such version" 3 menes schema diff person 9
check "checked" "$(menes schema check person '{"g":1}')" "all of 1 keep the schema"
fails "of the first version" 1 menes schema check person '{"g":1}' --version 1
grep -q '^partition 1 #' <<<"$(menes schema check person --station fresh --version 1 2>/dev/null)"
check "which ones" "$(menes schema check person '{"f":1}' '{"g":1}' --version 1 -o json 2>/dev/null | field violations 0 from)" "message 2"
fails "nothing to check" 2 menes schema check person
fails "no type" 2 menes schema check --type xml --content '{}' '{}'
menes schema detach fresh >/dev/null
menes schema rm person -y >/dev/null

# Schemas without a server
printf '{"id":1,"tags":["a"]}\n{"id":2.5}\n' > "$SCENARIO_DIR/samples"
alone() { "$MENES" "$@" -s nats://127.0.0.1:1; }
check "inferred" "$(alone schema infer "@$SCENARIO_DIR/samples" 2>/dev/null | field required)" '["id"]'
alone schema infer "@$SCENARIO_DIR/samples" 2>/dev/null > "$SCENARIO_DIR/inferred.json"
check "and kept" "$(alone schema check --content "@$SCENARIO_DIR/inferred.json" "@$SCENARIO_DIR/samples")" "all of 2 keep the schema"
fails "or not" 1 "$MENES" schema check --content "@$SCENARIO_DIR/inferred.json" '{"tags":1}'
fails "no JSON" 1 "$MENES" schema infer hello
menes station create samples >/dev/null
for n in 1 2 3; do menes produce samples "{\"n\": $n, \"text\": \"$n\"}" >/dev/null; done
check "of a station" "$(menes schema infer --station samples -o json | field properties n type)" integer
check "the newest" "$(menes schema infer --station samples --last 1 -o json | field required)" '["n", "text"]'
menes station rm samples -y >/dev/null

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

menes schema create number --type json '{"type":"object","required":["n"],"properties":{"n":{"minimum":0}}}' >/dev/null
menes schema attach number fresh >/dev/null
fails "a violation" 1 menes produce fresh '{"n":-1}'
# It is kept behind the refusal.
for _ in {1..100}; do [ "$(menes dls ls fresh -o json)" != "[]" ] && break; sleep 0.1; done
said=$(menes dls ls fresh 2>&1)
id=$(menes dls ls fresh -o json | field 0 id)
grep -qE "^1 in all · resend all: menes dls resend fresh --all · look at one: menes dls show $id\$" <<<"$said"
menes dls edit "$id" --set /n=1 >/dev/null
fails "no place" 3 menes dls edit "$id" --set /n=1
check "mended" "$(menes dls ls fresh -o json)" "[]"
menes schema detach fresh >/dev/null
menes schema rm number -y >/dev/null

# A dead letter of a group, edited and sent to it: the session of the documentation
menes produce payments '{"id": 771, "amount": -4}' >/dev/null 2>&1
menes consume payments --group ledger -n 1 >/dev/null 2>&1
menes group edit payments ledger --ack-time 300 --deliveries 2 >/dev/null
menes produce payments '{"id": 772, "amount": -1}' >/dev/null
for _ in 1 2; do nats consumer next 'payments$1' ledger --no-ack --timeout 20s >/dev/null 2>&1; done
for _ in {1..200}; do [ "$(menes dls ls payments -o json)" != "[]" ] && break; sleep 0.1; done
said=$(menes dls ls payments 2>/dev/null)
grep -qE '^ID +WHEN +GROUP +TRIES +WHY +PAYLOAD$' <<<"$said"
grep -qE '^[0-9]+ +[0-9:.]+ +ledger +2 +not acknowledged in time +\{"id": 772, "amount": -1\}$' <<<"$said"
id=$(menes dls ls payments -o json | field 0 id)
"$NATS_CLI" sub '$memphis_dls_payments.ledger' --count 1 --raw > "$SCENARIO_DIR/resent" 2>/dev/null &
subscriber=$!
for _ in {1..100}; do
    check "an edit is announced" "$(menes dls edit "$id" --set /amount=1 --resend)" "sent again to group ledger as a copy (original stays until acknowledged)"
    for _ in {1..10}; do [ -s "$SCENARIO_DIR/resent" ] && break 2; sleep 0.1; done
done
wait "$subscriber"
check "what came" "$(cat "$SCENARIO_DIR/resent")" '{"amount":1,"id":772}'
check "it stays" "$(menes dls ls payments -o name)" "$id"

# Dead letters of every station
menes produce refunds '{"id": 1}' >/dev/null 2>&1
menes schema create refund --type json '{"required":["amount"]}' >/dev/null
menes schema attach refund refunds >/dev/null
fails "a violation" 1 menes produce refunds '{"id": 2}'
for _ in {1..100}; do [ "$(menes dls ls refunds -o json)" != "[]" ] && break; sleep 0.1; done
said=$(menes dls ls 2>&1)
grep -qE '^ID +STATION +WHEN +GROUP +TRIES +WHY +PAYLOAD$' <<<"$said"
grep -qE '^[0-9]+ +payments +[0-9:.]+ +ledger +2 +not acknowledged in time' <<<"$said"
grep -q '^2 in all · resend all: menes dls resend --all · look at one: menes dls show [0-9]*$' <<<"$said"
check "of one kind" "$(menes dls ls --kind schema -o json | field 0 station)" refunds
check "of one group" "$(menes dls ls --group ledger -o name)" "$id"
check "searched" "$(menes dls ls --search '"id": 2' -o json | field 0 station)" refunds
check "exported" "$(menes dls export | wc -l | tr -d ' ')" 2
check "resent, whatever the station" "$(menes dls resend --all -o json | field resent)" 1
fails "which" 2 menes dls resend
fails "which" 2 menes dls drop
fails "not asked" 2 menes dls drop --all
fails "everything by mistake" 1 nats_error '$MENES.API.DEAD_LETTER.DROP' '{}'
check "only those" "$(menes dls drop --all --kind schema --yes -o json | field dropped)" 1
check "the other stays" "$(menes dls ls -o name)" "$id"
check "dropped, whatever the station" "$(menes dls drop --all --yes -o json | field dropped)" 1
check "none" "$(menes dls ls -o json)" "[]"
menes station rm refunds --yes >/dev/null
menes schema rm refund -y >/dev/null
fails "a payload for many" 1 nats_error '$MENES.API.DEAD_LETTER.RESEND' '{"station":"payments","text":"x"}'
menes station rm payments --yes >/dev/null

# Other ways to print
check "YAML" "$(menes station show orders -o yaml | grep -c '^name: orders$')" 1
check "a list" "$(menes station ls -o yaml | grep -c '^- ')" "$(menes station ls -o name | wc -l | tr -d ' ')"
check "a stream of documents" "$(menes station tail orders --all -n 2 -o yaml | grep -c '^---$')" 2

# How fast: the session of the documentation, shorter
said=$(menes bench roundtrip --size 1KiB --clients 2 --for 1s)
grep -qE '^sent      [0-9,]+ messages   [0-9.]+( k)? msg/s   [0-9.]+ [KM]?i?B/s$' <<<"$said"
grep -qE '^latency   50 % [0-9.]+ ms · 99 % [0-9.]+ ms · 99\.9 % [0-9.]+ ms · max [0-9.]+ ms$' <<<"$said"
grep -qE '^stored on 1 of 1 before each acknowledgement · station bench-[0-9a-f]{8} removed$' <<<"$said"
check "so many" "$(menes bench produce --size 100 --clients 2 --count 300 -o json | field messages)" 300
check "produced" "$(menes bench produce --size 100 --clients 2 --in-flight 50 --for 1s -o json | field failures)" 0
check "consumed" "$(menes bench consume --count 2000 --clients 2 --storage memory -o json | field messages)" 2000
check "nothing is left" "$(menes station ls -o name | grep -c bench || true)" 0
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
check "did you mean" "$(menes staton ls 2>&1 || true)" 'menes: unknown command "staton", did you mean station? `menes help` lists them'
fails "bad name" 2 menes produce 'a b' x
fails "no such file" 3 menes produce orders @/no/such/file
fails "wrong password" 4 menes station ls --password wrong
fails "nobody there" 5 menes station ls -s nats://127.0.0.1:1
fails "no such partition" 2 menes produce orders x --partition 9
fails "no such context" 3 menes station ls -C none
mkdir -p "$XDG_CONFIG_HOME/nats/context"
echo "{\"url\":\"$NATS_URL\",\"user\":\"$NATS_USER\",\"password\":\"$NATS_PASSWORD\"}" > "$XDG_CONFIG_HOME/nats/context/here.json"
check "a context of the nats command" "$(env -u NATS_URL -u NATS_USER -u NATS_PASSWORD "$MENES" station ls -C here -o json | field 0 name)" orders

# Errors say what helps
said=$(menes station show none 2>&1 || true)
check "in two lines" "$said" $'error: station none does not exist  [E-API-MISSING]\n  fix: list what there is: menes station ls, menes group ls STATION, menes schema ls'
grep -q '^E-API-MISSING: what the request names does not exist$' <<<"$(menes explain e-api-missing)"
check "every code" "$(menes explain -o json | field 0 code)" E-API-BODY
fails "no such code" 3 menes explain E-NO-SUCH

# Health
grep -qE "^ready: .* at $NATS_URL\$" <<<"$(menes health --monitoring "$MONITORING_URL")"
check "live" "$(menes health --live -o json | field status)" live
fails "no server" 5 menes health -s nats://127.0.0.1:1 --timeout 2
fails "no monitoring" 5 menes health --monitoring http://127.0.0.1:1

# Contexts
bare() { env -u NATS_URL -u NATS_USER -u NATS_PASSWORD "$MENES" "$@"; }
bare context add shop --server "$NATS_URL" --user "$NATS_USER" --password "$NATS_PASSWORD" --select >/dev/null
check "for its owner alone" "$(stat -c %a "$XDG_CONFIG_HOME/nats/context/shop.json")" 600
check "used" "$(bare station ls -o name)" orders
check "not shown" "$(bare context show shop -o json | field password)" "(set)"
check "listed" "$(bare context ls -o name | tr '\n' ' ')" "here shop "
bare context use here >/dev/null
check "another" "$(bare context show -o json | field name)" here
check "tested" "$(bare context test shop -o json | field server)" "$(menes status -o json | field server)"
check "the nats command reads it" "$(env -u NATS_URL -u NATS_USER -u NATS_PASSWORD "$NATS_CLI" --context shop stream info 'orders$1' --json | field config name)" 'orders$1'
fails "unknown" 3 bare context use none
bare context rm shop --yes >/dev/null
fails "removed" 3 bare context show shop

# The commands of Memphis's own tool
ln -s "$MENES" "$SCENARIO_DIR/mem"
mem() { env -u NATS_URL -u NATS_USER -u NATS_PASSWORD "$SCENARIO_DIR/mem" "$@"; }
fails "no such user" 4 mem connect -u "$NATS_USER" -p wrong -s "nats://127.0.0.1:$MEMPHIS_PORT"
mem connect -u "$NATS_USER" -p "$NATS_PASSWORD" -s "nats://127.0.0.1:$MEMPHIS_PORT" 2>/dev/null
mem station create old -rt messages -rv 7 -s memory -pmdls true -sfdls false >/dev/null
check "as it was asked for" "$(nats stream info 'old$1' --json | field config max_msgs)" 7
check "switches" "$(menes station show old -o json | field dead_letters)" '{"poison": true, "schemaverse": false}'
grep -q '^name  *old$' <<<"$(mem station info old)"
check "nobody" "$(mem producer ls -s old -o json)" "[]"
check "no member" "$(mem consumer ls -s old -o json)" "[]"
menes consume orders --group measured -n 1 >/dev/null 2>&1
check "of every station" "$(mem producer ls -o json) $(mem consumer ls -o json | field 0 station)" "[] orders"
menes group rm orders measured -y >/dev/null
check "measured" "$(mem bench producer --message-size 128 --count 50 --concurrency 2 --sync-produce -o json | field messages)" 50
check "measured" "$(mem benchmark consume --count 50 -o json | field messages)" 50
mem station del old >/dev/null
fails "deleted" 3 mem station info old
check "what it lacked" "$(mem dls ls orders -o json)" "[]"
fails "gone" 1 mem init
fails "no such command" 2 mem frobnicate
check "and after menes" "$(menes mem station ls -o name | head -1)" orders

# Users, tokens and tenants
check "a user" "$(menes user add Billing --read 'orders.*' --write invoices --new-password 'Secret-1!' -o json | field permissions allow_read)" '["orders.*"]'
fails "a user that is there" 6 menes user add billing --new-password 'Secret-1!'
fails "a weak password" 1 menes user add weak --new-password password
fails "nobody" 3 menes user show nobody
fails "a user of the configuration" 4 menes user rm "$NATS_USER" --yes
grep -q "^billing  *application  *stored  *orders\.\*  *invoices" <<<"$(menes user ls)"
grep -q "^$NATS_USER  *root  *configuration" <<<"$(menes user ls)"
token=$(menes token create billing --description ci 2>/dev/null)
check "by token" "$(NATS_USER='' NATS_PASSWORD='' nats --token "$token" pub 'invoices$1.final' x 2>&1 | grep -c Published)" 1
check "not as an application" "$(NATS_USER=billing NATS_PASSWORD='Secret-1!' nats req '$MENES.API.USER.LIST' '' --timeout 1s 2>&1 | grep -c '"users"')" 0
menes user edit billing --all-stations --description "sends bills" >/dev/null
check "changed" "$(menes user show billing -o json | field permissions allow_read) $(menes user show billing -o json | field description)" "[] sends bills"
made=$(menes user passwd billing -o json | field password)
check "with the new password" "$(NATS_USER=billing NATS_PASSWORD="$made" nats pub any x 2>&1 | grep -c Published)" 1
id=$(menes token ls billing -o json | field 0 id)
menes token rm billing "$id" --yes >/dev/null
check "no token" "$(menes token ls billing -o json)" "[]"
fails "without being sure" 2 menes user rm billing
menes user rm billing --yes >/dev/null
fails "gone" 3 menes user show billing
check "a tenant" "$(menes tenant add acme -o json | field id)" 2
menes user add boss --type management --tenant acme --new-password 'Secret-1!' >/dev/null
check "its users" "$(menes user ls --tenant acme -o json | field 0 name)" boss
check "who is root" "$(NATS_USER='boss$acme' NATS_PASSWORD='Secret-1!' menes station ls -o json)" "[]"
NATS_USER='boss$acme' NATS_PASSWORD='Secret-1!' fails "not root" 4 menes tenant ls
menes tenant rm acme --yes >/dev/null
check "tenants" "$(menes tenant ls -o json | field 0 name)" '$memphis'
