"""JetStream consumers: pull and push, acknowledgement, redelivery, positions."""

import asyncio
import json
import time

import nats
from nats.js import api
from nats.js.errors import APIError, BadRequestError, NotFoundError
from scenario import check, check_error, eventually, note, run


async def fill(js, name, count):
    await js.add_stream(name=name, subjects=[f"{name}.*"])
    for n in range(1, count + 1):
        await js.publish(f"{name}.{n % 2}", b"%d" % n)


def numbers(messages):
    return [int(m.data) for m in messages]


async def next_messages(nc, stream, consumer, **request):
    """A bare pull request: everything that comes back, the final status included."""
    inbox = nc.new_inbox()
    sub = await nc.subscribe(inbox)
    await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", json.dumps(request).encode(), reply=inbox)
    data, status = [], None
    while status is None:
        msg = await sub.next_msg(timeout=5)
        if msg.headers and "Status" in msg.headers:
            status = {k: v for k, v in msg.headers.items() if k != "Nats-Last-Consumer"}
        else:
            data.append(int(msg.data))
            if len(data) == request.get("batch", 1):
                status = "full"
    await sub.unsubscribe()
    return [data, status]


async def management(nc, js):
    await fill(js, "MAN", 3)
    info = await js.add_consumer("MAN", durable_name="d", ack_policy=api.AckPolicy.EXPLICIT)
    note("new consumer", info)
    again = await js.add_consumer("MAN", durable_name="d", ack_policy=api.AckPolicy.EXPLICIT)
    check("same again", again.name, "d")
    await check_error("ack policy cannot change", js.add_consumer("MAN", durable_name="d", ack_policy=api.AckPolicy.NONE), APIError)
    changed = await js.add_consumer("MAN", durable_name="d", ack_policy=api.AckPolicy.EXPLICIT, max_deliver=7, description="changed")
    check("updated", [changed.config.max_deliver, changed.config.description], [7, "changed"])
    await js.add_consumer("MAN", api.ConsumerConfig(name="named", filter_subjects=["MAN.0", "MAN.1"], ack_policy=api.AckPolicy.EXPLICIT, inactive_threshold=30))
    ephemeral = await js.add_consumer("MAN", ack_policy=api.AckPolicy.EXPLICIT)
    check("ephemeral has a name", len(ephemeral.name) > 0, True)
    listed = [c.name for c in await js.consumers_info("MAN")]
    check("list", sorted("ephemeral" if name == ephemeral.name else name for name in listed), ["d", "ephemeral", "named"])
    await check_error("missing consumer", js.consumer_info("MAN", "none"), NotFoundError, err_code=10014)
    await check_error("missing stream", js.consumer_info("NONE", "none"), NotFoundError, err_code=10059)
    outside = await js.add_consumer("MAN", durable_name="out", filter_subject="other")
    check("filter outside the stream", [outside.num_pending, await js.delete_consumer("MAN", "out")], [0, True])
    check("deleted", await js.delete_consumer("MAN", "d"), True)
    await check_error("delete again", js.delete_consumer("MAN", "d"), NotFoundError, err_code=10014)
    await js.delete_stream("MAN")


async def pulling(nc, js):
    await fill(js, "PULL", 10)
    sub = await js.pull_subscribe("PULL.*", durable="d")
    first = await sub.fetch(4)
    check("fetch", numbers(first), [1, 2, 3, 4])
    meta = first[1].metadata
    check("metadata", [meta.stream, meta.consumer, meta.sequence.stream, meta.sequence.consumer, meta.num_delivered, meta.num_pending], ["PULL", "d", 2, 2, 1, 8])
    for msg in first:
        await msg.ack_sync()
    info = await js.consumer_info("PULL", "d")
    check("positions", [info.delivered.stream_seq, info.ack_floor.stream_seq, info.num_pending, info.num_ack_pending], [4, 4, 6, 0])
    check("no_wait takes what is there", await next_messages(nc, "PULL", "d", batch=3, no_wait=True), [[5, 6, 7], "full"])
    note("no_wait ends with a status", await next_messages(nc, "PULL", "d", batch=10, no_wait=True))
    note("nothing left", await next_messages(nc, "PULL", "d", batch=1, no_wait=True))
    note("expired", await next_messages(nc, "PULL", "d", batch=2, expires=100_000_000))
    await check_error("fetch of nothing", sub.fetch(1, timeout=0.2), nats.errors.TimeoutError)

    waiting = asyncio.create_task(sub.fetch(1, timeout=5))

    async def is_waiting():
        return (await js.consumer_info("PULL", "d")).num_waiting == 1

    await eventually("a pull waits", is_waiting)
    await js.publish("PULL.1", b"11")
    check("waiting pull is served", numbers(await waiting), [11])
    await js.delete_stream("PULL")


