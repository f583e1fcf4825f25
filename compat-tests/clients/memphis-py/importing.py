"""Taking over a Memphis: a real Postgres with its tables, and a JetStream folder that a real
nats-server wrote, with streams and consumers as Memphis named them."""

import getpass
import glob
import json
import os
import shutil
import signal
import subprocess
import tempfile

import nats
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig
from scenario import ask, check, check_error, connect, eventually, note, plain, run, texts

FOLDER = os.environ["SCENARIO_DIR"]
POSTGRES = os.environ["POSTGRES"]
MENES = os.environ["MENES"]
STORE = os.path.join(FOLDER, "memphis-store")
ACCOUNT = "$memphis"

# Written from the description of the tables, not from Memphis.
TABLES = """
CREATE TYPE schema_kind AS ENUM ('json', 'graphql', 'protobuf', 'avro');
CREATE TABLE tenants (id SERIAL PRIMARY KEY, name VARCHAR UNIQUE, internal_ws_pass VARCHAR);
CREATE TABLE users (id SERIAL PRIMARY KEY, username VARCHAR, password TEXT, type VARCHAR, created_at TIMESTAMPTZ DEFAULT now(),
  roles INTEGER[] DEFAULT '{}', tenant_name VARCHAR DEFAULT '$memphis', UNIQUE (username, tenant_name));
CREATE TABLE roles (id SERIAL PRIMARY KEY, name VARCHAR, type VARCHAR, tenant_name VARCHAR DEFAULT '$memphis');
CREATE TABLE permissions (id SERIAL PRIMARY KEY, role_id INTEGER, pattern VARCHAR, type VARCHAR, restriction_type VARCHAR,
  tenant_name VARCHAR DEFAULT '$memphis');
CREATE TABLE stations (id SERIAL PRIMARY KEY, name VARCHAR, retention_type VARCHAR, retention_value INTEGER, storage_type VARCHAR,
  replicas INTEGER, created_by INTEGER, created_by_username VARCHAR, created_at TIMESTAMPTZ DEFAULT now(), updated_at TIMESTAMPTZ DEFAULT now(),
  is_deleted BOOL DEFAULT false, schema_name VARCHAR, schema_version_number INTEGER, idempotency_window_ms INTEGER, is_native BOOL DEFAULT true,
  dls_configuration_poison BOOL DEFAULT true, dls_configuration_schemaverse BOOL DEFAULT true, tiered_storage_enabled BOOL DEFAULT false,
  resend_disabled BOOL DEFAULT false, partitions INTEGER[], version INTEGER DEFAULT 2, dls_station VARCHAR DEFAULT '',
  functions_lock_held BOOL DEFAULT false, functions_locked_at TIMESTAMPTZ, tenant_name VARCHAR DEFAULT '$memphis');
CREATE TABLE producers (id SERIAL PRIMARY KEY, name VARCHAR, station_id INTEGER, type VARCHAR, connection_id VARCHAR, is_active BOOL,
  updated_at TIMESTAMPTZ DEFAULT now(), partitions INTEGER[], version INTEGER, sdk VARCHAR, app_id VARCHAR, tenant_name VARCHAR DEFAULT '$memphis');
CREATE TABLE consumers (id SERIAL PRIMARY KEY, name VARCHAR, station_id INTEGER, type VARCHAR, connection_id VARCHAR, is_active BOOL,
  updated_at TIMESTAMPTZ DEFAULT now(), partitions INTEGER[], version INTEGER, sdk VARCHAR, app_id VARCHAR, consumers_group VARCHAR,
  max_ack_time_ms INTEGER, max_msg_deliveries INTEGER, start_consume_from_seq INTEGER, last_msgs INTEGER, tenant_name VARCHAR DEFAULT '$memphis');
CREATE TABLE schemas (id SERIAL PRIMARY KEY, name VARCHAR, type schema_kind, created_by_username VARCHAR, tenant_name VARCHAR DEFAULT '$memphis');
CREATE TABLE schema_versions (id SERIAL PRIMARY KEY, version_number INTEGER, active BOOL, created_by INTEGER, created_by_username VARCHAR,
  created_at TIMESTAMPTZ DEFAULT now(), schema_content TEXT, schema_id INTEGER, msg_struct_name VARCHAR DEFAULT '', descriptor BYTEA,
  tenant_name VARCHAR DEFAULT '$memphis');
CREATE TABLE dls_messages (id SERIAL PRIMARY KEY, station_id INTEGER, message_seq INTEGER, poisoned_cgs VARCHAR[], message_details JSON,
  updated_at TIMESTAMPTZ DEFAULT now(), message_type VARCHAR, validation_error VARCHAR DEFAULT '', producer_name VARCHAR,
  partition_number INTEGER, attached_function_id INTEGER, tenant_name VARCHAR DEFAULT '$memphis');
CREATE TABLE tags (id SERIAL PRIMARY KEY, name VARCHAR, color VARCHAR, users INTEGER[], stations INTEGER[], schemas INTEGER[],
  tenant_name VARCHAR DEFAULT '$memphis');
CREATE TABLE configurations (id SERIAL PRIMARY KEY, key VARCHAR, value TEXT, tenant_name VARCHAR DEFAULT '$memphis');
CREATE TABLE audit_logs (id SERIAL PRIMARY KEY, station_name VARCHAR, message TEXT, tenant_name VARCHAR DEFAULT '$memphis');
CREATE TABLE async_tasks (id SERIAL PRIMARY KEY, name VARCHAR, tenant_name VARCHAR DEFAULT '$memphis');
"""
FIRST = '{"type":"object","properties":{"id":{"type":"integer"}}}'
SECOND = '{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"]}'
ROWS = f"""
INSERT INTO stations (id, name, retention_type, retention_value, storage_type, replicas, schema_name, schema_version_number, idempotency_window_ms, partitions, dls_station)
  VALUES (1, 'orders', 'message_age_sec', 604800, 'file', 3, 'order', 1, 120000, '{{1,2}}', 'graveyard'),
         (2, 'my.queue', 'ack_based', 0, 'file', 1, '', 0, 120000, '{{1}}', ''),
         (3, 'graveyard', 'messages', 1000, 'file', 1, NULL, NULL, 120000, '{{1}}', ''),
         (4, 'going', 'messages', 10, 'file', 1, '', 0, 120000, '{{1}}', '');
UPDATE stations SET is_deleted = true WHERE id = 4;
INSERT INTO stations (id, name, retention_type, retention_value, storage_type, replicas, idempotency_window_ms, version) VALUES (5, 'legacy.in', 'messages', 100, 'file', 1, 120000, 0);
INSERT INTO stations (id, name, retention_type, retention_value, storage_type, replicas, idempotency_window_ms, partitions, tenant_name)
  VALUES (6, 'theirs', 'messages', 100, 'file', 1, 120000, '{{1}}', 'acme');
INSERT INTO consumers (name, station_id, type, connection_id, is_active, consumers_group, max_ack_time_ms, max_msg_deliveries, start_consume_from_seq, last_msgs)
  VALUES ('a', 1, 'application', 'c1', false, 'grp.one', 30000, 10, 1, -1), ('b', 1, 'application', 'c2', false, 'grp.one', 30000, 10, 1, -1),
         ('w', 2, 'application', 'c3', false, 'workers', 5000, 3, 1, -1);
INSERT INTO schemas (id, name, type) VALUES (1, 'order', 'json');
INSERT INTO schema_versions (version_number, active, schema_content, schema_id, descriptor) VALUES (1, false, '{FIRST}', 1, '\\x00ff'), (2, true, '{SECOND}', 1, '');
INSERT INTO dls_messages (id, station_id, message_seq, poisoned_cgs, message_details, message_type, validation_error, partition_number) VALUES
  (7, 1, 9, '{{grp.one,other}}', '{{"time_sent":"2024-05-01T10:00:00.5Z","size":5,"data":"706f69736f6e","headers":{{"$memphis_producedBy":"p","k":"v"}}}}', 'poison', '', 1),
  (8, 1, 0, '{{}}', '{{"time_sent":"2024-05-01T10:00:01Z","size":3,"data":"7b7d","headers":{{}}}}', 'schema', 'id is missing', 1);
INSERT INTO users (username, password, type) VALUES ('root', '$2a$04$abcdefghijklmnopqrstuu', 'root');
INSERT INTO configurations (key, value) VALUES ('dls_retention', '24'), ('logs_retention', '7');
INSERT INTO audit_logs (station_name, message) VALUES ('orders', 'made'), ('orders', 'changed');
INSERT INTO tags (name, color, stations) VALUES ('t', '0, 0, 0', '{{1}}');
"""
# What Memphis's brokers would have as ENCRYPTION_SECRET_KEY, and another.
KEY, OTHER_KEY = "an example of thirty-two letters", "another one of thirty-two letters"[:32]
PASSWORDS = {"shop": "Secret-1!", "plain": "weak"}


