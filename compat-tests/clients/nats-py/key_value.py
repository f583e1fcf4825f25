"""Key/value buckets."""

import asyncio

from nats.js import api
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError
from scenario import check, check_error, note, run


async def watched(watcher, count):
    seen = []
    while len(seen) < count:
        entry = await watcher.updates(timeout=5)
        seen.append(None if entry is None else [entry.key, (entry.value or b"").decode(), entry.revision, entry.operation])
    return seen


async def scenario(nc):
    js = nc.jetstream()
    await check_error("missing bucket", js.key_value("none"), BucketNotFoundError)
    kv = await js.create_key_value(api.KeyValueConfig(bucket="bucket", history=5))
    note("stream", (await js.stream_info("KV_bucket")).config)
    await check_error("no keys yet", kv.keys(), NoKeysError)

    check("put", await kv.put("a", b"1"), 1)
    entry = await kv.get("a")
    check("get", [entry.key, entry.value, entry.revision], ["a", b"1", 1])
    check("put again", await kv.put("a", b"2"), 2)
    check("revision", (await kv.get("a", revision=1)).value, b"1")
    await check_error("unknown key", kv.get("b"), KeyNotFoundError)

    check("update", await kv.update("a", b"3", last=2), 3)
    await check_error("stale update", kv.update("a", b"4", last=2), KeyWrongLastSequenceError)
    check("create", await kv.create("b.c", b"new"), 4)
    await check_error("create again", kv.create("b.c", b"no"), KeyWrongLastSequenceError)

    check("keys", sorted(await kv.keys()), ["a", "b.c"])
    check("filtered keys", await kv.keys(filters=["b"]), ["b.c"])
    check("history", [[e.value, e.revision] for e in await kv.history("a")], [[b"1", 1], [b"2", 2], [b"3", 3]])

    check("delete", await kv.delete("a"), True)
    await check_error("deleted key", kv.get("a"), KeyNotFoundError)
    check("create after delete", await kv.create("a", b"back"), 6)
    check("history with a delete", [e.operation for e in await kv.history("a")], [None, None, None, "DEL", None])
    check("purge", await kv.purge("b.c"), True)
    check("history after purge", [e.operation for e in await kv.history("b.c")], ["PURGE"])
    check("keys after purge", await kv.keys(), ["a"])

    for n in range(10):
        await kv.put("many", b"%d" % n)
    check("history is bounded", [int(e.value) for e in await kv.history("many")], [5, 6, 7, 8, 9])

    everything = await kv.watchall()
    check("watch begins with the state", await watched(everything, 4), [["a", "back", 6, None], ["b.c", "", 7, "PURGE"], ["many", "9", 17, None], None])
    await kv.put("late", b"x")
    await kv.delete("late")
    check("watch goes on", await watched(everything, 2), [["late", "x", 18, None], ["late", "", 19, "DEL"]])
    await everything.stop()
    one = await kv.watch("late", ignore_deletes=True)
    check("watch of a deleted key", await watched(one, 1), [None])
    await one.stop()
    fresh = await kv.watchall(include_history=True)
    first = await watched(fresh, 13)
    note("watch with history", first)
    await fresh.stop()

    status = await kv.status()
    check("status", [status.bucket, status.history, status.values, status.ttl], ["bucket", 5, 13, 0.0])

    async def increment(times):
        for _ in range(times):
            while True:
                entry = await counter.get("n")
                try:
                    await counter.update("n", b"%d" % (int(entry.value) + 1), last=entry.revision)
                    break
                except KeyWrongLastSequenceError:
                    pass

    counter = await js.create_key_value(bucket="counter")
    await counter.put("n", b"0")
    await asyncio.gather(*(increment(20) for _ in range(5)))
    check("a hundred increments by five", (await counter.get("n")).value, b"100")

    check("delete bucket", await js.delete_key_value("bucket"), True)
    await check_error("deleted bucket", js.key_value("bucket"), BucketNotFoundError)


run(scenario)
