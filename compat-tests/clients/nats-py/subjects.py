"""Messages under other subjects: transforms, republishing, and markers of what expired."""

import asyncio

from nats.js import api
from api import Api
from scenario import check, eventually, note, run


async def scenario(nc):
    js = nc.jetstream()
    call = Api(nc).call

    async def refused(label, body):
        answer = await call("STREAM.CREATE." + body["name"], body)
        note(label, answer.get("error"))
        assert "error" in answer, answer

    # A transform on the way in.
    made = await call("STREAM.CREATE.IN", {
        "name": "IN", "subjects": ["in.>"],
        "subject_transform": {"src": "in.*.*", "dest": "sorted.{{wildcard(2)}}.{{wildcard(1)}}"},
        "republish": {"src": "sorted.>", "dest": "again.>"},
    })
    note("stream", made["config"])
    heard = await nc.subscribe("again.>")
    await js.publish("in.a.b", b"1", headers={"Own": "x"})
    await js.publish("in.other", b"2")
    await js.publish("in.a.b", b"3")
    for seq in (1, 2, 3):
        message = await js.get_msg("IN", seq)
        note("stored", [message.subject, message.data, message.seq])
    note("last of its new subject", (await js.get_last_msg("IN", "sorted.b.a")).seq)
    for _ in range(2):
        message = await heard.next_msg(timeout=5)
        note("republished", [message.subject, message.data, dict(message.headers)])
    ack = await js.publish("in.a.b", b"4", headers={"Nats-Expected-Last-Subject-Sequence": "3"})
    check("expected sequences are those of the new subject", ack.seq, 4)
    await heard.unsubscribe()

    # All of a partition function's buckets are the reference's.
    await call("STREAM.CREATE.P", {
        "name": "P", "subjects": ["p.*"],
        "subject_transform": {"src": "p.*", "dest": "p.{{partition(7,1)}}.{{wildcard(1)}}"},
    })
    for n in range(12):
        await js.publish(f"p.{n}", b"")
    note("partitions", [(await js.get_msg("P", n + 1)).subject for n in range(12)])

    # Headers only.
    await call("STREAM.CREATE.H", {"name": "H", "subjects": ["h.>"], "republish": {"dest": "hh.>", "headers_only": True}})
    heard = await nc.subscribe("hh.>")
    await js.publish("h.a", b"hello", headers={"Own": "y"})
    await js.publish("h.a", b"")
    for _ in range(2):
        message = await heard.next_msg(timeout=5)
        note("headers only", [message.subject, message.data, dict(message.headers)])

    # What cannot be.
    await refused("cycle", {"name": "X", "subjects": ["x.>"], "republish": {"dest": "x.y"}})
    await refused("unequal", {"name": "X", "subjects": ["x.>"], "republish": {"src": "x.*", "dest": "y.>"}})
    await refused("source", {"name": "X", "subjects": ["x.>"], "subject_transform": {"src": "x..y", "dest": "z"}})
    await refused("destination", {"name": "X", "subjects": ["x.>"], "subject_transform": {"src": "x.*", "dest": "z.{{wildcard(2)}}"}})
    await refused("function", {"name": "X", "subjects": ["x.>"], "subject_transform": {"src": "x.*", "dest": "z.{{unheard(1)}}"}})
    await refused("persist mode", {"name": "X", "subjects": ["x.>"], "storage": "memory", "persist_mode": "async"})
    made = await call("STREAM.CREATE.A", {"name": "A", "subjects": ["async.>"], "persist_mode": "async"})
    note("async", made["config"].get("persist_mode"))

    # Markers: a bucket whose keys expire tells its watchers.
    made = await call("STREAM.CREATE.KV_m", {
        "name": "KV_m", "subjects": ["$KV.m.>"], "max_msgs_per_subject": 5, "discard": "new", "allow_direct": True,
        "allow_rollup_hdrs": True, "deny_delete": True, "max_age": 1_500_000_000, "duplicate_window": 1_500_000_000,
        "subject_delete_marker_ttl": 1_000_000_000, "allow_msg_ttl": True,
    })
    note("bucket", made["config"])
    bucket = await js.key_value("m")
    watched = await nc.subscribe("watched")
    await js.subscribe("$KV.m.>", stream="KV_m", deliver_policy=api.DeliverPolicy.ALL)
    await bucket.put("a", b"1")
    await bucket.put("a", b"2")
    await bucket.put("b", b"3")

    async def has_marker():
        info = await js.stream_info("KV_m")
        return info.state.last_seq == 5 and info.state.messages == 2

    await eventually("markers", has_marker)
    for seq in (4, 5):
        message = await js.get_msg("KV_m", seq)
        note("marker", [message.subject, message.data, dict(message.headers)])
    await watched.unsubscribe()

    async def is_empty():
        info = await js.stream_info("KV_m")
        return info.state.messages == 0

    await eventually("markers expire", is_empty)
    check("markers leave no markers", (await js.stream_info("KV_m")).state.last_seq, 5)
    await bucket.put("c", b"1")
    await call("STREAM.PURGE.KV_m", {"filter": "$KV.m.c"})
    await asyncio.sleep(0.2)
    note("a purge leaves none", (await js.stream_info("KV_m")).state.last_seq)

    # A short time to live is raised to that of markers.
    await js.publish("$KV.m.short", b"x", headers={"Nats-TTL": "1s"})
    note("raised", dict((await js.get_msg("KV_m", 7)).headers))


run(scenario)
