#!/usr/bin/env python3
"""Side-by-side benchmarks of Menes and nats-server: the tables of docs/benchmarks.md.

Every row is one run of the load generator against all servers in turn, so that whatever else the
machine does meets each of them alike. Ratios are those of paired runs against the better of the
nats-servers given.
"""

import argparse
import contextlib
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from benchmark_client import REPLY, Client, create_bucket, gets, puts, watch

CORE = "core"
JETSTREAM = "jetstream"

# (table, name, arguments of the load generator, what is compared: a column of its table)
RATE, P50, P99, P999 = "rate", "p50", "p99", "p99.9"
ROWS = [
    (CORE, "1:1, 16 B", "pubsub --size 16", [RATE]),
    (CORE, "1:1, 128 B", "pubsub --size 128", [RATE]),
    (CORE, "1:1, 1 KiB", "pubsub --size 1024", [RATE]),
    (CORE, "1:1, 64 KiB", "pubsub --size 65536", [RATE]),
    (CORE, "1:8, 16 B", "pubsub --size 16 --subs 8", [RATE]),
    (CORE, "1:8, 128 B", "pubsub --size 128 --subs 8", [RATE]),
    (CORE, "1:8, 1 KiB", "pubsub --size 1024 --subs 8", [RATE]),
    (CORE, "8:8 in pairs, 128 B", "pubsub --size 128 --pubs 8 --subs 8 --pattern pairs", [RATE]),
    (CORE, "8:8 in pairs, 1 KiB", "pubsub --size 1024 --pubs 8 --subs 8 --pattern pairs", [RATE]),
    (CORE, "queue group of 4, 128 B", "pubsub --size 128 --subs 4 --queue 1", [RATE]),
    (CORE, "10,000 subjects, 128 B", "pubsub --size 128 --subjects 10000", [RATE]),
    (CORE, "no subscribers, 128 B", "pubsub --size 128 --subs 0", [RATE]),
    (CORE, "every message alone, 128 B", "pubsub --size 128 --chunk 1", [RATE]),
    (CORE, "request/reply alone", "reqrep --window 1", [P50, P99, P999]),
    (CORE, "request/reply, 8 x 64 outstanding", "reqrep --pubs 8 --window 64", [RATE]),
    (CORE, "paced, 200,000/s", "paced --rate 200000", [P99, P999]),
    (JETSTREAM, "publish, file, 128 B, 100 outstanding", "jspub --window 100", [RATE]),
    (JETSTREAM, "publish, file, 128 B, 500 outstanding", "jspub --window 500", [RATE]),
    (JETSTREAM, "publish, file, 128 B, 1,000 outstanding", "jspub --window 1000", [RATE]),
    (JETSTREAM, "publish, file, 128 B, 8 x 500 outstanding", "jspub --pubs 8 --window 500", [RATE]),
    (JETSTREAM, "publish, file, 1 KiB, 500 outstanding", "jspub --size 1024 --window 500", [RATE]),
    (JETSTREAM, "publish, file, 128 B, one at a time", "jspub --window 1", [RATE, P50]),
    (JETSTREAM, "publish, file, 128 B, 64 x one at a time", "jspub --pubs 64 --window 1", [RATE]),
    (JETSTREAM, "publish, memory, 128 B, 500 outstanding", "jspub --window 500 --storage memory", [RATE]),
    (JETSTREAM, "fetch 500, no acks, 128 B", "fetch --ack none", [RATE]),
    (JETSTREAM, "fetch 500, no acks, 1 KiB", "fetch --ack none --size 1024", [RATE]),
    (JETSTREAM, "fetch 500, explicit acks, 128 B", "fetch --ack explicit", [RATE]),
    (JETSTREAM, "push as to an ordered consumer, 128 B", "push", [RATE]),
    (JETSTREAM, "publish, file, 128 B, 500 outstanding, with 1,000,000 ids", "jspub --window 500 --msgid 1 --msgs 1000000", [RATE]),
]
# Figures of one run each that the load generator does not give; see `one_run`.
KEYS = 1_000_000
GETS = 300_000
RESTART_MESSAGES = 2_000_000
LARGE_COMMITS = 300_000
COLUMNS = {RATE: 1, P50: 6, P99: 7, P999: 8}
CPU = 4
UNITS = {"k": 1e3, "M": 1e6, "G": 1e9}
START_LIMIT = 30


