#!/usr/bin/env python3
"""Lets the Prometheus exporter of NATS scrape Menes and nats-server, and compares what it shows.

    exporter.py --exporter PATH --server PATH --reference PATH --nats PATH

Both servers get the same configuration, streams, consumers and connections. Every metric the
exporter shows of the reference must be there for Menes with the same labels, and those that do not
depend on the machine or the moment with the same value. Prints what differs and fails if anything
does.
"""

import argparse
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

CONFIG = """
server_name: scraped
host: 127.0.0.1
port: -1
http: 127.0.0.1:-1
ports_file_dir: "{folder}"
jetstream {{ store_dir: "{folder}/js", max_mem: 64MB, max_file: 256MB }}
accounts {{
  SYS {{ users: [ {{user: admin, password: admin}} ] }}
  APP {{ jetstream: enabled, users: [ {{user: app, password: app}} ] }}
}}
system_account: SYS
"""

FLAGS = [
    "-varz", "-connz_detailed", "-healthz", "-accstatz", "-accountz", "-leafz", "-routez", "-subz",
    "-gatewayz", "-jsz", "all", "-use_internal_server_name",
]  # fmt: skip

# What a machine, a process or the moment decides.
MOMENT = re.compile(
    r"_(mem|cpu|cores|gomaxprocs|start|now|uptime|config_load_time|rtt|duration_seconds|last_activity"
    r"|reserved_.*|store|max_storage|in_bytes|bytes|api_total|api_errors|pending_bytes|storage)$"
    r"|_varz_(in|out)_msgs$|_(sent|received)_(bytes|messages_count)$|_connz_(in|out)_(bytes|msgs)$"
    r"|_jetstream_(server|account)_.*(storage|memory)_used$|_bytes$|^(go|process|promhttp)_"
    r"|_varz_(http_)?port$|_consumer_last_(ack|delivery)_seconds$"
    # Every server has its own internal subscriptions.
    r"|_accountz_subscriptions$"
    r"|_varz_jetstream_(stats|meta)_|_subsz_|_varz_subscriptions$|_accstatz_"
)
# Shown by a reference of a newer version, or by one that syncs later than it acknowledges; and how
# often the exporter has asked so far.
ABSENT = re.compile(
    r"_config_sync_interval$|_limits_default_max_consumers$|_varz_version$|_varz_http_req_stats_"
)
# Labels whose values belong to one start of a server.
OWN = re.compile(r'\b(server_id|cid|ip|port|version|start|uptime|idle|created|id|domain)="[^"]*"')


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(what, probe, limit=60):
    deadline = time.monotonic() + limit
    while True:
        try:
            if (seen := probe()) is not None:
                return seen
        except (OSError, ValueError):
            pass
        if time.monotonic() > deadline:
            sys.exit(f"{what}: not within {limit} s")
        time.sleep(0.05)


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def ports_of(folder):
    for file in folder.glob("*.ports"):
        return json.loads(file.read_text())
    return None


def scrape(server, tools, folder):
    """What the exporter shows of one server: metric with labels to value."""
    config = folder / "server.conf"
    config.write_text(CONFIG.format(folder=folder))
    started = [subprocess.Popen([server, "-c", str(config)], stderr=subprocess.DEVNULL)]
    try:
        ports = until("the server's ports", lambda: ports_of(folder))
        url, monitor = ports["nats"][0], ports["monitoring"][0]
        until("health", lambda: get(f"{monitor}/healthz"))

        def nats(*arguments):
            command = [tools.nats, "-s", url, "--user", "app", "--password", "app", *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)

        nats("stream", "add", "orders", "--subjects", "orders.>", "--defaults")
        nats("stream", "add", "memory", "--subjects", "memory.>", "--storage", "memory", "--defaults")
        nats("consumer", "add", "orders", "worker", "--pull", "--defaults")
        nats("publish", "orders.new", "message", "--count", "20", "--jetstream", "--quiet")
        nats("consumer", "next", "orders", "worker", "--count", "5", "--ack")
        listening = [tools.nats, "-s", url, "--user", "app", "--password", "app", "sub", "news.>"]
        started.append(subprocess.Popen(listening, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        until("a subscriber", lambda: json.loads(get(f"{monitor}/connz"))["num_connections"] or None)
        port = free_port()
        command = [tools.exporter, *FLAGS, "-a", "127.0.0.1", "-p", str(port), monitor]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

        def metrics():
            text = get(f"http://127.0.0.1:{port}/metrics")
            return text if "jetstream_consumer" in text else None

        return read(until("metrics", metrics))
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def read(text):
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = value
    return found


def comparable(found):
    """Metrics with labels that two servers can share; a value or None where it says nothing."""
    result = {}
    for name, value in found.items():
        bare = name.partition("{")[0]
        if re.match(r"(go|process|promhttp)_", bare) or ABSENT.search(bare):
            continue
        labels = re.sub(r'http://127\.0\.0\.1:\d+', "URL", OWN.sub(r'\1=""', name.partition("{")[2]))
        labels = re.sub(r'value="N[A-Z2-7]{55}"', "ID", labels)
        result[f"{bare}{{{labels}"] = None if MOMENT.search(bare) else value
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("exporter", "server", "reference", "nats"):
        parser.add_argument(f"--{name}", required=True)
    tools = parser.parse_args()
    seen = []
    for server in (tools.reference, tools.server):
        with tempfile.TemporaryDirectory() as folder:
            seen.append(comparable(scrape(server, tools, Path(folder))))
    reference, menes = seen
    differing = [f"missing: {name} {reference[name]}" for name in sorted(reference.keys() - menes.keys())]
    differing += [f"only here: {name} {menes[name]}" for name in sorted(menes.keys() - reference.keys())]
    differing += [
        f"{name}: {menes[name]}, nats-server {value}"
        for name, value in sorted(reference.items())
        if name in menes and menes[name] != value
    ]
    for line in differing:
        print(line)
    print(f"{len(reference)} metrics of the reference, {len(menes)} here, {len(differing)} differ")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
