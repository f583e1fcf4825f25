"""Schedules that were stored when a stream had none: copies in a mirror that becomes a stream."""

from datetime import datetime, timedelta, timezone

from api import Api
from scenario import eventually, note, run


async def scenario(nc):
    js = nc.jetstream()
    api = Api(nc)
    call, create, count = api.call, api.create, api.count

    async def produced(subject):
        async def has():
            info = await js.stream_info("M", subjects_filter=subject)
            return (info.state.subjects or {}).get(subject, 0) > 0
        await eventually(f"a message on {subject}", has)
        message = await js.get_last_msg("M", subject)
        headers = {k: v for k, v in message.headers.items() if k != "Nats-Schedule-Next" or v == "purge"}
        note(subject, [message.data, headers])

    await create({"name": "S", "subjects": ["s.>"], "allow_msg_schedules": True, "allow_msg_ttl": True})
    for n in range(50):
        await js.publish("s.other", b"%d" % n)
    at = datetime.now(timezone.utc) + timedelta(seconds=3)
    soon = "@at " + at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    never = "@at 2099-01-01T00:00:00Z"
    for subject, pattern in [("s.one", soon), ("s.two", "@every 1s"), ("s.three", never)]:
        await js.publish(subject, b"of " + subject.encode(), headers={
            "Nats-Schedule": pattern, "Nats-Schedule-Target": subject + ".out", "Own": "x"})
    # On disk nats-server counts schedules only where they were switched on, and finds none.
    await create({"name": "M", "mirror": {"name": "S"}, "storage": "memory"})
    await count("M", 53)
    await js.delete_stream("S")
    before = (await call("STREAM.MSG.GET.M", {"last_by_subj": "s.one"}))["message"]["hdrs"]
    note("copied", len(before) > 0)
    changed = await call("STREAM.UPDATE.M", {
        "name": "M", "subjects": ["s.>"], "storage": "memory",
        "allow_msg_schedules": True, "allow_msg_ttl": True})
    note("switched on", {k: changed["config"].get(k) for k in ("subjects", "allow_msg_schedules", "mirror")})
    await produced("s.one.out")
    await produced("s.two.out")
    note("done with", (await call("STREAM.MSG.GET.M", {"last_by_subj": "s.one"})).get("error"))
    waits = await js.get_last_msg("M", "s.three")
    note("waits", [waits.data, dict(waits.headers)])


run(scenario)