def number(text):
    """The number the load generator means by `1.25M`."""
    match = re.fullmatch(r"([0-9.]+)([kMG]?)", text.strip())
    if not match:
        raise ValueError(f"not a number: {text!r}")
    return float(match[1]) * UNITS.get(match[2], 1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A running server; leaving the context ends it."""

    def __init__(self, name, command, folder, log):
        self.name = name
        self.port = free_port()
        self.folder = folder
        self.command = [str(part).format(port=self.port, folder=folder) for part in command]
        self.log = log

    def __enter__(self):
        self.start()
        until = time.monotonic() + START_LIMIT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{self.name} did not start: see {self.log}")
            time.sleep(0.05)

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def target(self):
        return f"{self.name}=127.0.0.1:{self.port},{self.process.pid}"


def servers(options, table, arguments, folder):
    """The servers of a row, those to compare with first."""
    plain = ["{binary}", "-a", "127.0.0.1", "-p", "{{port}}", "-js", "-sd", "{{folder}}/store"]

    def command(binary):
        return [part.format(binary=binary) for part in plain]

    found = [("nats", command(options.nats))]
    if options.old_nats:
        found.append(("nats-old", command(options.old_nats)))
    found.append(("menes", command(options.menes)))
    # What is fetched would take it hours to store.
    if arguments.startswith("jspub") and "--msgs" not in arguments:
        config = folder / "always.conf"
        config.write_text("jetstream { sync_interval: always }\n")
        found.append(("nats-sync", [*command(options.nats), "-c", config]))
    sync = "sync" if table == JETSTREAM else "nosync"
    # It knows neither headers nor consumers that push.
    if "--msgid" not in arguments and not arguments.startswith("push"):
        found.append(("floor", [options.loadgen, "floor", "127.0.0.1:{port}", "{folder}", sync]))
    return found


def measure(options, arguments, targets):
    """The columns of the load generator's table by target."""
    command = [options.loadgen, *arguments.split(), "--runs", str(options.runs)]
    command += ["--secs", str(options.secs), "--max-other", str(options.max_other)]
    for target in targets:
        command += ["--target", target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = {}
    for line in done.stdout.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 12 and cells[0] != "target":
            rows[cells[0]] = cells[1:]
    if done.returncode != 0 or not rows:
        print(done.stdout, done.stderr, file=sys.stderr)
    return rows


def shown(value):
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def table_rows(table, name, compared, rows):
    """Lines of the table, one for each figure compared."""
    for what in compared:
        values = {}
        for target, cells in rows.items():
            with contextlib.suppress(ValueError, IndexError):
                values[target] = number(cells[COLUMNS[what]])
        best = max if what == RATE else min
        peers = [values[peer] for peer in ("nats", "nats-old") if peer in values]
        ratio = f"{values['menes'] / best(peers):.2f}" if peers and "menes" in values else "-"
        room = f"{values['floor'] / best(peers):.2f}" if peers and "floor" in values else "-"
        cpu = " / ".join(
            rows[target][CPU] if target in rows and len(rows[target]) > CPU else "-"
            for target in ("nats", "nats-old", "menes")
        )
        cells = [shown(values[t]) if t in values else "-" for t in ("nats", "nats-old", "menes", "floor")]
        if table == JETSTREAM:
            cells.insert(2, shown(values["nats-sync"]) if "nats-sync" in values else "-")
        label = name if what == RATE else f"{name}, {what} in us"
        yield "| " + " | ".join([label, *cells, f"**{ratio}**", room, cpu]) + " |"


def idle_memory(options, folder):
    """KiB of server memory for one idle connection with one subscription."""
    line = []
    for name, command in servers(options, CORE, "conns", folder)[:-1]:
        with Server(name, command, folder / name, folder / f"{name}.log") as server:
            done = subprocess.run(
                [options.loadgen, "conns", "--conns", "5000", "--target", server.target, "--runs", "1"],
                capture_output=True, text=True, check=False)
            note = [text for text in done.stdout.splitlines() if "KiB" in text]
            line.append(f"{name}: {note[0].strip() if note else done.stdout + done.stderr}")
    return line


def rates(options, folder):
    """Menes over WebSocket, and beside subscribers that never read; medians of paired runs."""
    websocket = free_port()
    config = folder / "rates.conf"
    config.write_text(f"websocket {{ host: 127.0.0.1, port: {websocket}, no_tls: true }}\n")
    command = [options.menes, "-a", "127.0.0.1", "-p", "{port}", "-c", config]
    with Server("menes", command, folder, folder / "rates.log") as server:
        plain = ("tcp", f"127.0.0.1:{server.port}", "0")
        kinds = {
            "TCP": plain,
            "WebSocket": ("ws", f"127.0.0.1:{websocket}", "0"),
            "TCP beside 1,000 subscribers that never read": (*plain[:2], "1000"),
        }
        seen = {kind: [] for kind in kinds}
        for _ in range(options.runs):
            for kind, (scheme, address, stalled) in kinds.items():
                count = str(int(2_000_000 * options.secs))
                done = subprocess.run([options.rate, scheme, address, count, "128", stalled],
                                      capture_output=True, text=True, check=True)
                seen[kind].append(float(done.stdout))
    base = statistics.median(seen["TCP"])
    for kind, values in seen.items():
        middle = statistics.median(values)
        yield f"{kind}: {shown(middle)} messages of 128 B a second, {middle / base:.2f} of TCP"


def memory(pid, what):
    """MiB of a server: `VmRSS` now, `VmHWM` at most so far."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) / 1024


def written(pid):
    """Bytes a server has written to files, each page once for every time it was synced."""
    return int(re.search(r"^write_bytes: (\d+)", pathlib.Path(f"/proc/{pid}/io").read_text(), re.M)[1])


def load(options, server, arguments):
    done = subprocess.run(
        [options.loadgen, *arguments.split(), "--runs", "1", "--max-other", "1", "--target", server.target],
        capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{server.name}: {done.stdout}{done.stderr}")


def many_keys(server):
    """Rates of putting, getting and watching the keys of a bucket, and what they take of memory."""
    with Client(server.port) as client:
        create_bucket(client)
        steps = [
            ("KV put", KEYS, lambda: client.exchange(puts(KEYS), KEYS, b"MSG %s 1 " % REPLY)),
            ("KV get", GETS, lambda: client.exchange(gets(KEYS, GETS), GETS, b"MSG %s 1 " % REPLY)),
            ("KV watch", KEYS, lambda: watch(client, KEYS)),
        ]
        for what, count, step in steps:
            begun = time.monotonic()
            step()
            yield f"{what}, {KEYS:,} keys of 128 B", count / (time.monotonic() - begun)
        yield "memory then, MiB", memory(server.process.pid, "VmRSS")


def with_ids(options, server):
    """What a duplicate window takes of memory."""
    load(options, server, "jspub --window 500 --msgid 1 --msgs 1000000 --keep 1")
    yield "memory after 1,000,000 ids, MiB", memory(server.process.pid, "VmRSS")


def large_commits(options, server):
    """Bytes written for each byte of subjects and payloads stored."""
    before = written(server.process.pid)
    size = 1024
    load(options, server, f"jspub --pubs 8 --window 500 --size {size} --msgs {LARGE_COMMITS} --keep 1")
    # Both write behind the acknowledgement as well.
    time.sleep(3)
    subject = len("LG.s0")
    yield "bytes written per byte stored, 1 KiB", (written(server.process.pid) - before) / (LARGE_COMMITS * (size + subject))


def restart(options, server):
    """Seconds from the start after a `kill -9` until the stream answers with all its messages."""
    load(options, server, f"jspub --window 1000 --msgs {RESTART_MESSAGES} --keep 1 --stream RESTART")
    times = []
    for _ in range(3):
        server.process.kill()
        server.process.wait()
        begun = time.monotonic()
        server.start()
        while time.monotonic() - begun < START_LIMIT:
            with contextlib.suppress(OSError, RuntimeError), Client(server.port) as client:
                answer = client.api("$JS.API.STREAM.INFO.RESTART", {})
                if answer["state"]["messages"] == RESTART_MESSAGES:
                    break
            time.sleep(0.005)
        times.append(time.monotonic() - begun)
    yield f"start after kill -9, {RESTART_MESSAGES:,} messages, s", statistics.median(times)


def one_run(options, folder):
    """Rows of figures that come from one run of each server."""
    for work in [lambda s: many_keys(s), lambda s: with_ids(options, s), lambda s: large_commits(options, s), lambda s: restart(options, s)]:
        found = {}
        for name, command in servers(options, JETSTREAM, "", folder):
            if name == "floor":
                continue
            (folder / name).mkdir(exist_ok=True)
            with Server(name, command, folder / name, folder / f"{name}.log") as server:
                for what, value in work(server):
                    found.setdefault(what, {})[name] = value
        for what, values in found.items():
            best = max if what.startswith("KV") else min
            ratio = values["menes"] / best(value for name, value in values.items() if name != "menes")
            cells = [shown(values[name]) if name in values else "-" for name in ("nats", "nats-old", "menes")]
            yield "| " + " | ".join([what, *cells, f"**{ratio:.2f}**"]) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loadgen", required=True, help="the load generator")
    parser.add_argument("--menes", default="target/release/menes")
    parser.add_argument("--rate", default="target/release/rate", help="built from compat-tests")
    parser.add_argument("--nats", required=True, help="a nats-server of the newest version")
    parser.add_argument("--old-nats", help="a nats-server 2.9, faster on small messages")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--secs", type=float, default=2)
    parser.add_argument("--max-other", type=float, default=0.15, help="share of the machine others may use")
    parser.add_argument("--rows", default="", help="a regular expression of the rows to run")
    parser.add_argument("--table", choices=[CORE, JETSTREAM], action="append")
    parser.add_argument("--folder", default="target/benchmarks", help="for stores: a real disk")
    options = parser.parse_args()
    # However it ends, the servers end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    base = pathlib.Path(options.folder).resolve()
    base.mkdir(parents=True, exist_ok=True)
    for table in options.table or [CORE, JETSTREAM]:
        always = " nats-server, sync always |" if table == JETSTREAM else ""
        print(f"\n| {table} | nats-server | nats-server 2.9 |{always} Menes | floor | Menes to the better | floor to it | server CPU ns/op: nats-server / 2.9 / Menes |")
        print("|---" * (8 + bool(always)) + "|", flush=True)
        for of, name, arguments, compared in ROWS:
            if of != table or not re.search(options.rows, name):
                continue
            with tempfile.TemporaryDirectory(dir=base) as inside, contextlib.ExitStack() as stack:
                folder = pathlib.Path(inside)
                running = []
                for server, command in servers(options, table, arguments, folder):
                    (folder / server).mkdir()
                    running.append(stack.enter_context(Server(server, command, folder / server, folder / f"{server}.log")))
                rows = measure(options, arguments, [server.target for server in running])
            for line in table_rows(table, name, compared, rows):
                print(line, flush=True)
        if table == JETSTREAM and re.search(options.rows, "one run"):
            print("\n| one run | nats-server | nats-server 2.9 | Menes | Menes to the better |")
            print("|---|---|---|---|---|", flush=True)
            with tempfile.TemporaryDirectory(dir=base) as inside:
                for line in one_run(options, pathlib.Path(inside)):
                    print(line, flush=True)
        if table == CORE and re.search(options.rows, "idle"):
            with tempfile.TemporaryDirectory(dir=base) as inside:
                print("\nidle connections:", *idle_memory(options, pathlib.Path(inside)), sep="\n- ", flush=True)
        if table == CORE and re.search(options.rows, "WebSocket, stalled"):
            with tempfile.TemporaryDirectory(dir=base) as inside:
                print("\nMenes alone:", *rates(options, pathlib.Path(inside)), sep="\n- ", flush=True)


if __name__ == "__main__":
    main()