def sealed(password, key=KEY):
    """A password as Memphis kept it: AES-GCM by another implementation than that of the server."""
    script = '''const crypto = require("crypto"), [key, text] = process.argv.slice(1), nonce = crypto.randomBytes(12);
const cipher = crypto.createCipheriv("aes-256-gcm", key, nonce);
console.log(Buffer.concat([nonce, cipher.update(text), cipher.final(), cipher.getAuthTag()]).toString("hex"))'''
    return subprocess.run([os.environ["NODE"], "-e", script, key, password], check=True, capture_output=True, text=True).stdout.strip()


class Postgres:
    """A server of its own, reached by a socket in its folder."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="menes-postgres-")
        # It refuses to run as root.
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        self.name = "postgres" if self.user else getpass.getuser()
        if self.user:
            shutil.chown(self.folder, "postgres", "postgres")
        os.chmod(self.folder, 0o755)
        self.process = None

    def program(self, name):
        return os.path.join(POSTGRES, name)

    async def start(self):
        data = os.path.join(self.folder, "data")
        subprocess.run([self.program("initdb"), "-D", data, "-A", "trust", "--no-sync"], check=True, stdout=subprocess.DEVNULL, cwd="/", **self.user)
        self.process = subprocess.Popen([self.program("postgres"), "-D", data, "-k", self.folder, "-h", "", "-c", "fsync=off", "-c", "unix_socket_permissions=0777"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **self.user)

        async def answers():
            return self.query("SELECT 1", "postgres", quiet=True) is not None

        await eventually("Postgres answers", answers, 60)
        self.query("CREATE DATABASE memphis", "postgres")

    def query(self, sql, database="memphis", quiet=False):
        command = [self.program("psql"), "-h", self.folder, "-U", self.name, "-d", database, "-v", "ON_ERROR_STOP=1", "-qAt", "-f", "-"]
        done = subprocess.run(command, input=sql, capture_output=True, text=True, cwd="/", check=False)
        if done.returncode == 0:
            return done.stdout
        if quiet:
            return None
        raise AssertionError(f"psql: {done.stderr}")

    def url(self):
        return f"postgres://{self.name}@{self.folder.replace('/', '%2F')}/memphis"

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


async def old_server():
    """The nats-server whose folder is taken over, and a connection to it."""
    ports = os.path.join(FOLDER, "old-ports")
    os.makedirs(ports, exist_ok=True)
    config = os.path.join(FOLDER, "old.conf")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f'''accounts {{ "{ACCOUNT}" {{ jetstream: enabled, users: [ {{user: root, password: memphis}} ] }} }}
jetstream {{ store_dir: "{STORE}" }}
ports_file_dir: "{ports}"
''')
    with open(os.path.join(FOLDER, "old.log"), "ab") as log:
        process = subprocess.Popen([os.environ["OLD_SERVER"], "-a", "127.0.0.1", "-p", "-1", "-c", config], stdout=log, stderr=log)

    async def listens():
        return bool(glob.glob(f"{ports}/*.ports"))

    await eventually("the old server listens", listens, 30)
    with open(glob.glob(f"{ports}/*.ports")[0], encoding="utf-8") as file:
        url = json.load(file)["nats"][0]
    return process, await nats.connect(url, user="root", password="memphis")


def durable(name, subject, **options):
    config = {"ack_wait": 30, "max_deliver": 10, **options}
    return ConsumerConfig(durable_name=name, name=None, filter_subject=subject, ack_policy=AckPolicy.EXPLICIT, max_ack_pending=-1, **config)


async def handle(js, stream, group, count, leave=()):
    """Takes messages and acknowledges them, but for some."""
    consumer = await js.pull_subscribe(f"{stream}.final", group, stream=stream)
    for _ in range(count):
        message = (await consumer.fetch(1, timeout=10))[0]
        if message.metadata.sequence.stream not in leave:
            await message.ack_sync()


async def fill(js):
    """What Memphis would have left."""
    for partition in (1, 2):
        name = f"orders${partition}"
        # Small blocks, so that there are some.
        await js.add_stream(StreamConfig(name=name, subjects=[f"{name}.>"], max_age=604800, duplicate_window=120))
        for n in range(1, 41):
            await js.publish(f"{name}.final", f"{partition}-{n}".encode() + b"x" * 400_000 * (n > 10) * (partition == 2),
                             headers={"$memphis_producedBy": "p", "$memphis_connectionId": "c", "n": str(n)})
        for group in ("grp#one", "quiet"):
            await js.add_consumer(name, durable(group, f"{name}.final"))
    await js.purge_stream("orders$1", seq=6)
    for seq in (12, 20, 40):
        await js.delete_msg("orders$1", seq)
    # 13 and 14 wait; what is behind them was handled.
    await handle(js, "orders$1", "grp#one", 12, leave=(14, 15))
    await handle(js, "orders$2", "grp#one", 3)
    await js.add_stream(StreamConfig(name="my#queue$1", subjects=["my#queue$1.>"], retention=RetentionPolicy.INTEREST, duplicate_window=120))
    await js.add_consumer("my#queue$1", durable("workers", "my#queue$1.final", ack_wait=5, max_deliver=3))
    for n in range(1, 11):
        await js.publish("my#queue$1.final", f"job {n}".encode())
    await handle(js, "my#queue$1", "workers", 6, leave=(2, 5))
    await js.add_stream(StreamConfig(name="graveyard$1", subjects=["graveyard$1.>"], max_msgs=1000, duplicate_window=120))
    await js.add_stream(StreamConfig(name="legacy#in", subjects=["legacy#in.>"], max_msgs=100, duplicate_window=120))
    await js.publish("legacy#in.final", b"old")
    await js.add_stream(StreamConfig(name="EVENTS", subjects=["events.*"], description="of a NATS client"))
    await js.add_consumer("EVENTS", ConsumerConfig(durable_name="reader", ack_policy=AckPolicy.EXPLICIT))
    await js.publish("events.a", b"1")
    await js.publish("events.b", b"2")
    await js.add_stream(StreamConfig(name="$memphis_syslogs", subjects=["$memphis_syslogs.>"]))
    await js.publish("$memphis_syslogs.x", b"log")


STREAMS = ["orders$1", "orders$2", "my#queue$1", "graveyard$1", "legacy#in", "EVENTS"]


async def seen(js):
    """Every message of every stream, as sequence, time, subject, headers and payload."""
    streams = {}
    for name in STREAMS:
        state = (await js.stream_info(name)).state
        messages = {}
        for seq in range(max(state.first_seq, 1), state.last_seq + 1):
            try:
                message = await js.get_msg(name, seq)
            except nats.js.errors.NotFoundError:
                continue
            messages[seq] = (str(message.time), message.subject, message.headers, message.data)
        streams[name] = {"messages": messages, "last": state.last_seq, "count": state.messages}
    return streams


async def positions(js):
    floors = {}
    for stream, group in [("orders$1", "grp#one"), ("orders$1", "quiet"), ("orders$2", "grp#one"), ("my#queue$1", "workers"), ("EVENTS", "reader")]:
        info = await js.consumer_info(stream, group)
        floors[stream, group] = info.ack_floor.stream_seq
    return floors


def command(postgres, *more):
    url = os.environ["NATS_URL"]
    return [MENES, "import", "memphis", "--postgres", postgres.url(), "--jetstream", STORE, "--to", url, *more]


def take_over(postgres, *more, expected=0, environment=None):
    done = subprocess.run(command(postgres, *more), capture_output=True, text=True, timeout=120, env={**os.environ, **(environment or {})}, check=False)
    note("said", done.stdout.strip().splitlines())
    if done.returncode != expected:
        raise AssertionError(f"exit code {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def begin_and_die(postgres, line):
    """Kills an import once it has said something."""
    with subprocess.Popen(command(postgres), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        found = any(said.startswith(line) for said in process.stderr)
        process.kill()
    check(f"killed at {line!r}", found, True)


def counted(lines, kind):
    found = [line for line in lines.splitlines() if line.split(maxsplit=1)[0] in ("ready", "done") and f" {kind}" in line]
    return found[0].split(maxsplit=1)[1] if found else None


async def scenario(memphis, js):
    postgres = Postgres()
    process = None
    try:
        await postgres.start()
        postgres.query(TABLES)
        postgres.query(ROWS)
        for name, password in PASSWORDS.items():
            postgres.query(f"INSERT INTO users (username, password, type) VALUES ('{name}', '{sealed(password)}', 'application')")
        postgres.query(f"INSERT INTO users (username, password, type) VALUES ('lost', '{sealed('Secret-1!', OTHER_KEY)}', 'application')")
        process, old = await old_server()
        old_js = old.jetstream()
        await fill(old_js)
        there = await seen(old_js)
        floors = await positions(old_js)
        await old.close()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        check("the old server ended", process.returncode in (0, 1), True)
        check("gaps are there", sorted(set(range(6, 41)) - set(there["orders$1"]["messages"])), [12, 20, 40])
        check("settled jobs are gone", sorted(there["my#queue$1"]["messages"]), [2, 5, 7, 8, 9, 10])

        said = take_over(postgres, "--dry-run")
        check("found", said.splitlines()[0].startswith("found   3 stations (4 partitions) · 2 other streams · 3 groups · 1 schemas (2 versions) · 4 users · 2 dead letters · "), True)
        for kind, count in (("stations", "3 stations"), ("groups", "3 groups"), ("schemas", "1 schemas"), ("streams", "6 streams"), ("dead letters", "3 dead letters")):
            check(f"ready: {kind}", counted(said, kind), count)
        check("nothing was done", [s.config.name for s in await js.streams_info()], [])
        for text in ("table tags: 1 rows", "table audit_logs: 2 rows", "tenant acme with 1 stations", "legacy.in is from before partitions", "orders had 3 replicas",
                     "going was about to be removed", "$memphis_syslogs is Memphis's own", "was at version 1 of schema order", "stop    none"):
            check(f"said: {text}", text in said, True)

        await keys(postgres, js)
        # In the midst of a stream, which no one sees half, and which the next import waits for.
        begin_and_die(postgres, "stream orders$2: 40 messages")
        body = {"config": {"name": "graveyard$1", "subjects": ["graveyard$1.>"]}, "state": {"messages": 0, "bytes": 0, "first_seq": 0, "last_seq": 0, "consumer_count": 0}}
        half = await js._api_request("$JS.API.STREAM.RESTORE.graveyard$1", json.dumps(body).encode())
        check("half done", half["deliver_subject"].startswith("$JS.SNAPSHOT.RESTORE."), True)
        said = take_over(postgres)
        check("without a key", "3 users come without their passwords (" in said and "--memphis-key opens them" in said, True)
        for kind, count in (("stations", "3 stations"), ("groups", "3 groups"), ("schemas", "0 schemas"), ("dead letters", "3 dead letters")):
            check(f"done: {kind}", counted(said, kind).startswith(count), True)
        # The machine may have been slow to kill it.
        check("done: streams", counted(said, "streams").split(maxsplit=1)[0] in "54", True)
        path = os.path.join(FOLDER, "report.json")
        said = take_over(postgres, "--report", path, environment={"ENCRYPTION_SECRET_KEY": KEY})
        check("with the key", "the passwords of 2 application users were opened" in said and "1 users come without their passwords (lost)" in said, True)
        for kind in ("stations", "groups", "schemas", "streams", "dead letters"):
            check(f"again: {kind}", counted(said, kind).startswith("0 "), True)
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
        check("report", [report["dry_run"], report["stops"], report["found"]["dead_letters"]], [False, [], 2])
        first = report["stations"][0]["partitions"][0]
        check("report of a partition", first, {"stream": "orders$1", "messages": 32, "first_sequence": 6, "last_sequence": 40})

        now = await seen(js)
        for name in STREAMS:
            check(f"{name}: sequences", sorted(now[name]["messages"]), sorted(there[name]["messages"]))
            if now[name] != there[name]:
                raise AssertionError(f"{name} came over as something else")
        check("positions", await positions(js), floors)
        await looked_at(memphis, js)

        # Damage is named and left out; what is sound beside it is not.
        block = sorted(glob.glob(f"{STORE}/jetstream/{ACCOUNT}/streams/orders$2/msgs/*.blk"))[0]
        with open(block, "r+b") as file:
            file.seek(300)
            byte = file.read(1)
            file.seek(300)
            file.write(bytes([byte[0] ^ 1]))
        said = take_over(postgres, "--dry-run")
        check("damage", "stream orders$2: 1 damaged places are left out" in said, True)
        with open(f"{STORE}/jetstream/{ACCOUNT}/streams/orders$2/meta.key", "wb"):
            pass
        take_over(postgres, "--dry-run", expected=1)
    finally:
        if process and process.poll() is None:
            process.kill()
            process.wait()
        postgres.stop()


async def keys(postgres, js):
    """A key that is none, or the wrong one, is told, and nothing came of it."""
    for label, key, code, text in (("too short", "short", 2, "32 characters"), ("wrong", "x" * 32, 1, "opens none of the 3 passwords")):
        done = subprocess.run(command(postgres, "--memphis-key", key), capture_output=True, text=True, timeout=120, check=False)
        check(f"a key that is {label}", (done.returncode, text in done.stderr, done.stdout), (code, True, ""))
    check("nothing was done", [s.config.name for s in await js.streams_info()], [])
    said = take_over(postgres, "--dry-run", "--memphis-key", KEY)
    check("the right one", "the passwords of 2 application users were opened" in said, True)


async def people(nc):
    """Application users log in with the passwords that they had."""
    users = {u["name"]: u["has_password"] for u in (await ask(nc, "USER.LIST"))["users"] if u["type"] == "application" and u["origin"] == "stored"}
    check("users and their passwords", users, {"shop": True, "plain": True, "lost": False})
    for name, password in PASSWORDS.items():
        client = await connect(username=name, password=password)
        producer = await client.producer("graveyard", "p")
        await producer.produce(bytearray(name.encode()))
        await client.close()
    await check_error("not with another", connect(username="shop", password="Secret-2!"), "Authorization Violation")


async def looked_at(memphis, js):
    """What Memphis clients and operators see of it."""
    nc = await plain()
    stations = {s["name"]: s for s in (await ask(nc, "STATION.LIST"))["stations"]}
    check("stations", sorted(stations), ["EVENTS", "graveyard", "legacy#in", "my.queue", "orders"])
    orders = await ask(nc, "STATION.INFO", station="orders")
    check("orders", [orders["partitions"], orders["retention"], orders["schema"]["name"], orders["dead_letter_station"]],
          [2, {"type": "message_age_sec", "value": 604800}, "order", "graveyard"])
    check("groups", sorted(g["group"]["name"] for g in orders["groups"]), ["grp.one", "quiet"])
    schema = await ask(nc, "SCHEMA.INFO", name="order")
    check("schema", [schema["active"], [v["content"] for v in schema["versions"]]], [2, [FIRST, SECOND]])
    letters = (await ask(nc, "DEAD_LETTER.LIST", station="orders"))["dead_letters"]
    check("dead letters", sorted((l["kind"], l["group"], l["sequence"], l["partition"], l["reason"]) for l in letters if l["group"]),
          [("poison", "grp.one", 9, 1, ""), ("poison", "other", 9, 1, "")])
    check("of a schema", [(l["reason"], l["time_sent"]) for l in letters if not l["group"]], [("id is missing", "2024-05-01T10:00:01Z")])
    check("their headers", [l["headers"] for l in letters if l["group"] == "grp.one"][0], {"$memphis_producedBy": "p", "k": "v"})
    workers = await ask(nc, "GROUP.INFO", station="my.queue", group="workers")
    check("limits", [workers["max_ack_time_ms"], workers["max_msg_deliveries"]], [5000, 3])

    # An SDK that comes back goes on where its group was; what it had not settled comes first.
    consumer = await memphis.consumer("my.queue", "w", consumer_group="workers", max_ack_time_ms=5000, max_msg_deliveries=3)
    messages = await consumer.fetch(batch_size=6)
    check("goes on", texts(messages), ["job 2", "job 5", "job 7", "job 8", "job 9", "job 10"])
    for message in messages:
        await message.ack()

    async def is_empty():
        return (await js.stream_info("my#queue$1")).state.messages == 0

    await eventually("all jobs are done", is_empty)
    other = await connect()
    consumer = await other.consumer("orders", "a", consumer_group="grp.one")
    messages = await consumer.fetch(batch_size=2, consumer_partition_number=1)
    check("from the floor on", [m.get_sequence_number() for m in messages], [14, 15])
    producer = await other.producer("orders", "p")
    ack = await js.publish("orders$1.final", b'{"id":1}')
    check("the next sequence", ack.seq, 41)
    await producer.destroy()
    await other.close()
    await people(nc)
    await nc.close()


run(scenario, 230)
