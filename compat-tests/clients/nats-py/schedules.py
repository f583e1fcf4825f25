"""Messages that produce messages at their time."""

import asyncio
import json
import time
from datetime import datetime, timedelta, timezone

from api import Api
from scenario import check, note, run


async def scenario(nc):
    js = nc.jetstream()
    call = Api(nc).call

    async def schedule(label, pattern, target="s.out", subject="s.plan", payload=b"hello", **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if pattern is not None:
            headers["Nats-Schedule"] = pattern
        if target is not None:
            headers["Nats-Schedule-Target"] = target
        answer = json.loads((await nc.request(subject, payload, headers=headers, timeout=5)).data)
        if label:
            note(label, answer)
        return answer

    made = await call("STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "allow_msg_schedules": True, "allow_msg_ttl": True, "allow_direct": True})
    note("stream", made["config"])
    note("state", made["state"])

    never = "@at 2099-01-01T00:00:00Z"
    await schedule("at", never)
    note("kept", dict((await js.get_last_msg("S", "s.plan")).headers))
    await schedule("instead", "0 30 9 * * mon-fri")
    await schedule("in a zone", "0 30 9 * * mon-fri", Nats_Schedule_Time_Zone="Europe/Berlin")
    await schedule("every day", "@daily", Nats_Rollup="sub")
    note("one schedule", (await js.stream_info("S")).state.messages)

    for pattern in ["", "@at", "@at tomorrow", "@at 2099-01-01", "@every", "@every 1", "@every 500ms", "* * * * *", "@never", "60 * * * * *", "0 0 0 30 2 *"]:
        await schedule(f"pattern {pattern!r}", pattern, subject="s.bad")
    for zone in ["Mars/Olympus", "europe/berlin", ""]:
        await schedule(f"zone {zone!r}", "@daily", subject="s.bad", Nats_Schedule_Time_Zone=zone)
    await schedule("zone of a span", "@every 5s", subject="s.bad", Nats_Schedule_Time_Zone="UTC")
    await schedule("zone of a time", never, subject="s.bad", Nats_Schedule_Time_Zone="UTC")
    await schedule("no target", never, None, "s.bad")
    for target in ["s.*", "s..x", "s.bad", "elsewhere"]:
        await schedule(f"target {target}", never, target, "s.bad")
    for source in ["s.*", "s.out", "s.bad", "elsewhere"]:
        await schedule(f"source {source}", never, subject="s.bad", Nats_Schedule_Source=source)
    await schedule("ttl", never, subject="s.bad", Nats_Schedule_TTL="soon")
    await schedule("rollup", never, subject="s.bad", Nats_Schedule_Rollup="all")
    await schedule("own rollup", never, subject="s.bad", Nats_Rollup="all")
    await schedule("scheduler alone", None, None, "s.x", Nats_Scheduler="s.plan")
    await schedule("next alone", None, None, "s.x", Nats_Schedule_Next="purge")
    await schedule("next a time", None, None, "s.x", Nats_Scheduler="s.plan", Nats_Schedule_Next="2099-01-01T00:00:00Z")
    await schedule("its own scheduler", None, None, "s.plan", Nats_Scheduler="s.plan", Nats_Schedule_Next="purge")
    await schedule("plain", None, None, "s.plain")
    await schedule("no schedule there", None, None, "s.x", Nats_Scheduler="s.plain", Nats_Schedule_Next="purge")
    await schedule("nothing there", None, None, "s.x", Nats_Scheduler="s.nothing", Nats_Schedule_Next="purge")
    await schedule("cancelled", None, None, "s.x", Nats_Scheduler="s.plan", Nats_Schedule_Next="purge")
    note("gone", await call("STREAM.MSG.GET.S", {"last_by_subj": "s.plan"}))
    await js.purge_stream("S")

    async def produced(subject, count=1):
        for _ in range(200):
            info = await js.stream_info("S", subjects_filter=subject)
            if (info.state.subjects or {}).get(subject, 0) >= count:
                return await js.get_last_msg("S", subject)
            await asyncio.sleep(0.05)
        raise AssertionError(f"nothing came to {subject}")

    def soon(seconds=1):
        at = datetime.now(timezone.utc) + timedelta(seconds=seconds)
        return "@at " + at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    begun = time.time()
    await schedule("", soon(), "s.out.one", "s.one", Own="1", Nats_Msg_Id="a", Nats_Expected_Stream="S")
    message = await produced("s.out.one")
    check("in time", 0.9 < time.time() - begun < 3, True)
    note("once", [message.data, dict(message.headers)])
    note("its schedule", await call("STREAM.MSG.GET.S", {"last_by_subj": "s.one"}))

    await schedule("", "@at 2020-01-01T00:00:00Z", "s.out.late", "s.late", Nats_Schedule_TTL="1h")
    message = await produced("s.out.late")
    note("late", [message.data, dict(message.headers)])

    await schedule("", "@every 1s", "s.out.every", "s.every", Nats_Schedule_Rollup="sub")
    await js.publish("s.feed", b"first", headers={"Feed": "1", "Nats-Msg-Id": "feed"})
    await schedule("", "* * * * * *", "s.out.feed", "s.fed", Nats_Schedule_Source="s.feed", Nats_Schedule_Time_Zone="America/New_York")
    message = await produced("s.out.feed", 2)
    note("fed", [message.data, sorted(name for name in message.headers), message.headers["Nats-Scheduler"]])
    zone = message.headers["Nats-Schedule-Next"][-6:]
    check("in the zone", zone in ["-05:00", "-04:00"], True)
    message = await produced("s.out.every")
    note("every second", [message.data, sorted(message.headers), message.headers["Nats-Rollup"]])
    next_time = datetime.fromisoformat(message.headers["Nats-Schedule-Next"].replace("Z", "+00:00"))
    check("a second on", abs(next_time.timestamp() - time.time()) < 2.5, True)
    note("still there", dict((await js.get_last_msg("S", "s.every")).headers))

    for subject in ["s.fed", "s.every"]:
        answer = await schedule("", None, None, "s.cancel", Nats_Scheduler=subject, Nats_Schedule_Next="purge", Nats_Rollup="sub")
        note("cancelled", sorted(answer))
    await js.purge_stream("S", subject="s.out.>")
    await asyncio.sleep(1.5)
    note("silent", (await js.stream_info("S", subjects_filter="s.out.>")).state.subjects)

    # A schedule that is deleted, and one that a plain message replaces.
    await schedule("", soon(), "s.out.deleted", "s.deleted")
    await js.purge_stream("S", subject="s.deleted")
    await schedule("", soon(), "s.out.replaced", "s.replaced")
    await js.publish("s.replaced", b"plain")
    await schedule("", soon(1.2), "s.out.last", "s.last")
    await produced("s.out.last")
    note("only the last", (await js.stream_info("S", subjects_filter="s.out.>")).state.subjects)

    for label, config in [
        ("discard new", {"discard": "new"}),
        ("sources", {"sources": [{"name": "S"}]}),
        ("mirror", {"mirror": {"name": "S"}}),
        ("pedantic", {"pedantic": True}),
    ]:
        note(label, await call("STREAM.CREATE.X", {"name": "X", "allow_msg_schedules": True, **config}))
    note("no schedules any more", await call("STREAM.UPDATE.S", {"name": "S", "subjects": ["s.>"], "allow_msg_ttl": True, "allow_rollup_hdrs": True}))
    await call("STREAM.CREATE.P", {"name": "P", "subjects": ["p.>"]})
    await schedule("not here", never, "p.x", "p.a")
    await schedule("not here, no pattern", "@never", "p.x", "p.a")
    await schedule("no scheduler here", None, None, "p.a", Nats_Scheduler="p.b", Nats_Schedule_Next="purge")

    await call("STREAM.CREATE.M", {"name": "M", "subjects": ["m.>"], "allow_msg_schedules": True, "storage": "memory"})
    await schedule("no ttl", never, "m.out", "m.plan", Nats_Schedule_TTL="5s")
    await schedule("in memory", soon(0), "m.out", "m.plan")
    for _ in range(100):
        answer = await call("STREAM.MSG.GET.M", {"last_by_subj": "m.out"})
        if "message" in answer:
            break
        await asyncio.sleep(0.05)
    note("in memory", answer["message"]["subject"])

    await call("STREAM.CREATE.A", {"name": "A", "subjects": ["a.>"], "allow_msg_schedules": True, "allow_atomic": True})
    batch = {"Nats_Batch_Id": "one"}
    await nc.request("a.x", b"", headers={"Nats-Batch-Id": "one", "Nats-Batch-Sequence": "1"}, timeout=5)
    await schedule("in a batch", never, "a.out", "a.plan", Nats_Batch_Sequence="2", Nats_Batch_Commit="1", **batch)
    note("in a batch", dict((await js.get_last_msg("A", "a.plan")).headers))
    await schedule("bad in a batch", "@never", "a.out", "a.plan", Nats_Batch_Sequence="1", Nats_Batch_Commit="1", **batch)


run(scenario)
