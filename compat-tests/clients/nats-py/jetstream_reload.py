"""JetStream is switched off and on by reloads while a client stays connected."""

import json
import os
import urllib.request

import nats
import reloading
from reloading import FILE, said
from scenario import check, eventually, note, run


async def reload(old, new):
    """Puts other words into the configuration; notes what the log says of it."""
    fresh, _ = await reloading.reload(old, new)
    wanted = [said(line) for line in fresh if "eloaded: JetStream" in line or "Failed" in line or "Shutdown" in line]
    note(f"reload to {new}", sorted(wanted))


def page(name):
    with urllib.request.urlopen(f"{os.environ['MONITORING_URL']}/{name}") as answer:
        return json.load(answer)


async def api(nc, what, body=None):
    """The answer, or none: nats-server keeps silent, Menes says that nobody listens."""
    data = b"" if body is None else json.dumps(body).encode()
    try:
        answer = json.loads((await nc.request(f"$JS.API.{what}", data, timeout=1.5)).data)
    except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
        return None
    return answer


async def show(nc, label):
    info = await api(nc, "STREAM.INFO.S")
    note(f"{label}: stream", info and info.get("state", {}).get("messages", info.get("error")))
    info = await api(nc, "CONSUMER.INFO.S.C")
    note(f"{label}: consumer", info and info.get("num_pending", info.get("error")))
    info = await api(nc, "INFO")
    note(f"{label}: account", info and {k: info.get(k) for k in ("streams", "consumers")})
    try:
        answer = json.loads((await nc.request("s.a", b"x", timeout=3)).data)
        note(f"{label}: publish", answer)
    except nats.errors.NoRespondersError:
        note(f"{label}: publish", "no responders")
    note(f"{label}: healthz", page("healthz"))
    streams = page("jsz")
    note(f"{label}: jsz", {k: streams.get(k) for k in ("disabled", "accounts")})
    note(f"{label}: accountz", page("accountz?acc=$G")["account_detail"]["jetstream_enabled"])


async def scenario(nc):
    on, off = "jetstream: enabled", "jetstream: disabled"
    seen = []

    async def heard(message):
        seen.append(message.data)

    await nc.subscribe("heard", cb=heard)
    if on in FILE.read_text():
        await api(nc, "STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"]})
        await api(nc, "CONSUMER.DURABLE.CREATE.S.C", {"stream_name": "S", "config": {"durable_name": "C", "ack_policy": "explicit"}})
        await show(nc, "at first")
        await reload(on, off)
    await show(nc, "off")
    await reload(off, on)
    if (await api(nc, "STREAM.NAMES"))["streams"] is None:
        await api(nc, "STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"]})
        await api(nc, "CONSUMER.DURABLE.CREATE.S.C", {"stream_name": "S", "config": {"durable_name": "C", "ack_policy": "explicit"}})
    await show(nc, "on")
    bucket = await nc.jetstream().create_key_value(bucket="B")
    await bucket.put("k", b"v")
    for round in range(3):
        await reload(on, off)
        await reload(off, on)
        await show(nc, f"on again, {round}")
    bucket = await nc.jetstream().key_value("B")
    check("kept", (await bucket.get("k")).value, b"v")
    pull = await nc.jetstream().pull_subscribe_bind("C", "S")
    messages = await pull.fetch(2, timeout=5)
    for message in messages:
        await message.ack_sync()
    note("fetched", [message.data for message in messages])
    await nc.publish("heard", b"end")

    async def ended():
        return b"end" in seen
    await eventually("what is published is delivered", ended)


run(scenario)
