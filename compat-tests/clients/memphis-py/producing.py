"""Producing with memphis-py: partitions, headers, message ids."""

from scenario import Headers, check, check_error, eventually, is_reference, note, run


async def counts(js, station, partitions):
    return [(await js.stream_info(f"{station}${p}")).state.messages for p in range(1, partitions + 1)]


async def one_partition(memphis, js):
    await memphis.station("one", partitions_number=1)
    producer = await memphis.producer("one", "Prod.A")
    headers = Headers()
    headers.add("key", "value")
    headers.add("Other-Key", "Other Value")
    await producer.produce(bytearray(b"bytes"), headers=headers)
    await producer.produce({"json": 1})
    await producer.produce("text")
    stored = [await js.get_msg("one$1", seq) for seq in (1, 2, 3)]
    check("payloads", [m.data for m in stored], [b"bytes", b'{"json": 1}', b"text"])
    check("subject", stored[0].subject, "one$1.final")
    check("headers", stored[0].headers, {
        "key": "value", "Other-Key": "Other Value",
        "$memphis_producedBy": "prod.a", "$memphis_connectionId": memphis.connection_id,
    })
    # The order of the headers survives as well.
    check("order of headers", list(stored[0].headers), ["key", "Other-Key", "$memphis_producedBy", "$memphis_connectionId"])
    try:
        Headers().add("$memphis_own", "x")
        raise AssertionError("a reserved header was accepted")
    except Exception as error:
        note("reserved header", error)

    for n in range(200):
        await producer.produce(f"async {n}", nonblocking=True)

    async def stored_all():
        return (await js.stream_info("one$1")).state.messages == 203

    await eventually("nonblocking", stored_all)
    check("nonblocking, in order", (await js.get_msg("one$1", 203)).data, b"async 199")


async def message_ids(memphis, js):
    await memphis.station("ids", idempotency_window_ms=60000)
    producer = await memphis.producer("ids", "producer")
    for text in ("first", "again", "and again"):
        await producer.produce(text, msg_id="id-1")
    await producer.produce("other", msg_id="id-2")
    if is_reference():
        return  # nats-server knows Nats-Msg-Id alone
    state = (await js.stream_info("ids$1")).state
    check("deduplicated", state.messages, 2)
    check("the first one stays", (await js.get_msg("ids$1", 1)).data, b"first")
    again = await js.publish("ids$1.final", b"nats", headers={"msg-id": "id-2"})
    check("a NATS client is deduplicated, too", [again.seq, again.duplicate], [2, True])
    both = await js.publish("ids$1.final", b"nats", headers={"msg-id": "id-2", "Nats-Msg-Id": "id-3"})
    check("Nats-Msg-Id wins", [both.seq, both.duplicate], [3, None])


async def partitions(memphis, js):
    await memphis.station("three", partitions_number=3)
    producer = await memphis.producer("three", "producer")
    for n in range(4):
        await producer.produce(f"{n}")
    check("round robin", await counts(js, "three", 3), [2, 1, 1])
    for n in range(3):
        await producer.produce("by number", producer_partition_number=2)
    check("by number", await counts(js, "three", 3), [2, 4, 1])
    # Every SDK hashes alike: murmur3 of the key, seed 31, modulo the number of partitions.
    await producer.produce("by key", producer_partition_key="a")
    await producer.produce("by key", producer_partition_key="some-key")
    check("by key", await counts(js, "three", 3), [3, 4, 2])
    await check_error("both", producer.produce("x", producer_partition_key="a", producer_partition_number=1), "both partition number and partition key")
    await check_error("no such partition", producer.produce("x", producer_partition_number=4), "out of range")


async def several_stations(memphis, js):
    for station in ("left", "right"):
        await memphis.station(station)
    both = await memphis.producer(["left", "right"], "producer")
    await both.produce("to both")
    check("two stations", [await counts(js, "left", 1), await counts(js, "right", 1)], [[1], [1]])
    await memphis.produce("left", "direct", "without a producer object")
    check("direct", await counts(js, "left", 1), [2])


async def ends(memphis, js):
    station = await memphis.station("ends")
    same = await memphis.producer("ends", "producer")
    check("a producer is kept", await memphis.producer("ends", "producer") is same, True)
    await same.destroy()
    again = await memphis.producer("ends", "producer")
    await again.produce("x")
    await station.destroy()
    late = await memphis.producer("three", "late")
    await memphis.station("gone")
    lost = await memphis.producer("gone", "lost")
    await js.delete_stream("gone$1")
    await check_error("no stream", lost.produce("x", ack_wait_sec=2), "")
    await late.destroy()


async def scenario(memphis, js):
    for part in (one_partition, message_ids, partitions, several_stations, ends):
        await part(memphis, js)


run(scenario)