async def acknowledging(nc, js):
    await fill(js, "ACK", 6)
    sub = await js.pull_subscribe("ACK.*", durable="d", config=api.ConsumerConfig(ack_wait=1.0))
    one, two, three, four, five, six = await sub.fetch(6)
    await one.ack_sync()
    await two.nak()
    again = (await sub.fetch(1))[0]
    check("nak", [int(again.data), again.metadata.num_delivered], [2, 2])
    await again.ack_sync()

    started = time.monotonic()
    await three.nak(delay=0.3)
    # Kept alive, so that the next message can only be the delayed one.
    for msg in (four, five, six):
        await msg.in_progress()
    again = (await sub.fetch(1, timeout=5))[0]
    check("nak with delay", [int(again.data), time.monotonic() - started >= 0.28], [3, True])
    await again.ack_sync()

    await four.term()
    for _ in range(4):
        await five.in_progress()
        await asyncio.sleep(0.35)
    check("in progress", int((await sub.fetch(1, timeout=5))[0].data), 6)
    await five.ack_sync()
    redelivered = (await sub.fetch(1, timeout=5))[0]
    check("ack wait passed", [int(redelivered.data), redelivered.metadata.num_delivered], [6, 3])
    await redelivered.ack_sync()

    async def settled():
        info = await js.consumer_info("ACK", "d")
        return info.ack_floor.stream_seq == 6 and info.num_ack_pending == 0

    await eventually("everything settled", settled)
    note("settled", await js.consumer_info("ACK", "d"))

    await js.add_consumer("ACK", durable_name="all", ack_policy=api.AckPolicy.ALL)
    every = await js.pull_subscribe_bind(stream="ACK", consumer="all")
    batch = await every.fetch(5)
    await batch[3].ack_sync()
    info = await js.consumer_info("ACK", "all")
    check("ack all", [info.ack_floor.stream_seq, info.num_ack_pending], [4, 1])

    await js.add_consumer("ACK", durable_name="few", ack_policy=api.AckPolicy.EXPLICIT, max_ack_pending=2)
    few = await js.pull_subscribe_bind(stream="ACK", consumer="few")
    held = await few.fetch(6, timeout=0.5)
    check("max ack pending", numbers(held), [1, 2])
    await held[0].ack_sync()
    check("room for one more", numbers(await few.fetch(6, timeout=0.5)), [3])
    await js.delete_stream("ACK")


async def redelivering(nc, js):
    await fill(js, "RE", 2)
    advisories = await nc.subscribe("$JS.EVENT.ADVISORY.CONSUMER.>")
    sub = await js.pull_subscribe("RE.*", durable="d", config=api.ConsumerConfig(ack_wait=0.2, max_deliver=2))
    seen = []
    while len(seen) < 4:
        seen += [(int(m.data), m.metadata.num_delivered) for m in await sub.fetch(2, timeout=5)]
    check("each delivered twice", sorted(seen), [(1, 1), (1, 2), (2, 1), (2, 2)])
    await check_error("and no more", sub.fetch(1, timeout=0.6), nats.errors.TimeoutError)
    spent = []
    while len(spent) < 2:
        event = json.loads((await advisories.next_msg(timeout=5)).data)
        if event["type"].endswith("max_deliver"):
            spent.append(event)
    note("advisory", {k: v for k, v in sorted(spent, key=lambda e: e["stream_seq"])[0].items()})
    await advisories.unsubscribe()

    await js.add_consumer("RE", durable_name="backoff", ack_policy=api.AckPolicy.EXPLICIT, max_deliver=3, backoff=[0.1, 0.3], filter_subject="RE.1")
    backoff = await js.pull_subscribe_bind(stream="RE", consumer="backoff")
    started = time.monotonic()
    deliveries = [(await backoff.fetch(1, timeout=5))[0].metadata.num_delivered for _ in range(3)]
    check("backoff", [deliveries, time.monotonic() - started >= 0.38], [[1, 2, 3], True])
    await js.delete_stream("RE")


