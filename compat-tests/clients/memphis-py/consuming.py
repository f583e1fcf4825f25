"""Consuming with memphis-py: groups, members, acknowledgement, positions."""

import asyncio
import time

from nats.js.errors import NotFoundError
from scenario import Retention, check, check_error, connect, eventually, run, texts


async def filled(memphis, station, count, **options):
    await memphis.station(station, **options)
    producer = await memphis.producer(station, "producer")
    for n in range(1, count + 1):
        await producer.produce(f"{n}")
    return producer


async def durable(js, station, group, partition=1):
    return await js.consumer_info(f"{station}${partition}", group)


async def settled(js, station, group, count):
    async def is_settled():
        info = await durable(js, station, group)
        return info.num_ack_pending == 0 and info.ack_floor.stream_seq == count

    await eventually(f"{group} settled {count}", is_settled)


async def groups(memphis, js):
    producer = await filled(memphis, "groups", 6)
    first = await memphis.consumer("groups", "a", consumer_group="Grp.One", max_ack_time_ms=5000, max_msg_deliveries=3)
    second = await memphis.consumer("groups", "b", consumer_group="two")
    config = (await durable(js, "groups", "grp#one")).config
    check("durable", [config.filter_subject, str(config.ack_policy), config.ack_wait, config.max_deliver, config.max_ack_pending, config.max_waiting],
          ["groups$1.final", "explicit", 5.0, 3, -1, 512])
    for name, consumer, group in (("first", first, "grp#one"), ("second", second, "two")):
        messages = await consumer.fetch(batch_size=6)
        check(f"{name} group gets everything", texts(messages), ["1", "2", "3", "4", "5", "6"])
        check(f"{name} sequence", [m.get_sequence_number() for m in messages], [1, 2, 3, 4, 5, 6])
        check(f"{name} headers", messages[0].get_headers()["$memphis_producedBy"], "producer")
        for message in messages:
            await message.ack()
        await settled(js, "groups", group, 6)

    # Two members of one group, on two connections, share what comes.
    other = await connect()
    third = await other.consumer("groups", "c", consumer_group="two")
    fetches = [asyncio.create_task(consumer.fetch(batch_size=1)) for consumer in (second, third)]

    async def both_wait():
        return (await durable(js, "groups", "two")).num_waiting == 2

    await eventually("both members wait", both_wait)
    await producer.produce("7")
    await producer.produce("8")
    shared = [await fetch for fetch in fetches]
    check("members share", sorted(sum((texts(messages) for messages in shared), [])), ["7", "8"])
    for messages in shared:
        await messages[0].ack()
    await settled(js, "groups", "two", 8)

    # The durable stays as long as a member is there.
    await third.destroy()
    check("one member left", (await durable(js, "groups", "two")).name, "two")
    await second.destroy()
    await check_error("last member gone", durable(js, "groups", "two"), "not found", NotFoundError)
    await other.close()


async def settling(memphis, js):
    await filled(memphis, "settling", 4)
    consumer = await memphis.consumer("settling", "c", consumer_group="g", max_ack_time_ms=1500, max_msg_deliveries=5)
    one, two, three, four = await consumer.fetch(batch_size=4)
    await one.ack()
    await two.nack()
    again = await consumer.fetch(batch_size=1)
    check("nack", texts(again), ["2"])
    await again[0].ack()
    started = time.monotonic()
    await three.delay(0.3)
    await four.ack()
    again = await consumer.fetch(batch_size=1)
    check("delay", [texts(again), time.monotonic() - started >= 0.28], [["3"], True])
    started = time.monotonic()
    again = await consumer.fetch(batch_size=1)
    check("not acknowledged", [texts(again), time.monotonic() - started >= 1.0], [["3"], True])
    await again[0].ack()
    await settled(js, "settling", "g", 4)


