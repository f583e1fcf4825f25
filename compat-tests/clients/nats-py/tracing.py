"""Messages whose way is told: every event of every trace is compared between servers."""

import asyncio
import json
import os

import nats
import nats.errors
from documents import lines
from scenario import note, run

VARYING = {"server": "<server>", "ts": "<time>", "cid": "<number>"}


def tidy(value):
    if isinstance(value, dict):
        return {k: VARYING[k] if k in VARYING else tidy(v) for k, v in value.items()}
    return [tidy(v) for v in value] if isinstance(value, list) else value


class Tracer:
    """Publishes messages that ask for a trace, and prints the traces."""

    def __init__(self, talker, traces, received):
        self.talker, self.traces, self.received = talker, traces, received

    async def __call__(self, label, subject, headers, payload=b"hello", wait=None):
        self.received.clear()
        await self.talker.publish(subject, payload, headers=headers)
        await self.talker.flush()
        try:
            wait = wait or (2 if "Nats-Trace-Dest" in headers else 0.3)
            message = await self.traces.next_msg(timeout=wait)
        except (nats.errors.TimeoutError, asyncio.TimeoutError):
            note(label, "no trace")
        else:
            note(label, message.subject)
            document = tidy(json.loads(message.data))
            document["events"].sort(key=lambda event: (event["type"] != "in", str(event.get("sub")), str(event)))
            for line in lines(document):
                print(f"  {line}", flush=True)
        await asyncio.sleep(0.05)
        note(f"{label}, received", sorted(self.received))


async def scenario(nc):
    async def client(name, **options):
        return await nats.connect(os.environ["NATS_URL"], user=os.environ["NATS_USER"],
                                  password=os.environ["NATS_PASSWORD"], name=name, **options)

    talker, one, two = await client("talker", no_echo=True), await client("one"), await client("two")
    traces = await nc.subscribe("traces.>")
    received = []

    async def got(message):
        received.append((message.subject, len(message.data)))

    await one.subscribe("a.*", cb=got)
    await two.subscribe("a.b", queue="q", cb=got)
    await talker.subscribe("a.>", cb=got)
    limited = await one.subscribe("once", cb=got)
    await limited.unsubscribe(1)
    js = nc.jetstream()
    await js.add_stream(name="S", subjects=["s.>"])
    for connection in (nc, one, two, talker):
        await connection.flush()

    traced = Tracer(talker, traces, received)
    to = {"Nats-Trace-Dest": "traces.x"}
    only = {**to, "Nats-Trace-Only": "true"}
    await traced("delivered and traced", "a.b", to)
    await traced("only traced", "a.b", only)
    await traced("to nobody", "nobody", to)
    await traced("the last of a subscription", "once", to)
    await traced("into a stream", "s.1", to)
    await traced("only traced into a stream", "s.1", only)
    note("stored", (await js.stream_info("S")).state.messages)
    note("its header", (await js.get_msg("S", 1)).headers)
    await traced("other headers", "a.c", {**to, "Trace": "1", "other": "x"}, b"")
    await traced("a bad destination", "a.b", {"Nats-Trace-Dest": "traces.*"})
    await traced("a bad destination, only traced", "a.b", {"Nats-Trace-Dest": "traces.*", "Nats-Trace-Only": "on"})
    await traced("disabled", "a.b", {"Nats-Trace-Dest": "trace disabled"})
    await traced("no destination", "a.b", {"Nats-Trace-Only": "true"})
    await traced("of another system", "a.b",
                 {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    for connection in (one, two, talker):
        await connection.close()


if __name__ == "__main__":
    run(scenario)
