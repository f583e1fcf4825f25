"""Counters: streams whose messages carry the sum of all increments."""

import asyncio
import json

from api import Api
from scenario import check, note, run


async def scenario(nc):
    js = nc.jetstream()
    call = Api(nc).call

    async def add(label, subject, by, payload=b"", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if by is not None:
            headers = {"Nats-Incr": by, **headers}
        answer = await nc.request(subject, payload, headers=headers or None, timeout=5)
        note(label, answer.data.decode())

    made = await call("STREAM.CREATE.C", {"name": "C", "subjects": ["c.>"], "allow_msg_counter": True, "allow_direct": True})
    note("stream", made["config"])
    await add("one", "c.a", "1")
    await add("two more", "c.a", "+2")
    await add("less", "c.a", "-10")
    await add("another", "c.b", "007")
    await add("nothing", "c.b", "0")
    await add("large", "c.large", "9" * 60)
    await add("larger", "c.large", "1")
    await add("negative", "c.large", "-1" + "0" * 80)
    last = await js.get_last_msg("C", "c.large")
    note("body", [last.data, dict(last.headers)])
    note("direct", (await nc.request("$JS.API.DIRECT.GET.C.c.a", b"", timeout=5)).data)

    await add("id", "c.a", "5", Nats_Msg_Id="x")
    await add("id again", "c.a", "5", Nats_Msg_Id="x")
    await add("own header", "c.a", "1", Reason="test")
    note("kept", dict((await js.get_last_msg("C", "c.a")).headers))

    await add("no increment", "c.a", None)
    await add("no increment, a header", "c.a", None, Reason="test")
    await add("no number", "c.a", "one")
    await add("a float", "c.a", "1.5")
    await add("hexadecimal", "c.a", "0x10")
    await add("underscores", "c.a", "1_000")
    await add("a body", "c.a", "1", b"x")
    await add("rollup", "c.a", "1", Nats_Rollup="sub")
    await add("expected", "c.a", "1", Nats_Expected_Last_Sequence="3")
    await add("expected in subject", "c.a", "1", Nats_Expected_Last_Subject_Sequence="3")
    await add("expected stream", "c.a", "1", Nats_Expected_Stream="C")
    await add("ttl", "c.a", "1", Nats_TTL="5")
    await add("schedule", "c.a", "1", Nats_Schedule="@at 2030-01-01T00:00:00Z", Nats_Schedule_Target="c.t")

    sums = await asyncio.gather(*(nc.request("c.many", b"", headers={"Nats-Incr": "1"}, timeout=20) for _ in range(500)))
    vals = [json.loads(answer.data)["val"] for answer in sums]
    check("each sum once, in order", vals, [str(n) for n in range(1, 501)])

    await js.purge_stream("C", subject="c.a")
    await add("from the beginning", "c.a", "1")
    note("state", (await js.stream_info("C")).state)

    for label, config in [
        ("discard new", {"discard": "new"}),
        ("ttl", {"allow_msg_ttl": True}),
        ("schedules", {"allow_msg_schedules": True}),
        ("work queue", {"retention": "workqueue"}),
        ("mirror", {"mirror": {"name": "C"}}),
    ]:
        note(label, await call("STREAM.CREATE.X", {"name": "X", "allow_msg_counter": True, **config}))
    note("no counter any more", await call("STREAM.UPDATE.C", {"name": "C", "subjects": ["c.>"], "allow_direct": True}))
    await call("STREAM.CREATE.P", {"name": "P", "subjects": ["p.>"]})
    await add("not a counter", "p.a", "1")
    await add("not a counter, no number", "p.a", "one")

    await call("STREAM.CREATE.M", {"name": "M", "subjects": ["m.>"], "allow_msg_counter": True, "storage": "memory", "max_msgs_per_subject": 1})
    for _ in range(3):
        await add("in memory", "m.a", "3")
    note("in memory", [m async for m in messages(js, "M")])

    # Two regions and what they come to.
    for region in ["EAST", "WEST"]:
        await call("STREAM.CREATE." + region, {"name": region, "subjects": [region.lower() + ".>"], "allow_msg_counter": True})
    sources = [
        {"name": region, "subject_transforms": [{"src": region.lower() + ".>", "dest": "sum.>"}]} for region in ["EAST", "WEST"]
    ]
    await call("STREAM.CREATE.SUM", {"name": "SUM", "sources": sources, "allow_msg_counter": True})
    await call("STREAM.CREATE.COPY", {"name": "COPY", "mirror": {"name": "EAST"}})

    async def comes_to(stream, subject, val):
        for _ in range(200):
            try:
                last = await js.get_last_msg(stream, subject)
                if json.loads(last.data)["val"] == val:
                    return last
            except Exception:
                pass
            await asyncio.sleep(0.05)
        raise AssertionError(f"{subject} did not come to {val}")

    await add("east", "east.hits", "5")
    await add("east again", "east.hits", "2")
    await comes_to("SUM", "sum.hits", "7")
    await add("west", "west.hits", "10")
    last = await comes_to("SUM", "sum.hits", "17")
    note("sum", [last.data, json.loads(last.headers["Nats-Counter-Sources"]), last.headers["Nats-Incr"]])
    await js.purge_stream("WEST")
    await add("west from the beginning", "west.hits", "4")
    last = await comes_to("SUM", "sum.hits", "11")
    note("sum", [last.data, json.loads(last.headers["Nats-Counter-Sources"]), last.headers["Nats-Incr"]])
    last = await comes_to("COPY", "east.hits", "7")
    note("copy", [last.data, dict(last.headers)])

    await call("STREAM.CREATE.B", {"name": "B", "subjects": ["b.>"], "allow_msg_counter": True, "allow_atomic": True})

    async def part(label, batch, seq, by, subject="b.a", payload=b"", **headers):
        own = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(seq)}
        await add(label, subject, by, payload, **own, **headers)

    await part("batch", "one", 1, "1")
    await part("batch", "one", 2, "2", "b.b")
    await part("batch", "one", 3, "3", Nats_Batch_Commit="1")
    note("batch", [m async for m in messages(js, "B")])
    await part("alone", "two", 1, "4", Nats_Batch_Commit="1")
    await part("no number in a batch", "three", 1, "x", Nats_Batch_Commit="1")
    await part("no increment in a batch", "four", 1, None, Nats_Batch_Commit="1")
    await part("a body in a batch", "five", 1, "1", payload=b"x", Nats_Batch_Commit="1")
    note("batch", [m async for m in messages(js, "B")])


async def messages(js, stream):
    state = (await js.stream_info(stream)).state
    for seq in range(state.first_seq, state.last_seq + 1):
        message = await js.get_msg(stream, seq)
        yield [message.seq, message.subject, message.data, message.headers["Nats-Incr"]]


run(scenario)