async def deliveries(memphis, js):
    await filled(memphis, "deliveries", 1)
    consumer = await memphis.consumer("deliveries", "c", consumer_group="g", max_ack_time_ms=300, max_msg_deliveries=2)
    seen = [texts(await consumer.fetch(batch_size=1)) for _ in range(2)]
    check("delivered twice", seen, [["1"], ["1"]])
    check("and no more", await consumer.fetch(batch_size=1), [])
    check("the station keeps it", (await js.stream_info("deliveries$1")).state.messages, 1)


async def positions(memphis, js):
    await filled(memphis, "positions", 5)

    async def first(group, count, **options):
        consumer = await memphis.consumer("positions", group, consumer_group=group, **options)
        config = (await durable(js, "positions", group)).config
        messages = await consumer.fetch(batch_size=10) if count else []
        return [str(config.deliver_policy).split(".")[-1].lower(), config.opt_start_seq, texts(messages)]

    check("all", await first("all", 5), ["all", None, ["1", "2", "3", "4", "5"]])
    check("from sequence", await first("from", 3, start_consume_from_sequence=3), ["by_start_sequence", 3, ["3", "4", "5"]])
    check("last two", await first("last-two", 2, last_messages=2), ["by_start_sequence", 4, ["4", "5"]])
    check("last ninety-nine", await first("last-many", 5, last_messages=99), ["by_start_sequence", 1, ["1", "2", "3", "4", "5"]])
    check("only new", await first("only-new", 0, last_messages=0), ["new", None, []])
    await check_error("both", memphis.consumer("positions", "both", start_consume_from_sequence=2, last_messages=1), "both")


async def partitions(memphis, js):
    await filled(memphis, "parts", 6, partitions_number=3)
    consumer = await memphis.consumer("parts", "c", consumer_group="g")
    seen = [texts(await consumer.fetch(batch_size=10)) for _ in range(3)]
    check("one partition per fetch, in turn", seen, [["1", "4"], ["2", "5"], ["3", "6"]])
    other = await memphis.consumer("parts", "d", consumer_group="h")
    check("a chosen partition", texts(await other.fetch(batch_size=10, consumer_partition_number=3)), ["3", "6"])
    check("a chosen key", texts(await other.fetch(batch_size=10, consumer_partition_key="a")), ["1", "4"])
    check("a durable per partition", [(await durable(js, "parts", "g", p)).num_ack_pending for p in (1, 2, 3)], [2, 2, 2])


async def callbacks(memphis, js):
    producer = await filled(memphis, "callbacks", 3)
    consumer = await memphis.consumer("callbacks", "c", consumer_group="g", pull_interval_ms=50)
    seen = []
    done = asyncio.Event()

    async def handle(messages, error, context):
        for message in messages or []:
            seen.append(message.get_data().decode())
            await message.ack()
        if len(seen) == 5:
            done.set()

    consumer.set_context({"key": "value"})
    consumer.consume(handle)
    await producer.produce("4")
    await producer.produce("5")
    await asyncio.wait_for(done.wait(), 10)
    check("callback", seen, ["1", "2", "3", "4", "5"])
    await settled(js, "callbacks", "g", 5)
    await consumer.destroy()
    fetched = await memphis.fetch_messages("callbacks", "fetcher", consumer_group="fetchers", batch_size=5)
    check("fetch without a consumer object", texts(fetched), ["1", "2", "3", "4", "5"])


async def ack_based(memphis, js):
    await memphis.station("until-acked", retention_type=Retention.ACK_BASED)
    producer = await memphis.producer("until-acked", "producer")
    await producer.produce("nobody waits")
    check("nobody is interested", (await js.stream_info("until-acked$1")).state.messages, 0)
    consumer = await memphis.consumer("until-acked", "c", consumer_group="g")
    await producer.produce("one waits")
    messages = await consumer.fetch(batch_size=1)
    check("kept until acknowledged", [texts(messages), (await js.stream_info("until-acked$1")).state.messages], [["one waits"], 1])
    await messages[0].ack()

    async def is_gone():
        return (await js.stream_info("until-acked$1")).state.messages == 0

    await eventually("gone after the ack", is_gone)


async def scenario(memphis, js):
    for part in (groups, settling, deliveries, positions, partitions, callbacks, ack_based):
        await part(memphis, js)


run(scenario)
