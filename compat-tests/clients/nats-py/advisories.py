"""Advisories: what the server tells about streams, consumers and requests to the API."""

import asyncio
import json

import nats
from scenario import check, note, run, settle

VARYING = ("host", "start", "rtt", "ver", "server")


def shown(message):
    """An advisory without what differs from run to run, answers and requests decoded."""
    event = json.loads(message.data)
    if "client" in event:
        for key in VARYING:
            event["client"].pop(key, None)
    event.pop("server", None)
    for key in ("request", "response"):
        try:
            event[key] = json.loads(event.get(key, ""))
        except ValueError:
            pass
    return event


async def scenario(nc):
    events = []

    async def keep(message):
        events.append((message.subject, shown(message)))

    await nc.subscribe("$JS.EVENT.>", cb=keep)
    await settle(nc)

    async def ask(what, body=None, answered=True):
        payload = b"" if body is None else json.dumps(body).encode()
        try:
            await nc.request(f"$JS.API.{what}", payload, timeout=15 if answered else 0.2)
        except nats.errors.TimeoutError:
            check(f"{what} is answered", False, answered)
        await settle(nc)
        await asyncio.sleep(0.05)
        for subject, event in sorted(events, key=lambda event: event[0]):
            note(subject, event)
        count = len(events)
        events.clear()
        return count

    stream = {"name": "A", "subjects": ["a"]}
    consumer = {"durable_name": "c", "ack_policy": "explicit"}
    until = {"pause_until": "2100-01-01T00:00:00Z"}
    check("INFO", await ask("INFO"), 1)
    check("a stream comes", await ask("STREAM.CREATE.A", stream), 2)
    check("it is as wanted already", await ask("STREAM.CREATE.A", stream), 1)
    check("it changes", await ask("STREAM.UPDATE.A", {**stream, "subjects": ["a", "b"]}), 2)
    create = {"stream_name": "A", "config": consumer}
    check("a consumer comes", await ask("CONSUMER.DURABLE.CREATE.A.c", create), 2)
    create["config"] = {**consumer, "description": "another"}
    check("it changes", await ask("CONSUMER.DURABLE.CREATE.A.c", create), 1)
    check("it pauses", await ask("CONSUMER.PAUSE.A.c", until), 2)
    check("it goes on", await ask("CONSUMER.PAUSE.A.c"), 2)
    check("questions", await ask("CONSUMER.INFO.A.c"), 1)
    check("refusals", await ask("CONSUMER.INFO.A.none"), 1)
    check("nonsense", await ask("NO.SUCH", answered=False), 0)
    await nc.jetstream().publish("a", b"1")
    check("a message", await ask("STREAM.MSG.GET.A", {"seq": 1}), 0)
    check("its deletion", await ask("STREAM.MSG.DELETE.A", {"seq": 1}), 1)
    check("a purge", await ask("STREAM.PURGE.A"), 1)
    check("a consumer goes", await ask("CONSUMER.DELETE.A.c"), 2)
    check("a stream goes", await ask("STREAM.DELETE.A"), 2)


run(scenario)
