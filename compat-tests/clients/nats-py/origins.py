"""Mirrors and sources."""

import asyncio

from api import Api
from scenario import check, note, run


async def scenario(nc):
    js = nc.jetstream()
    api = Api(nc)
    call, create, count = api.call, api.create, api.count

    async def refused(label, body):
        answer = await call("STREAM.CREATE." + body["name"], body)
        note(label, answer.get("error"))
        assert "error" in answer, answer

    async def content(stream):
        info = await js.stream_info(stream)
        found = []
        for seq in range(info.state.first_seq, info.state.last_seq + 1):
            try:
                message = await js.get_msg(stream, seq)
            except Exception:
                continue
            headers = dict(message.headers or {})
            if "Nats-Stream-Source" in headers:
                # The reference adds a mark of its own.
                headers["Nats-Stream-Source"] = " ".join(headers["Nats-Stream-Source"].split(" ")[:5])
            found.append([seq, message.subject, (message.data or b"").decode(), headers])
        return found

    def shown(info):
        info = {k: v for k, v in info.items() if k != "active"}
        return info

    await create({"name": "O", "subjects": ["o.>"], "allow_direct": True})
    for n in range(10):
        await js.publish(f"o.{n % 3}", b"%d" % n, headers={"Nats-Msg-Id": f"id{n}", "Own": "x"})
    for seq in (1, 4, 5):
        await js.delete_msg("O", seq)

    # A mirror is the same stream.
    made = await create({"name": "M", "mirror": {"name": "O"}, "allow_direct": True})
    note("mirror", made["config"])
    await count("M", 7)
    note("mirrored", await content("M"))
    await js.publish("o.late", b"late")
    await count("M", 8)
    info = await call("STREAM.INFO.M")
    note("mirror info", shown(info["mirror"]))
    note("mirror state", info["state"])
    first = (await js.get_msg("O", 3)), (await js.get_msg("M", 3))
    check("times are those of the origin", first[0].time == first[1].time, True)
    got = await nc.request("$JS.API.DIRECT.GET.M", b'{"last_by_subj":"o.late"}', timeout=5)
    note("direct get", [got.data, got.headers.get("Nats-Stream"), got.headers.get("Nats-Sequence")])

    # From a sequence, with a filter, under other subjects.
    await create({"name": "MS", "mirror": {"name": "O", "opt_start_seq": 6}})
    await create({"name": "MF", "mirror": {"name": "O", "filter_subject": "o.1"}})
    await create({"name": "MT", "mirror": {"name": "O", "subject_transforms": [
        {"src": "o.1", "dest": "one"}, {"src": "o.2", "dest": "two"}]}})
    await count("MS", 6)
    await count("MF", 2)
    await count("MT", 5)
    note("from a sequence", [m[:2] for m in await content("MS")])
    note("filtered", [m[:2] for m in await content("MF")])
    note("transformed", [m[:2] for m in await content("MT")])

    # Sources.
    await create({"name": "P", "subjects": ["p.>"]})
    await js.publish("p.a", b"pa")
    made = await create({"name": "S", "subjects": ["s.>"], "sources": [
        {"name": "O", "filter_subject": "o.0"},
        {"name": "P", "subject_transforms": [{"src": "p.*", "dest": "s.p.{{wildcard(1)}}"}]},
    ]})
    note("sourced", made["config"]["sources"])
    await count("S", 3)
    await js.publish("s.own", b"own")
    await count("S", 4)
    await js.publish("p.b", b"pb")
    await count("S", 5)
    await js.publish("o.0", b"o0")
    await count("S", 6)
    note("by source", sorted((m[1:] for m in await content("S")), key=str))
    info = await call("STREAM.INFO.S")
    note("source infos", sorted((shown(s) for s in info["sources"]), key=str))

    # A source of a source names the nearest.
    await create({"name": "SS", "sources": [{"name": "S"}]})
    await count("SS", 6)
    note("chained", sorted(m[3].get("Nats-Stream-Source", "").split(" ")[0] for m in await content("SS")))

    # A copied message comes with its id.
    await create({"name": "D", "sources": [{"name": "O"}], "duplicate_window": 60_000_000_000})
    await count("D", 9)

    # A work queue is emptied.
    await create({"name": "Q", "subjects": ["q.>"], "retention": "workqueue"})
    for n in range(5):
        await js.publish("q.a", b"%d" % n)
    await create({"name": "QS", "sources": [{"name": "Q"}]})
    await count("QS", 5)
    await count("Q", 0)

    # An origin that comes later.
    made = await create({"name": "L", "mirror": {"name": "LATER"}})
    await asyncio.sleep(0.5)
    await create({"name": "LATER", "subjects": ["later.>"]})
    await js.publish("later.x", b"x")
    await count("L", 1)

    # A mirror becomes a stream.
    await js.delete_stream("LATER")
    answer = await call("STREAM.UPDATE.L", {"name": "L", "subjects": ["later.>"]})
    note("promoted", answer["config"]["subjects"])
    ack = await js.publish("later.y", b"y")
    check("it goes on", ack.seq, 2)

    # What cannot be.
    await refused("subjects", {"name": "X", "subjects": ["x"], "mirror": {"name": "O"}})
    await refused("sources", {"name": "X", "sources": [{"name": "P"}], "mirror": {"name": "O"}})
    await refused("first sequence", {"name": "X", "first_seq": 3, "mirror": {"name": "O"}})
    await refused("name", {"name": "X", "mirror": {"name": "a.b"}})
    await refused("filter and transforms", {"name": "X", "mirror": {"name": "O", "filter_subject": "o", "subject_transforms": [{"src": "o", "dest": "p"}]}})
    await refused("overlap", {"name": "X", "mirror": {"name": "O", "subject_transforms": [{"src": "o.>", "dest": "p.>"}, {"src": "o.a", "dest": "b"}]}})
    await refused("size", {"name": "X", "max_msg_size": 10, "sources": [{"name": "BIG"}], "mirror": {"name": "O"}})
    await refused("duplicate", {"name": "X", "sources": [{"name": "P"}, {"name": "P"}]})
    await refused("source name", {"name": "X", "sources": [{"name": "P.Q"}]})
    await refused("source transform", {"name": "X", "sources": [{"name": "P", "subject_transforms": [{"src": "p.*", "dest": "{{wildcard(3)}}"}]}]})
    await refused("markers", {"name": "X", "mirror": {"name": "O"}, "subject_delete_marker_ttl": 1_000_000_000})
    await refused("api overlap", {"name": "X", "mirror": {"name": "O", "external": {"api": "$JS.API", "deliver": "d"}}})
    answer = await call("STREAM.UPDATE.M", {"name": "M", "mirror": {"name": "P"}})
    note("another origin", answer["error"])


run(scenario)
