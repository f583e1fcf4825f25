"""Batches that are published fast, of increments of counters."""

import json

from api import Api
from fast import APPEND, COMMIT, COMMIT_BEFORE, START, Answers
from scenario import check, note, run


async def scenario(nc):
    js = nc.jetstream()
    call = Api(nc).call

    made = await call("STREAM.CREATE.C", {
        "name": "C", "subjects": ["c.>"], "allow_batched": True, "allow_msg_counter": True})
    note("stream", made["config"])

    answers = await Answers.open(nc, patience=5, pause=0.1)
    seen = answers.seen

    async def send(batch, seq, operation, by="1", subject="c.a", flow=2, gap="fail", payload=b"", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if by is not None:
            headers = {"Nats-Incr": by, **headers}
        reply = answers.reply(batch, flow, gap, seq, operation)
        await nc.publish(subject, payload, reply=reply, headers=headers or None)

    async def last(subject):
        message = await js.get_last_msg("C", subject)
        note(subject, [message.seq, message.data, dict(message.headers or {})])

    await send("one", 1, START)
    await seen("start")
    await send("one", 2, APPEND, "+2")
    await seen("second")
    await send("one", 3, APPEND, "-10", "c.b")
    await seen("third", 0)
    await send("one", 4, COMMIT, "9" * 40)
    await seen("commit")
    await last("c.a")
    await last("c.b")

    await send("two", 1, COMMIT, "5")
    await seen("alone")
    await last("c.a")
    await send("three", 1, START, Own="x")
    await seen("start")
    await send("three", 2, COMMIT_BEFORE)
    await seen("end of batch")
    await last("c.a")

    # What is no increment.
    for label, by, more in [
        ("no increment", None, {}),
        ("no number", "one", {}),
        ("a body", "1", {"payload": b"x"}),
        ("a sum", "1", {"payload": b'{"val":"1"}'}),
        ("rollup", "1", {"Nats_Rollup": "sub"}),
        ("expected", "1", {"Nats_Expected_Last_Sequence": "3"}),
    ]:
        name = label.replace(" ", "")
        await send(name, 1, COMMIT, by, **more)
        await seen(label)
        await send(name + "2", 1, START)
        await seen(label + ": start")
        await send(name + "2", 2, APPEND, by, **more)
        await seen(label + ": second", 2)
        await send(name + "3", 1, START, gap="ok")
        await seen(label + ": start")
        await send(name + "3", 2, APPEND, by, gap="ok", **more)
        await seen(label + ": second, and goes on")
        await send(name + "3", 3, COMMIT, gap="ok")
        await seen(label + ": commit")
    await last("c.a")

    await send("id", 1, START, Nats_Msg_Id="x")
    await seen("start")
    await send("id", 2, APPEND, Nats_Msg_Id="x")
    await seen("id again")
    await send("id", 3, COMMIT)
    await seen("commit")
    await last("c.a")

    # Everything at once, beside others.
    others = [nc.request("c.many", b"", headers={"Nats-Incr": "1000"}, timeout=20) for _ in range(20)]
    for seq in range(1, 201):
        await send("many", seq, START if seq == 1 else APPEND if seq < 200 else COMMIT, "1", "c.many", flow=50)
    for other in others:
        await other
    final = None
    while final is None:
        answer = json.loads(await answers.next(10))
        final = answer if "stream" in answer else None
    check("all of them", final["count"], 200)
    check("the sum", json.loads((await js.get_last_msg("C", "c.many")).data)["val"], "20200")


run(scenario)
