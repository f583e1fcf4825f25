"""The lines of the log about the protocol (`-V`)."""

import asyncio
import os
import pathlib
import re

from scenario import note, run, settle

LOG = pathlib.Path(os.environ["SCENARIO_DIR"]) / "server.log"
HOST, PORT = os.environ["NATS_URL"].removeprefix("nats://").split(":")


async def raw(text):
    """Says this below any client library, until the server hangs up."""
    reader, writer = await asyncio.open_connection(HOST, int(PORT))
    writer.write(text.replace("\n", "\r\n").encode())
    await asyncio.wait_for(reader.read(), 5)
    writer.close()


def traced(after):
    """What the log says, connection by connection; the order of what happens at once is free."""
    text = LOG.read_text()[after:]
    lines = [line.split("[TRC] ", 1)[1] for line in text.splitlines() if "[TRC] " in line]
    lines = [re.sub(r"^127\.0\.0\.1:\d+ - cid:\d+", "client", line) for line in lines]
    lines = [re.sub(r"_INBOX\.[A-Za-z0-9.]+", "_INBOX", line) for line in lines]
    lines = [re.sub(r'"v[0-9.]+:', '"v1:', line) for line in lines]
    return sorted(re.sub(r'"version": "[0-9.]+"', '"version": "1"', line) for line in lines if line.startswith("client"))


async def scenario(nc):
    start = len(LOG.read_text())
    sub = await nc.subscribe("foo.*", queue="q")
    await settle(nc)
    await nc.publish("foo.a", b'hello "x"\n\xff\x00 z', headers={"A": "b"})
    await nc.publish("foo.b", b"")
    await nc.publish("foo.c", b"with a reply", reply="r.x")
    for _ in range(3):
        await sub.next_msg(timeout=5)
    await sub.unsubscribe()
    limited = await nc.subscribe("bar")
    await limited.unsubscribe(limit=1)
    await nc.publish("bar", "ü€".encode())
    await nc.publish("mapped.a", b"1")
    await settle(nc)
    await raw('CONNECT {"user":"root","pass":"canary1","sig":"canary2","proxy_sig":"canary3","auth_token":"canary4"}\nPING\n')
    await raw('CONNECT {"user":"root","pass":"menes-compat","pedantic":true,"lang":"none"}\nPING\nsub  a   1\n'
              'PUB a..b 2\nhi\nPUB x r.e 1\nx\nUNSUB 1\nPONG\nSUB a..b 7\nFOO\n')
    await settle(nc)
    for line in traced(start):
        note("", line)
    note("secrets", "canary" in LOG.read_text())


run(scenario)
