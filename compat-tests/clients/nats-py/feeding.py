"""Consumers that were made beforehand feed mirrors and sources."""

from api import Api
from scenario import eventually, note, run

SECOND = 1_000_000_000


async def scenario(nc):
    js = nc.jetstream()
    api = Api(nc)
    call, create, count = api.call, api.create, api.count

    async def consumer(stream, name, **config):
        config = {"durable_name": name, "ack_policy": "flow_control", **config}
        return await call(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})

    async def refused(label, answer):
        note(label, answer.get("error"))
        assert "error" in answer, answer

    async def settled(stream, name, seq):
        async def has():
            info = await call(f"CONSUMER.INFO.{stream}.{name}")
            return info["ack_floor"]["stream_seq"] == seq and info["num_ack_pending"] == 0
        await eventually(f"{name} has settled {seq}", has, limit=15)

    async def content(stream):
        info = await js.stream_info(stream)
        found = []
        for seq in range(info.state.first_seq, info.state.last_seq + 1):
            message = await js.get_msg(stream, seq)
            headers = dict(message.headers or {})
            if "Nats-Stream-Source" in headers:
                headers["Nats-Stream-Source"] = " ".join(headers["Nats-Stream-Source"].split(" ")[:5])
            found.append([seq, message.subject, (message.data or b"").decode(), headers])
        return found

    # What such a consumer may be.
    await create({"name": "O", "subjects": ["o.>"]})
    await refused("pull", await consumer("O", "X"))
    await refused("ack wait", await consumer("O", "X", deliver_subject="x", ack_wait=SECOND))
    await refused("backoff", await consumer("O", "X", deliver_subject="x", backoff=[SECOND]))
    await refused("max deliver", await consumer("O", "X", deliver_subject="x", max_deliver=3))
    await refused("no max ack pending", await consumer("O", "X", deliver_subject="x", max_ack_pending=-1))
    pedantic = {"durable_name": "X", "ack_policy": "flow_control", "deliver_subject": "x", "max_deliver": -1}
    for more in ({}, {"flow_control": True}, {"flow_control": True, "idle_heartbeat": 2 * SECOND}):
        body = {"stream_name": "O", "config": {**pedantic, **more}, "pedantic": True}
        await refused(f"pedantic {more}", await call("CONSUMER.CREATE.O.X", body))
    made = await consumer("O", "FEED", deliver_subject="feed.o")
    note("made", {k: made[k] for k in ("name", "config", "num_pending", "ack_floor")})
    note("info", (await call("CONSUMER.INFO.O.FEED"))["config"])

    # A mirror.
    for n in range(5):
        await js.publish(f"o.{n % 2}", b"%d" % n, headers={"Own": "x"})
    made = await create({"name": "M", "mirror": {"name": "O", "consumer": {"name": "FEED", "deliver_subject": "feed.o"}}})
    note("mirror", made["config"]["mirror"])
    await count("M", 5)
    await settled("O", "FEED", 5)
    note("mirrored", await content("M"))
    await js.publish("o.late", b"late")
    await count("M", 6)
    await settled("O", "FEED", 6)

    # Sources of work queues are emptied, by what their consumers let through.
    await create({"name": "Q", "subjects": ["q.>"], "retention": "workqueue"})
    for n in range(6):
        await js.publish(f"q.{n % 2}", b"%d" % n)
    made = await consumer("Q", "EVEN", deliver_subject="feed.even", filter_subject="q.0")
    note("on a work queue", made["config"])
    await consumer("Q", "ODD", deliver_subject="feed.odd", filter_subject="q.1")
    await create({"name": "S", "sources": [
        {"name": "Q", "consumer": {"name": "EVEN", "deliver_subject": "feed.even"}},
        {"name": "Q", "consumer": {"name": "ODD", "deliver_subject": "feed.odd"},
         "subject_transforms": [{"src": "q.*", "dest": "odd.{{wildcard(1)}}"}]},
    ]})
    await count("S", 6)
    await count("Q", 0)
    note("by source", sorted((m[1:] for m in await content("S")), key=str))
    infos = (await call("STREAM.INFO.S"))["sources"]
    note("source infos", sorted(({k: v for k, v in i.items() if k not in ("active", "lag")} for i in infos), key=str))
    await js.publish("q.0", b"more")
    await count("S", 7)
    await count("Q", 0)

    # Whoever is fed does not own who feeds it.
    await js.delete_stream("S")
    note("consumers left", sorted((await call("CONSUMER.NAMES.Q"))["consumers"]))

    # One that acknowledges in another way does not do.
    await call("CONSUMER.CREATE.O.PLAIN", {"stream_name": "O", "config": {
        "durable_name": "PLAIN", "ack_policy": "explicit", "deliver_subject": "feed.plain"}})
    await create({"name": "P", "mirror": {"name": "O", "consumer": {"name": "PLAIN", "deliver_subject": "feed.plain"}}})

    async def has_error():
        return "error" in (await call("STREAM.INFO.P"))["mirror"]
    await eventually("P cannot be fed", has_error)
    note("acks", (await call("STREAM.INFO.P"))["mirror"]["error"])

    # What cannot be.
    for label, more in {
        "name": {"consumer": {"name": "a.b", "deliver_subject": "d"}},
        "no name": {"consumer": {"deliver_subject": "d"}},
        "no subject": {"consumer": {"name": "C"}},
        "wildcard": {"consumer": {"name": "C", "deliver_subject": "d.*"}},
        "sequence": {"consumer": {"name": "C", "deliver_subject": "d"}, "opt_start_seq": 3},
        "time": {"consumer": {"name": "C", "deliver_subject": "d"}, "opt_start_time": "2024-01-01T00:00:00Z"},
        "filter": {"consumer": {"name": "C", "deliver_subject": "d"}, "filter_subject": "o.1"},
    }.items():
        await refused(f"mirror: {label}", await call("STREAM.CREATE.X", {"name": "X", "mirror": {"name": "O", **more}}))
        await refused(f"source: {label}", await call("STREAM.CREATE.X", {"name": "X", "sources": [{"name": "O", **more}]}))
    twice = {"name": "C", "deliver_subject": "d"}
    await refused("twice", await call("STREAM.CREATE.X", {"name": "X", "sources": [
        {"name": "O", "consumer": twice},
        {"name": "O", "consumer": twice, "subject_transforms": [{"src": "o.1", "dest": "p"}]}]}))


run(scenario)
