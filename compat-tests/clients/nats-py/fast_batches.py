"""Batches that are published fast, with acknowledgements every so many messages."""

import json

from api import Api
from fast import APPEND, COMMIT, COMMIT_BEFORE, PING, START, Answers
from scenario import check, note, run


async def scenario(nc):
    js = nc.jetstream()
    call = Api(nc).call

    made = await call("STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "allow_batched": True})
    note("stream", made["config"])

    answers = await Answers.open(nc, patience=2, pause=0.05)
    seen = answers.seen

    async def send(batch, seq, operation, subject="s.a", flow=2, gap="fail", payload=b"x", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        reply = answers.reply(batch, flow, gap, seq, operation)
        await nc.publish(subject, payload, reply=reply, headers=headers or None)

    async def state(label):
        note(label, (await js.stream_info("S")).state.messages)

    await send("one", 1, START)
    await seen("start")
    await send("one", 2, APPEND)
    await seen("second")
    await send("one", 3, APPEND)
    await seen("third", 0)
    await send("one", 4, APPEND)
    await seen("fourth")
    await send("one", 5, COMMIT)
    await seen("commit")
    await state("five")

    await send("two", 1, COMMIT)
    await seen("alone")
    await send("three", 1, START)
    await seen("start")
    await send("three", 2, COMMIT_BEFORE)
    await seen("end of batch")
    await state("seven")

    await send("four", 1, START, flow=100)
    await seen("start")
    for seq in range(2, 20):
        await send("four", seq, APPEND, flow=100)
    await send("four", 19, PING, flow=100)
    await seen("ping")
    await send("four", 25, PING, flow=100)
    await seen("ping ahead", 2)
    await send("four", 20, APPEND, flow=100)
    await seen("over", 1)
    await state("a gap ends it")

    await send("five", 1, START, gap="ok")
    await seen("start")
    await send("five", 4, APPEND, gap="ok")
    await seen("gap", 2)
    await send("five", 3, APPEND, gap="ok")
    await seen("backwards", 1)
    await send("six", 1, START)
    await seen("start")
    await send("six", 3, APPEND)
    await seen("gap", 2)
    await send("six", 4, APPEND)
    await seen("after the end")
    await state("gaps")

    await send("seven", 1, START, Nats_Expected_Last_Sequence="1")
    await seen("refused at once")
    await send("seven", 2, APPEND)
    await seen("never begun")
    await send("eight", 1, START)
    await seen("start")
    await send("eight", 2, APPEND, Nats_Expected_Stream="X")
    await seen("refused", 2)
    await send("nine", 1, START, gap="ok")
    await seen("start")
    await send("nine", 2, APPEND, gap="ok", Nats_Expected_Stream="X")
    await seen("refused, and goes on")
    await send("nine", 3, COMMIT, gap="ok")
    await seen("commit")
    await send("ten", 1, START, Nats_Msg_Id="a")
    await seen("start")
    await send("ten", 2, APPEND, Nats_Msg_Id="a")
    await seen("duplicate")
    await send("ten", 3, COMMIT, Nats_Msg_Id="b")
    await seen("commit")
    await send("eleven", 1, COMMIT, Nats_Msg_Id="a")
    await seen("duplicate alone")
    await state("refusals")

    await send("unknown", 2, APPEND)
    await seen("unknown")
    await send("x" * 65, 1, START)
    await seen("long id")
    for parts in ["x.1.ok.0.0", "x.1.ok.2.0", "x.1.ok.1.1", "x.1.ok.1.3", "x.1.ok.1.7", "x.1.no.1.0", "1.ok.1.0"]:
        await nc.publish("s.a", b"", reply=f"{answers.inbox}.{parts}.$FI" if parts[0] == "x" else f"y.{parts}.$FI")
        if parts[0] == "x":
            await seen(f"pattern {parts}")
    await send("level", 1, START, Nats_Required_Api_Level="99")
    await seen("level")
    await send("level", 1, COMMIT, Nats_Required_Api_Level="1")
    await seen("level")
    note("kept", (await js.get_last_msg("S", "s.a")).headers)

    # Everything at once.
    for seq in range(1, 501):
        await send("many", seq, START if seq == 1 else APPEND if seq < 500 else COMMIT, flow=50)
    final = None
    while final is None:
        answer = json.loads(await answers.next(10))
        final = answer if "stream" in answer else None
    check("all of them", final["count"], 500)
    await state("all of them")

    await call("STREAM.CREATE.P", {"name": "P", "subjects": ["p.>"]})
    await send("no", 1, START, "p.a")
    await seen("not allowed")
    note("mirror", await call("STREAM.CREATE.X", {"name": "X", "mirror": {"name": "S"}, "allow_batched": True}))
    await call("STREAM.CREATE.M", {"name": "M", "subjects": ["m.>"], "allow_batched": True, "storage": "memory", "max_msg_size": 10})
    await send("memory", 1, START, "m.a")
    await seen("start in memory")
    await send("memory", 2, APPEND, "m.a", payload=b"0123456789a")
    await seen("too large")
    await send("memory", 2, COMMIT, "m.a")
    await seen("commit in memory")


run(scenario)