async def positions(nc, js):
    await fill(js, "POS", 6)
    middle = await js.get_msg("POS", 4)

    async def delivered(count, **config):
        await js.add_consumer("POS", durable_name="p", ack_policy=api.AckPolicy.EXPLICIT, **config)
        sub = await js.pull_subscribe_bind(stream="POS", consumer="p")
        pending = (await js.consumer_info("POS", "p")).num_pending
        got = numbers(await sub.fetch(count)) if count else []
        await js.delete_consumer("POS", "p")
        return [pending, got]

    policy = api.DeliverPolicy
    check("all", await delivered(6, deliver_policy=policy.ALL), [6, [1, 2, 3, 4, 5, 6]])
    check("last", await delivered(1, deliver_policy=policy.LAST), [1, [6]])
    check("new", await delivered(0, deliver_policy=policy.NEW), [0, []])
    check("by sequence", await delivered(2, deliver_policy=policy.BY_START_SEQUENCE, opt_start_seq=5), [2, [5, 6]])
    check("last per subject", await delivered(2, deliver_policy=policy.LAST_PER_SUBJECT, filter_subject="POS.*"), [2, [5, 6]])
    check("filtered", await delivered(3, filter_subject="POS.0"), [3, [2, 4, 6]])
    check("two filters", await delivered(6, filter_subjects=["POS.0", "POS.1"]), [6, [1, 2, 3, 4, 5, 6]])
    raw = json.loads((await nc.request("$JS.API.STREAM.MSG.GET.POS", b'{"seq":4}', timeout=5)).data)
    check("by time", await delivered(3, deliver_policy=policy.BY_START_TIME, opt_start_time=raw["message"]["time"]), [3, [4, 5, 6]])
    assert middle.seq == 4
    await js.delete_stream("POS")


async def pushing(nc, js):
    await fill(js, "PUSH", 5)
    sub = await js.subscribe("PUSH.*", durable="d", manual_ack=True)
    got = []
    for _ in range(5):
        msg = await sub.next_msg(timeout=5)
        got.append(int(msg.data))
        await msg.ack_sync()
    check("push", got, [1, 2, 3, 4, 5])
    note("push consumer", (await sub.consumer_info()))
    await sub.unsubscribe()
    await js.publish("PUSH.0", b"6")
    resumed = await js.subscribe("PUSH.*", durable="d2", stream="PUSH", manual_ack=True, config=api.ConsumerConfig(deliver_policy=api.DeliverPolicy.LAST))
    check("push resumes", int((await resumed.next_msg(timeout=5)).data), 6)

    counts = [0, 0]
    done = asyncio.Event()

    def member(index):
        async def handle(msg):
            counts[index] += 1
            if sum(counts) == 106:
                done.set()
        return handle

    members = [await js.subscribe("PUSH.*", "group", cb=member(i)) for i in range(2)]
    for n in range(100):
        await js.publish("PUSH.1", b"%d" % n)
    await asyncio.wait_for(done.wait(), 10)
    check("queue of push members", [sum(counts), all(counts)], [106, True])
    for sub in members:
        await sub.unsubscribe()

    idle = await js.subscribe("PUSH.*", config=api.ConsumerConfig(deliver_policy=api.DeliverPolicy.NEW, idle_heartbeat=0.2, flow_control=True))
    inbox = (await idle.consumer_info()).config.deliver_subject
    raw = await nc.subscribe(inbox)
    beat = await raw.next_msg(timeout=5)
    note("heartbeat", dict(beat.headers))
    await raw.unsubscribe()
    await idle.unsubscribe()
    await js.delete_stream("PUSH")


async def ordered(nc, js):
    await js.add_stream(name="ORD", subjects=["ord"])
    for n in range(3000):
        await js.publish_async("ord", b"%d" % n + b"x" * 300)
    await js.publish_async_completed()
    sub = await js.subscribe("ord", ordered_consumer=True)
    got = [int((await sub.next_msg(timeout=5)).data.rstrip(b"x")) for _ in range(3000)]
    check("ordered", got == list(range(3000)), True)
    await sub.unsubscribe()

    await js.add_consumer("ORD", durable_name="pause", ack_policy=api.AckPolicy.EXPLICIT)
    await js.delete_consumer("ORD", "pause")
    await js.delete_stream("ORD")


async def deleted_while_waiting(nc, js):
    await js.add_stream(name="GONE", subjects=["gone"])
    await js.add_consumer("GONE", durable_name="d", ack_policy=api.AckPolicy.EXPLICIT)
    waiting = asyncio.create_task(next_messages(nc, "GONE", "d", batch=1, expires=5_000_000_000))

    async def is_waiting():
        return (await js.consumer_info("GONE", "d")).num_waiting == 1

    await eventually("a pull waits", is_waiting)
    await js.delete_consumer("GONE", "d")
    note("consumer deleted", await waiting)
    await check_error("pull from a missing consumer", nc.request("$JS.API.CONSUMER.MSG.NEXT.GONE.d", b"", timeout=2), nats.errors.NoRespondersError)
    await js.delete_stream("GONE")


async def scenario(nc):
    js = nc.jetstream()
    for part in (management, pulling, acknowledging, redelivering, positions, pushing, ordered, deleted_while_waiting):
        await part(nc, js)
    await check_error("consumer of a missing stream", js.add_consumer("NONE", durable_name="d"), NotFoundError, err_code=10059)
    assert BadRequestError


run(scenario)
