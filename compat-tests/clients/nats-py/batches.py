"""Batches that are stored as a whole or not at all."""

from api import Api
from scenario import check, note, run


async def scenario(nc):
    js = nc.jetstream()
    call = Api(nc).call

    made = await call("STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "allow_atomic": True})
    note("stream", made["config"])

    async def part(label, batch, seq, subject="s.a", payload=b"x", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(seq), **headers}
        answer = (await nc.request(subject, payload, headers=headers, timeout=5)).data.decode()
        note(label, answer)

    await part("first", "one", 1)
    await part("second", "one", 2, "s.b")
    note("nothing yet", (await js.stream_info("S")).state.messages)
    await part("commit", "one", 3, "s.c", Nats_Batch_Commit="1")
    note("all of it", (await js.stream_info("S")).state.messages)
    note("headers", dict((await js.get_msg("S", 3)).headers))
    await part("end first", "two", 1)
    await part("end of batch", "two", 2, Nats_Batch_Commit="eob")
    note("last", [(await js.get_msg("S", 4)).subject, dict((await js.get_msg("S", 4)).headers)])
    await part("alone", "alone", 1, Nats_Batch_Commit="1")

    await part("expected", "three", 1, "s.x", Nats_Expected_Last_Sequence="5")
    await part("expected in subject", "three", 2, "s.y", Nats_Expected_Last_Subject_Sequence="0", Nats_Batch_Commit="1")
    await part("wrong first", "four", 1, "s.x", Nats_Expected_Last_Sequence="1")
    await part("wrong", "four", 2, "s.y", Nats_Batch_Commit="1")
    await part("id", "five", 1, "s.x", Nats_Msg_Id="a")
    await part("stored with an id", "five", 2, "s.y", Nats_Batch_Commit="1")
    await part("id again", "six", 1, "s.x", Nats_Msg_Id="a")
    await part("duplicate", "six", 2, "s.y", Nats_Batch_Commit="1")
    await part("last id", "seven", 1, Nats_Expected_Last_Msg_Id="a", Nats_Batch_Commit="1")
    await part("gap", "eight", 2)
    await part("begin", "nine", 1)
    await part("skip", "nine", 3)
    await part("too large", "ten", 1001)
    await part("long id", "x" * 65, 1)
    await part("unknown commit", "eleven", 1, Nats_Batch_Commit="2")
    await part("empty end", "twelve", 1, Nats_Batch_Commit="eob")
    note("state", (await js.stream_info("S")).state)
    answer = await nc.request("s.a", b"", headers={"Nats-Batch-Id": "none"}, timeout=5)
    note("no sequence", answer.data.decode())

    await call("STREAM.CREATE.P", {"name": "P", "subjects": ["p.>"]})
    await part("not allowed", "x", 1, "p.a")

    await call("STREAM.CREATE.D", {"name": "D", "subjects": ["d.>"], "allow_atomic": True, "discard": "new", "max_msgs": 2})
    await part("room", "d", 1, "d.a")
    await part("room for two", "d", 2, "d.b", Nats_Batch_Commit="1")
    await part("no room", "e", 1, "d.c", Nats_Batch_Commit="1")
    check("kept", (await js.stream_info("D")).state.messages, 2)


run(scenario)
