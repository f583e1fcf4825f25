#!/usr/bin/env python3
"""Figures of the Memphis faces: the table "Memphis" of docs/benchmarks.md.

The SDKs run the same script against Menes and against nats-server with the stand-in control plane of
the tests, in turn. Elsewhere there is nothing to compare with: the REST gateway, the list of many
stations, a scrape of their metrics, start-up.

    scripts/benchmarks-memphis.py --menes target/release/menes
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLIENTS = ROOT / "compat-tests/clients"
LOGIN = {"NATS_USER": "root", "NATS_PASSWORD": "menes-rate"}
TICKS = os.sysconf("SC_CLK_TCK")


def tools():
    listed = subprocess.run([ROOT / "scripts/setup-clients.sh", "--paths"], capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in listed.splitlines())


class Process:
    """A server in a folder of its own; leaving the context ends it."""

    def __init__(self, command, folder):
        self.command, self.folder, self.beside = command, folder, []

    def __enter__(self):
        self.start()
        return self

    def start(self):
        ports = self.folder / "ports"
        ports.mkdir(parents=True, exist_ok=True)
        for old in ports.iterdir():
            old.unlink()
        self.began = time.perf_counter()
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([*map(str, self.command), "--ports_file_dir", str(ports)], stdout=log, stderr=log)
        self.ports = {}
        while not self.ports:
            if self.process.poll() is not None or time.perf_counter() - self.began > 60:
                raise SystemExit(f"no server: see {self.folder}/log")
            for file in ports.glob("*.ports"):
                listed = json.loads(file.read_text())
                self.ports = {face: int(urls[0].rsplit(":", 1)[1]) for face, urls in listed.items() if urls}
            time.sleep(0.005)
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.ports["nats"]), 5) as probe:
                    probe.recv(1)
                    break
            except OSError:
                time.sleep(0.005)
        self.ready = time.perf_counter() - self.began

    def __exit__(self, *_):
        for process in [*self.beside, self.process]:
            process.send_signal(signal.SIGTERM)
        for process in [*self.beside, self.process]:
            process.wait(60)

    def cpu(self):
        """Seconds of processor time so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self):
        """MiB in use."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def menes(options, folder):
    return Process([options.menes, "serve", "-a", "127.0.0.1", "-p", "-1", "--memphis_port", "-1", "--ws_port", "-1", "--rest_port", "-1",
                    "--api_port", "-1", "--metrics_port", "-1", "-m", "-1", "--data", folder / "data",
                    "--user", LOGIN["NATS_USER"], "--pass", LOGIN["NATS_PASSWORD"]], folder)


def reference(found, folder):
    user, password = LOGIN["NATS_USER"], LOGIN["NATS_PASSWORD"]
    config = folder / "server.conf"
    users = ", ".join(f'{{user: "{name}", password: "{password}"}}' for name in (user, f"{user}$1"))
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(f"authorization {{ users: [ {users} ] }}\n")
    return Process([found["nats_server"], "-a", "127.0.0.1", "-p", "-1", "-js", "-sd", folder / "data", "-c", config], folder)


def stand_in(found, server):
    """The control plane beside nats-server."""
    ready = server.folder / "control-plane.ready"
    process = subprocess.Popen([found["python"], CLIENTS / "reference/control_plane.py", ready], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env={**os.environ, **LOGIN, "NATS_URL": f"nats://127.0.0.1:{server.ports['nats']}"})
    server.beside.append(process)
    while not ready.exists():
        time.sleep(0.01)


def sdk_rates(options, found, folder):
    """Lines of the table: rates of each part with both servers, and what the client's own processor time
    leaves room for: how much faster than nats-server it would be with a server that takes no time."""
    scripts = {"memphis-py": [found["python"], CLIENTS / "memphis-py/rate.py"], "memphis-dev": [found["node"], CLIENTS / "memphis-node/rate.mjs"]}
    with menes(options, folder / "menes") as ours, reference(found, folder / "nats") as theirs:
        stand_in(found, theirs)
        for sdk, script in scripts.items():
            seen = {"menes": [], "nats": []}
            used = {"menes": [], "nats": []}
            for turn in range(options.runs):
                pairs = [("menes", ours, ours.ports["memphis"]), ("nats", theirs, theirs.ports["nats"])]
                for name, server, port in pairs[:: 1 if turn % 2 else -1]:
                    env = {**os.environ, **LOGIN, "MEMPHIS_HOST": "127.0.0.1", "MEMPHIS_PORT": str(port), "NATS_URL": f"nats://127.0.0.1:{server.ports['nats']}",
                           "NODE_OPTIONS": "--experimental-websocket", "PYTHONDONTWRITEBYTECODE": "1"}
                    before = server.cpu()
                    done = subprocess.run([*map(str, script), str(options.messages), "128"], capture_output=True, text=True, env=env, check=False)
                    if done.returncode != 0:
                        raise SystemExit(f"{sdk} against {name}: {done.stdout}{done.stderr}")
                    seen[name].append(json.loads(done.stdout.splitlines()[-1]))
                    used[name].append((server.cpu() - before) / (options.messages * 2.2))
            for part in seen["menes"][0]:
                took = {name: statistics.median(run[part][0] for run in runs) for name, runs in seen.items()}
                ratio = statistics.median(theirs[part][0] / ours[part][0] for ours, theirs in zip(seen["menes"], seen["nats"]))
                best = {name: min(run[part][0] for run in runs) for name, runs in seen.items()}
                client = min(run[part][1] for runs in seen.values() for run in runs)
                yield (f"| {sdk}, {part} | {1 / took['nats']:,.0f}/s | {1 / took['menes']:,.0f}/s | **{ratio:.2f}** | "
                       f"{best['nats'] / best['menes']:.2f} | {client * 1e6:.0f} us | {best['nats'] / client:.2f} |")
            cpu = {name: statistics.median(values) * 1e6 for name, values in used.items()}
            yield f"| {sdk}, server CPU per message | {cpu['nats']:.0f} us | {cpu['menes']:.0f} us | **{cpu['nats'] / cpu['menes']:.2f}** | | | |"


def rest_rate(options, folder):
    """Messages a second through the REST gateway in batches of 100, over eight connections."""
    with menes(options, folder) as server:
        def post(link, path, body, token=None):
            headers = {"Content-Type": "application/json"}
            if token:
                headers["Authorization"] = f"Bearer {token}"
            link.request("POST", path, body, headers)
            answer = link.getresponse()
            return answer.status, json.loads(answer.read())

        login = http.client.HTTPConnection("127.0.0.1", server.ports["rest"])
        status, answer = post(login, "/auth/authenticate", json.dumps({"username": LOGIN["NATS_USER"], "password": LOGIN["NATS_PASSWORD"]}))
        if status != 200:
            raise SystemExit(f"REST login: {status} {answer}")
        token = answer["jwt"]
        body = json.dumps([{"id": n, "text": "x" * 100} for n in range(100)])
        post(login, "/stations/rest/produce/batch", body, token)
        request = (f"POST /stations/rest/produce/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                   f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode()
        rounds = max(options.messages // 100, 50)

        def work(_):
            # By hand: the library would cost more than the server.
            with socket.create_connection(("127.0.0.1", server.ports["rest"])) as link:
                for _ in range(rounds):
                    link.sendall(request)
                    answer = b""
                    while b"\r\n\r\n" not in answer:
                        answer += link.recv(65536)
                    head, rest = answer.split(b"\r\n\r\n", 1)
                    if b" 200 " not in head.split(b"\r\n", 1)[0]:
                        raise SystemExit(f"REST: {answer!r}")
                    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                    while len(rest) < length:
                        rest += link.recv(65536)

        for connections in (1, 8):
            rates, used = [], []
            count = connections * rounds * 100
            for _ in range(options.runs):
                before, began = server.cpu(), time.perf_counter()
                with concurrent.futures.ThreadPoolExecutor(connections) as pool:
                    list(pool.map(work, range(connections)))
                rates.append(count / (time.perf_counter() - began))
                used.append((server.cpu() - before) / count)
            yield (f"REST, batches of 100, {connections} connection{'s' * (connections > 1)}: {statistics.median(rates):,.0f} messages/s (best {max(rates):,.0f}), "
                   f"{statistics.median(used) * 1e6:.1f} us of server CPU each; wanted: 20,000/s")


class Nats:
    """A connection that asks."""

    def __init__(self, port):
        self.link = socket.create_connection(("127.0.0.1", port))
        self.file = self.link.makefile("rb")
        self.file.readline()
        connect = {"verbose": False, "user": LOGIN["NATS_USER"], "pass": LOGIN["NATS_PASSWORD"], "headers": True, "no_responders": True}
        self.link.sendall(f"CONNECT {json.dumps(connect)}\r\nSUB rates.inbox 1\r\nPING\r\n".encode())
        self.sent = 0

    def send(self, what, body):
        text = json.dumps(body).encode()
        self.link.sendall(f"PUB $MENES.API.{what} rates.inbox {len(text)}\r\n".encode() + text + b"\r\n")

    def answer(self):
        return json.loads(self.received())

    def received(self):
        while True:
            line = self.file.readline()
            if line.startswith(b"MSG "):
                length = int(line.split()[-1])
                return self.file.read(length + 2)[:-2]
            if line.startswith(b"PING"):
                self.link.sendall(b"PONG\r\n")
            if line.startswith(b"-ERR") or not line:
                raise SystemExit(f"NATS: {line}")

    def all(self, requests):
        """The answers to many requests, 200 on their way at a time."""
        sent = 0
        requests = list(requests)
        for done in range(len(requests)):
            while sent < len(requests) and sent - done < 200:
                self.send(*requests[sent])
                sent += 1
            answer = self.answer()
            if "error" in answer:
                raise SystemExit(answer)


def many_stations(options, folder):
    server = menes(options, folder)
    with server:
        nats = Nats(server.ports["nats"])
        began = time.perf_counter()
        nats.all(("STATION.CREATE", {"station": f"s{n}"}) for n in range(options.stations))
        made = time.perf_counter() - began
        began = time.perf_counter()
        nats.all(("GROUP.CREATE", {"station": f"s{n}", "group": f"g{g}"}) for n in range(options.stations) for g in range(3))
        groups = time.perf_counter() - began
        yield f"{options.stations:,} stations made in {made:.1f} s, {3 * options.stations:,} groups in {groups:.1f} s; memory {server.memory():.0f} MiB"
        yield from looks(options, server, nats)
        yield f"memory after that {server.memory():.0f} MiB"
    with server:
        nats = Nats(server.ports["nats"])
        nats.send("STATUS", {})
        nats.answer()
        ready = time.perf_counter() - server.began
        yield f"start with them: ready after {ready:.2f} s; memory {server.memory():.0f} MiB"


def looks(options, server, nats):
    times, used = [], []
    for _ in range(options.runs * 3):
        before, began = server.cpu(), time.perf_counter()
        nats.send("STATION.LIST", {})
        answer = nats.received()
        # Until the last byte is here; what the reader makes of it is its own.
        times.append(time.perf_counter() - began)
        used.append(server.cpu() - before)
        count = len(json.loads(answer)["stations"])
    yield (f"STATION.LIST of {count:,} stations, {len(answer) / 1e6:.1f} MB: {statistics.median(times) * 1e3:.0f} ms (best {min(times) * 1e3:.0f}), "
           f"{statistics.median(used) * 1e3:.0f} ms of server CPU; wanted: 100 ms")
    times = []
    for _ in range(options.runs):
        began = time.perf_counter()
        subprocess.run([options.menes, "station", "ls", "-o", "name", "-s", f"nats://127.0.0.1:{server.ports['nats']}"], check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, **LOGIN})
        times.append(time.perf_counter() - began)
    yield f"menes station ls: {statistics.median(times) * 1e3:.0f} ms (best {min(times) * 1e3:.0f})"
    metrics = http.client.HTTPConnection("127.0.0.1", server.ports["metrics"])
    for names in ("menes", "menes", "nats"):
        before, began = server.cpu(), time.perf_counter()
        metrics.request("GET", f"/metrics?names={names}")
        # What clients wait for meanwhile.
        longest = 0
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            reading = pool.submit(lambda: metrics.getresponse().read())
            while not reading.done():
                asked = time.perf_counter()
                nats.send("STATION.INFO", {"station": "s1"})
                nats.answer()
                longest = max(longest, time.perf_counter() - asked)
            answer = reading.result()
        took = time.perf_counter() - began
        yield (f"scrape of the {names} names: {took * 1e3:.0f} ms, {len(answer) / 1e6:.1f} MB, {(server.cpu() - before) * 1e3:.0f} ms of CPU with the requests beside it, "
               f"the longest of which took {longest * 1e3:.1f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--menes", required=True, help="the server to measure, a release build")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--stations", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=["sdk", "rest", "stations"])
    options = parser.parse_args()
    found = tools()
    parts = {"sdk": lambda f: sdk_rates(options, found, f), "rest": lambda f: rest_rate(options, f), "stations": lambda f: many_stations(options, f)}
    with tempfile.TemporaryDirectory(prefix="menes-rates-") as folder:
        for name, part in parts.items():
            if options.only in (None, name):
                place = pathlib.Path(folder) / name
                place.mkdir()
                for line in part(place):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
