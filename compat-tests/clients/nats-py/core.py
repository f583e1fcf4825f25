"""Core NATS: subjects, queue groups, requests, headers, limits."""

import asyncio

import nats
from scenario import check, check_error, connect, note, run, settle


async def received(sub, count, timeout=5):
    return [await sub.next_msg(timeout=timeout) for _ in range(count)]


async def silent(label, sub):
    await check_error(label, sub.next_msg(timeout=0.1), nats.errors.TimeoutError)


async def logins(nc):
    # The connection gives up for good after a refused login only if it may not reconnect.
    async def refused(**options):
        async def quiet(_):
            pass

        await connect(allow_reconnect=False, error_cb=quiet, **options)

    try:
        await refused(password="wrong")
        raise AssertionError("a wrong password was accepted")
    except nats.errors.Error as error:
        note("wrong password", str(error))
    try:
        await refused(user="nobody")
        raise AssertionError("an unknown user was accepted")
    except nats.errors.Error as error:
        note("unknown user", str(error))
    check("max payload", nc.max_payload, 1048576)
    info = nc._server_info
    check("info", {k: info[k] for k in ("proto", "headers", "jetstream", "auth_required")},
          {"proto": 1, "headers": True, "jetstream": True, "auth_required": True})


async def wildcards(nc):
    exact = await nc.subscribe("w.a.b")
    star = await nc.subscribe("w.*.b")
    tail = await nc.subscribe("w.>")
    await settle(nc)
    for subject in ("w.a.b", "w.x.b", "w.a", "w.a.b.c", "other.a.b"):
        await nc.publish(subject, subject.encode())
    await settle(nc)
    check("exact", [m.subject for m in await received(exact, 1)], ["w.a.b"])
    check("star", [m.subject for m in await received(star, 2)], ["w.a.b", "w.x.b"])
    check("tail", [m.subject for m in await received(tail, 4)], ["w.a.b", "w.x.b", "w.a", "w.a.b.c"])
    for label, sub in (("exact rest", exact), ("star rest", star), ("tail rest", tail)):
        await silent(label, sub)
        await sub.unsubscribe()
    await nc.publish("w.a.b", b"late")
    await settle(nc)


async def queues(nc):
    other = await connect()
    counts = [0, 0, 0, 0]
    done = asyncio.Event()

    def member(index):
        async def handle(msg):
            counts[index] += 1
            if counts[0] + counts[1] + counts[2] == 100 and counts[3] == 100:
                done.set()
        return handle

    await nc.subscribe("q.work", queue="workers", cb=member(0))
    await nc.subscribe("q.*", queue="workers", cb=member(1))
    await other.subscribe("q.work", queue="workers", cb=member(2))
    await other.subscribe("q.work", queue="audit", cb=member(3))
    await settle(nc)
    await settle(other)
    for _ in range(100):
        await nc.publish("q.work", b"x")
    await asyncio.wait_for(done.wait(), 5)
    check("each member of a queue group works", all(count > 0 for count in counts), True)
    check("workers together, audit", [sum(counts[:3]), counts[3]], [100, 100])
    await other.close()


async def requests(nc):
    async def answer(msg):
        await msg.respond(b"echo " + msg.data)

    sub = await nc.subscribe("svc.echo", cb=answer)
    reply = await nc.request("svc.echo", b"hello", timeout=5)
    check("reply", reply.data, b"echo hello")
    replies = await asyncio.gather(*(nc.request("svc.echo", b"%d" % n, timeout=5) for n in range(50)))
    check("fifty at once", [r.data for r in replies] == [b"echo %d" % n for n in range(50)], True)
    old = await nc.request("svc.echo", b"own inbox", timeout=5, old_style=True)
    check("own inbox", old.data, b"echo own inbox")
    await sub.unsubscribe()
    await check_error("nobody there", nc.request("svc.none", b"", timeout=5), nats.errors.NoRespondersError)

    inbox = nc.new_inbox()
    status = await nc.subscribe(inbox)
    await nc.publish("svc.none", b"", reply=inbox)
    message = await status.next_msg(timeout=5)
    check("status of no responders", message.headers.get("Status"), "503")
    check("no payload", message.data, b"")

    silent_service = await nc.subscribe("svc.silent")
    await check_error("no answer", nc.request("svc.silent", b"", timeout=0.1), nats.errors.TimeoutError)
    await silent_service.unsubscribe()


async def headers(nc):
    sub = await nc.subscribe("h")
    await nc.publish("h", b"one", headers={"Key": "value", "Empty": "", "Unicode": "wört"})
    await nc.publish("h", b"", headers={"Only": "header"})
    await nc.publish("h", b"none")
    first, second, third = await received(sub, 3)
    check("headers", dict(first.headers), {"Key": "value", "Empty": "", "Unicode": "wört"})
    check("header without payload", [second.data, dict(second.headers)], [b"", {"Only": "header"}])
    check("payload without header", [third.data, third.headers], [b"none", None])
    await sub.unsubscribe()


async def sizes(nc):
    sub = await nc.subscribe("size")
    for size in (0, 1, 4096, 65537, 1048576):
        await nc.publish("size", b"x" * size)
        got = await sub.next_msg(timeout=5)
        check(f"payload of {size}", got.data == b"x" * size, True)
    await check_error("payload too large", nc.publish("size", b"x" * 1048577), nats.errors.MaxPayloadError)
    await sub.unsubscribe()

    limited = await nc.subscribe("limited")
    await limited.unsubscribe(limit=3)
    for n in range(5):
        await nc.publish("limited", b"%d" % n)
    await settle(nc)
    check("unsubscribe after three", [m.data for m in await received(limited, 3)], [b"0", b"1", b"2"])


async def connections(nc):
    mute = await connect(no_echo=True)
    sub = await mute.subscribe("echo")
    await settle(mute)
    await mute.publish("echo", b"own")
    await settle(mute)
    await nc.publish("echo", b"other")
    check("no echo of its own", (await sub.next_msg(timeout=5)).data, b"other")

    drained = []
    begun = asyncio.Event()

    async def slow(msg):
        begun.set()
        await asyncio.sleep(0.001)
        drained.append(msg.data)

    await mute.subscribe("drain", cb=slow)
    await settle(mute)
    for n in range(50):
        await nc.publish("drain", b"%d" % n)
    await settle(nc)
    await asyncio.wait_for(begun.wait(), 5)
    await mute.drain()
    check("drained", len(drained), 50)
    check("closed", mute.is_closed, True)


async def ordering(nc):
    other = await connect()
    sub = await other.subscribe("order")
    await settle(other)
    for n in range(5000):
        await nc.publish("order", b"%d" % n)
    await settle(nc)
    check("five thousand in order", [int(m.data) for m in await received(sub, 5000)] == list(range(5000)), True)
    await other.close()


async def scenario(nc):
    for part in (logins, wildcards, queues, requests, headers, sizes, connections, ordering):
        await part(nc)


run(scenario)
