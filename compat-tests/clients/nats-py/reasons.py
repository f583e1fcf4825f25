"""How connections end that do something wrong: what they are told, the reason that is remembered, the
user it is remembered with, and the line of the log that says who it was."""

import asyncio
import json
import os
import pathlib
import re
import urllib.request

from scenario import eventually, note, run

LOG = pathlib.Path(os.environ["SCENARIO_DIR"]) / "server.log"
HOST, PORT = os.environ["NATS_URL"].removeprefix("nats://").split(":")
LOGIN = {"user": "root", "pass": "menes-compat", "verbose": False, "pedantic": False, "headers": True, "lang": "raw", "version": "1"}
LIMITED = {**LOGIN, "user": "limited"}

# Name, CONNECT, what is said behind it.
CONVERSATIONS = [
    ("unknown verb", LOGIN, "FOO bar\r\n"),
    ("line too long", LOGIN, "PUB " + "x" * 600 + " 0\r\n\r\n"),
    ("payload too large", LOGIN, "PUB x 1001\r\n"),
    ("too many arguments", LOGIN, "PUB x y z 1\r\n"),
    ("payload without an end", LOGIN, "PUB x 1\r\nxyz\r\n"),
    ("too many subscriptions", LOGIN, "".join(f"SUB a.{n} {n}\r\n" for n in range(4)) + "-ERR 'bye'\r\n"),
    ("too many tokens", LOGIN, "SUB a.b.c.d.e 1\r\n-ERR 'bye'\r\n"),
    ("queue of the system", LOGIN, "SUB a _sys_ 1\r\n-ERR 'bye'\r\n"),
    ("subscription with four arguments", LOGIN, "SUB a b c d\r\n"),
    ("message from a client", LOGIN, "MSG a 1 1\r\nx\r\n"),
    ("headers that were not agreed", {**LOGIN, "headers": False}, "HPUB a 12 12\r\nNATS/1.0\r\n\r\n\r\n"),
    ("header larger than the whole", LOGIN, "HPUB a 13 12\r\n"),
    ("wrong password", {**LOGIN, "pass": "x"}, ""),
    ("no user", {"verbose": False}, ""),
    ("other connection type", {**LOGIN, "user": "web"}, ""),
    ("protocol of the future", {**LOGIN, "protocol": 2}, ""),
    ("no responders without headers", {**LOGIN, "headers": False, "no_responders": True}, ""),
    ("wrong password behind a right one", LOGIN, 'CONNECT {"user":"root","pass":"x"}\r\n'),
    ("not allowed", LIMITED, "PUB no 0\r\n\r\nPUB ok.a _R_.x 0\r\n\r\nSUB no 1\r\nSUB no q 2\r\nSUB ok.no 3\r\n-ERR 'bye'\r\n"),
    ("reserved", LOGIN, "PUB a $JS.ACK.x 0\r\n\r\nPUB a $GR.x 0\r\n\r\nPUB _GR_.a 0\r\n\r\nPUB $GR.a 0\r\n\r\nPUB $NRG.a 0\r\n\r\n-ERR 'bye'\r\n"),
    ("broken CONNECT", None, 'CONNECT {"user\r\n'),
    ("nothing but a message", None, "PUB a 0\r\n\r\n"),
    ("nothing at all", None, ""),
]


async def raw(connect, text):
    """Says this below any client library, and gives what was heard until the server hung up."""
    reader, writer = await asyncio.open_connection(HOST, int(PORT))
    await reader.readline()
    hello = "" if connect is None else "CONNECT " + json.dumps(connect) + "\r\n"
    writer.write((hello + text).encode())
    try:
        heard = await asyncio.wait_for(reader.read(), 30)
    except ConnectionError:
        # Bytes it did not read any more reset the connection, which may lose its last words.
        heard = b""
    writer.close()
    return heard.decode().splitlines()


def closed():
    with urllib.request.urlopen(os.environ["MONITORING_URL"] + "/connz?state=closed&auth=1&limit=1000") as answer:
        connections = json.load(answer)["connections"]
    return {c["cid"]: [c["reason"], c.get("authorized_user"), c.get("account"), c.get("lang")] for c in connections}


def errors(after):
    """Errors of the log, without those that show the state of a parser."""
    lines = [line.split("[ERR] ", 1)[1] for line in LOG.read_text()[after:].splitlines() if "[ERR] " in line]
    lines = [re.sub(r"^127\.0\.0\.1:\d+ - cid:\d+", "client", line) for line in lines]
    return [line for line in lines if not re.search(r"Client parser ERROR|Parse Error|process\w+ |JSON|EOF", line)]


async def scenario(nc):
    for label, connect, text in CONVERSATIONS:
        known, start = set(closed()), len(LOG.read_text())
        await raw(connect, text)

        async def is_closed():
            return set(closed()) - known

        await eventually("the end is known", is_closed)
        (cid,) = set(closed()) - known
        note(label, closed()[cid])
        for line in errors(start):
            note(label, line)


run(scenario)
