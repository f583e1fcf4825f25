#!/usr/bin/env python3
"""How much Menes and nats-server take for what lies idle, and how fast they find it again.

    scripts/scale.py --server PATH [--reference PATH] [--row NAME ...] [--folder DIR] [--scale 1.0]

Rows (figures at scale 1):
  idle       10,000 streams, then 10 consumers on each: memory of one of each; start after kill -9
  messages   20,000,000 messages of 500 bytes in 1,000 streams: start after kill -9, memory
  restart    2,000,000 messages of 128 bytes in one stream: start after kill -9
  subjects   10,000,000 subjects in one stream, a message each: memory, before and after a restart
  purge      publishing to one stream while another of 10,000,000 messages is purged
  sieve      the same while 1,000,000 messages of 1,000 subjects are purged by a filter
  shrink     the same while such a stream is told to hold 10 messages
  expiry     the same while all of them expire
  curve      server CPU for one message more in streams of 1,000 to 20,000,000, and to get one of them
             (at scale 5 to 100,000,000, with 40 GB on the disk)

Servers run one after the other on loopback, with their data below DIR. Memory is resident set size.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path


class Client:
    """Enough of the protocol to ask, and to write faster than a library would."""

    def __init__(self, port, inbox="in"):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=600)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.socket.makefile("rb", 1 << 20)
        self.input.readline()
        subscription = b"SUB %s.* 1\r\n" % inbox.encode()
        self.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n' + subscription + b"PING\r\n")
        self.until_pong()

    def write(self, data):
        self.socket.sendall(data)

    def until_pong(self):
        while (line := self.input.readline()) != b"PONG\r\n":
            if line.startswith(b"-ERR") or not line:
                raise ConnectionError(line)

    def flush(self):
        self.write(b"PING\r\n")
        self.until_pong()

    def message(self):
        while True:
            words = self.input.readline().split()
            if not words or words[0] == b"-ERR":
                raise ConnectionError(words)
            if words[0] == b"PING":
                self.write(b"PONG\r\n")
            if words[0] in (b"MSG", b"HMSG"):
                return self.input.read(int(words[-1]) + 2)[:-2]

    def ask(self, *requests):
        """Sends requests in groups and gives the answers, in no certain order."""
        answers = []
        for start in range(0, len(requests), 256):
            group = requests[start : start + 256]
            parts = []
            for subject, body in group:
                body = json.dumps(body).encode() if body is not None else b""
                parts.append(b"PUB $JS.API.%s in.x %d\r\n%s\r\n" % (subject.encode(), len(body), body))
            self.write(b"".join(parts))
            for _ in group:
                answer = json.loads(self.message())
                if "error" in answer:
                    sys.exit(f"refused: {answer['error']}")
                answers.append(answer)
        return answers

    def publish(self, subjects, size):
        """Publishes without asking for acknowledgements."""
        payload = b"%d\r\n%s\r\n" % (size, b"x" * size)
        parts = []
        for subject in subjects:
            parts.append(b"PUB %s %s" % (subject, payload))
            if len(parts) == 2048:
                self.write(b"".join(parts))
                parts.clear()
        self.write(b"".join(parts))
        self.flush()


class Server:
    """A server and its data."""

    def __init__(self, program, folder):
        self.program, self.folder = program, Path(folder)
        self.start()

    def start(self):
        """Starts it and gives the seconds until it says that it is healthy."""
        for old in self.folder.glob("*.ports"):
            old.unlink()
        config = self.folder / "server.conf"
        config.write_text(
            f'listen: "127.0.0.1:-1"\nhttp: "127.0.0.1:-1"\nports_file_dir: "{self.folder}"\n'
            # Who publishes for minutes on a busy machine answers no pings meanwhile.
            f'max_pending: 1GB\nping_interval: 3600\njetstream {{ store_dir: "{self.folder}/data", max_file: 64GB, max_mem: 8GB }}\n'
        )
        before = time.monotonic()
        log = (self.folder / "log").open("ab")
        name = self.folder / "nats-server"
        if not name.exists():
            name.symlink_to(Path(self.program).resolve())
        self.process = subprocess.Popen([name, "-c", config], stdout=log, stderr=log)
        while True:
            if self.process.poll() is not None:
                sys.exit(f"{self.program} ended:\n{(self.folder / 'log').read_text()[-2000:]}")
            for file in self.folder.glob("*.ports"):
                try:
                    ports = json.loads(file.read_text())
                    self.port = int(ports["nats"][0].rsplit(":", 1)[1])
                    self.monitor = ports["monitoring"][0]
                    with urllib.request.urlopen(f"{self.monitor}/healthz", timeout=600) as answer:
                        if answer.status == 200:
                            return time.monotonic() - before
                except (OSError, ValueError, LookupError):
                    pass
            time.sleep(0.005)

    def restart(self):
        self.process.kill()
        self.process.wait()
        return self.start()

    def memory(self):
        """Resident bytes, once they have stopped falling."""
        least, same = None, 0
        while same < 5:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            now = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) << 10
            same = same + 1 if least is not None and now > least * 0.99 else 0
            least = now if least is None else min(least, now)
            time.sleep(0.5)
        return least

    def cpu(self):
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def disk(self):
        return sum(f.stat().st_blocks * 512 for f in (self.folder / "data").rglob("*") if f.is_file())

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def stream(name, subjects, **more):
    return (f"STREAM.CREATE.{name}", {"name": name, "subjects": subjects, "retention": "limits", "storage": "file", "num_replicas": 1, **more})


def until_stored(client, name, count):
    deadline = time.monotonic() + 1800
    while True:
        state = client.ask((f"STREAM.INFO.{name}", None))[0]["state"]
        if state["messages"] >= count:
            return
        if time.monotonic() > deadline:
            sys.exit(f"{name} holds {state['messages']} of {count}")
        time.sleep(0.05)


def idle(server, scale):
    streams = int(10_000 * scale)
    client, empty = Client(server.port), server.memory()
    began = time.monotonic()
    client.ask(*(stream(f"s{n}", [f"s{n}.>"]) for n in range(streams)))
    yield "streams made a second", streams / (time.monotonic() - began)
    client.publish((b"s%d.x" % n for n in range(streams)), 100)
    with_streams = server.memory()
    yield "KiB for a stream with one message", (with_streams - empty) / streams / 1024
    began = time.monotonic()
    config = {"ack_policy": "explicit", "deliver_policy": "all"}
    client.ask(*(
        (f"CONSUMER.DURABLE.CREATE.s{n}.c{c}", {"stream_name": f"s{n}", "config": {"durable_name": f"c{c}", **config}})
        for n in range(streams)
        for c in range(10)
    ))  # fmt: skip
    yield "consumers made a second", 10 * streams / (time.monotonic() - began)
    yield "KiB for a consumer", (server.memory() - with_streams) / streams / 10 / 1024
    yield "seconds to start", server.restart()
    yield "MiB after that", server.memory() / (1 << 20)


def messages(server, scale):
    streams, count = 1000, int(20_000_000 * scale)
    client = Client(server.port)
    client.ask(*(stream(f"s{n}", [f"s{n}"]) for n in range(streams)))
    began = time.monotonic()
    client.publish((b"s%d" % (n % streams) for n in range(count)), 500)
    until_stored(client, "s0", count // streams)
    yield "messages stored a second", count / (time.monotonic() - began)
    yield "GB on disk", server.disk() / 1e9
    yield "seconds to start", server.restart()
    yield "MiB after that", server.memory() / (1 << 20)
    until_stored(Client(server.port), "s1", count // streams)


def restart(server, scale):
    count = int(2_000_000 * scale)
    client = Client(server.port)
    client.ask(stream("s", ["s"]))
    client.publish((b"s" for _ in range(count)), 128)
    until_stored(client, "s", count)
    yield "seconds to start", server.restart()
    until_stored(Client(server.port), "s", count)


def subjects(server, scale):
    count = int(10_000_000 * scale)
    client, empty = Client(server.port), server.memory()
    client.ask(stream("s", ["s.>"]))
    began = time.monotonic()
    client.publish((b"s.%d.%d" % (n % 1000, n) for n in range(count)), 16)
    until_stored(client, "s", count)
    yield "messages stored a second", count / (time.monotonic() - began)
    yield "MiB", (server.memory() - empty) / (1 << 20)
    yield "seconds to start", server.restart()
    yield "MiB after that", (server.memory() - empty) / (1 << 20)


def beside(server, count, what, act, names=(b"old",)):
    """Publishes to one stream while something happens to another with many messages."""
    count = int(count)
    client = Client(server.port)
    client.ask(stream("old", ["old", "old.*"]), stream("new", ["new"], max_msgs=100_000))
    client.publish((names[n % len(names)] for n in range(count)), 128)
    until_stored(client, "old", count)
    done, rates = threading.Event(), []

    def publish():
        publisher = Client(server.port, "acks")
        data = b"PUB new acks.x 128\r\n" + b"x" * 128 + b"\r\n"
        while not done.is_set():
            began, sent = time.monotonic(), 0
            while time.monotonic() - began < 0.1:
                publisher.write(data * 500)
                for _ in range(500):
                    publisher.message()
                sent += 500
            rates.append((began, time.monotonic(), sent))

    thread = threading.Thread(target=publish)
    thread.start()
    time.sleep(11)
    began = time.monotonic()
    act(client)
    took = time.monotonic() - began
    # What follows in the background counts, too.
    time.sleep(max(0, 10 - took))
    done.set()
    thread.join()
    # The first second warms up.
    before = [r for r in rates if rates[0][0] + 1 < r[0] and r[1] < began]
    during = [r for r in rates if r[1] >= began]

    def rate(runs):
        return sum(sent for _, _, sent in runs) / sum(end - start for start, end, _ in runs)

    yield f"seconds to {what}", took
    yield "acknowledged publishes a second before", rate(before)
    yield "share kept in the 10 seconds from then on", rate(during) / rate(before)
    yield "longest time for 500 publishes before, s", max(end - start for start, end, _ in before)
    yield "and from then on, s", max(end - start for start, end, _ in during)


def purge(server, scale):
    yield from beside(server, 10_000_000 * scale, "purge", lambda client: client.ask(("STREAM.PURGE.old", None)))


MANY = [b"old.%d" % n for n in range(1000)]


def sieve(server, scale):
    yield from beside(server, 1_000_000 * scale, "purge", lambda client: client.ask(("STREAM.PURGE.old", {"filter": "old.*"})), MANY)


def shrink(server, scale):
    def lower(client):
        client.ask(("STREAM.UPDATE.old", {"name": "old", "subjects": ["old", "old.*"], "max_msgs": 10}))
        while client.ask(("STREAM.INFO.old", None))[0]["state"]["messages"] > 10:
            time.sleep(0.05)

    yield from beside(server, 1_000_000 * scale, "shrink", lower, MANY)


def expiry(server, scale):
    def expire(client):
        client.ask(("STREAM.UPDATE.old", {"name": "old", "subjects": ["old", "old.*"], "max_age": 1_000_000_000, "duplicate_window": 1_000_000_000}))
        while client.ask(("STREAM.INFO.old", None))[0]["state"]["messages"]:
            time.sleep(0.05)

    yield from beside(server, 10_000_000 * scale, "expire", expire)


def curve(server, scale):
    client = Client(server.port)
    chosen = random.Random(1)
    sizes = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 20_000_000, 50_000_000, 100_000_000)
    for size in (size for size in sizes if size <= 20_000_000 * scale):
        name = f"c{size}"
        client.ask(stream(name, [name], max_msgs=size))
        client.publish((name.encode() for _ in range(size)), 128)
        until_stored(client, name, size)
        more, gets = 200_000, 20_000
        data = b"PUB %s in.x 128\r\n" % name.encode() + b"x" * 128 + b"\r\n"
        before = server.cpu()
        for _ in range(more // 500):
            client.write(data * 500)
            for _ in range(500):
                client.message()
        yield f"{size:,} messages: us to publish one more", (server.cpu() - before) / more * 1e6
        before = server.cpu()
        wanted = ({"seq": more + chosen.randrange(1, size)} for _ in range(gets))
        client.ask(*((f"STREAM.MSG.GET.{name}", one) for one in wanted))
        yield f"{size:,} messages: us to get one", (server.cpu() - before) / gets * 1e6
        client.ask((f"STREAM.DELETE.{name}", None))


ROWS = {row.__name__: row for row in (idle, messages, restart, subjects, purge, sieve, shrink, expiry, curve)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True)
    parser.add_argument("--reference")
    parser.add_argument("--row", action="append", choices=ROWS)
    parser.add_argument("--folder")
    parser.add_argument("--scale", type=float, default=1.0)
    asked = parser.parse_args()
    print("| Row | What | Menes |" + (" nats-server |" if asked.reference else ""), flush=True)
    print("|---|---|---|" + ("---|" if asked.reference else ""), flush=True)
    for row in asked.row or ROWS:
        columns = []
        for program in filter(None, (asked.server, asked.reference)):
            folder = tempfile.mkdtemp(prefix="menes-scale-", dir=asked.folder)
            server = Server(program, folder)
            try:
                columns.append(list(ROWS[row](server, asked.scale)))
            finally:
                server.stop()
                shutil.rmtree(folder)
        for figures in zip(*columns):
            shown = " | ".join(f"{figure:.4g}" for _, figure in figures)
            print(f"| {row} | {figures[0][0]} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
