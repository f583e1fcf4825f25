"""Exports, imports and users that change while clients stay connected."""

import asyncio
import os
import pathlib
import signal

import nats
import nats.errors
from scenario import note, run, settle

FOLDER = pathlib.Path(os.environ["SCENARIO_DIR"])


def config_file():
    for name in ("reference.conf", "server.conf"):
        if (FOLDER / name).exists():
            return FOLDER / name
    raise AssertionError("no configuration")


async def client(user, log):
    async def heard(error):
        log.append(f"error {error}")

    async def gone():
        log.append("disconnected")

    return await nats.connect(os.environ["NATS_URL"], user=user, password=user, error_cb=heard,
                              disconnected_cb=gone, allow_reconnect=False)


async def collected(sub):
    found = []
    try:
        while True:
            msg = await sub.next_msg(timeout=0.2)
            found.append((msg.subject, msg.data.decode()))
    except nats.errors.TimeoutError:
        return found


async def scenario(a):
    logs = {"b": [], "c": []}
    b, c = await client("b", logs["b"]), await client("c", logs["c"])
    sub = await b.subscribe("from.a.>")
    moved = await b.subscribe("moved.>")
    await settle(b)
    await a.publish("news.1", b"before")
    await settle(a)
    note("before", await collected(sub))

    file = config_file()
    old = file.read_text()
    new = old.replace('prefix: "from.a"', 'prefix: "moved"')
    new = new.replace('"old.*.*": "new.$2.$1"', '"old.*.*": "newer.$1.$2"')
    new = new.replace("{user: c, password: c}", "{user: c, password: other}")
    assert new != old
    file.write_text(new)
    os.kill(int(os.environ["SERVER_PID"]), signal.SIGHUP)
    for _ in range(100):
        await asyncio.sleep(0.05)
        if c.is_closed:
            break
    await a.publish("news.2", b"after")
    await settle(a)
    note("after, there", await collected(moved))
    note("after, here", await collected(sub))
    mapped = await b.subscribe("newer.>")
    await b.publish("old.1.2", b"m")
    note("mapped", await collected(mapped))
    note("b stays", (b.is_connected, logs["b"]))
    note("c goes", (c.is_closed, logs["c"]))
    await b.close()


run(scenario)
