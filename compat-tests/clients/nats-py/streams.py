"""JetStream streams: configuration, publishing with acks, reading, limits, deletion."""

import nats
from nats.js import api
from nats.js.errors import APIError, BadRequestError, NotFoundError, NoStreamResponseError, ServerError
from scenario import check, check_error, note, run


async def configuration(js):
    info = await js.add_stream(name="CFG", subjects=["cfg.>"])
    note("new stream", info)
    again = await js.add_stream(name="CFG", subjects=["cfg.>"])
    check("same again", again.config.subjects, ["cfg.>"])
    await check_error("other config", js.add_stream(name="CFG", subjects=["cfg.other"]), BadRequestError, err_code=10058)
    await check_error("overlap", js.add_stream(name="CFG2", subjects=["cfg.a"]), BadRequestError, err_code=10065)
    await check_error("update of a missing stream", js.update_stream(name="NONE", subjects=["n"]), NotFoundError, err_code=10059)
    await check_error("info of a missing stream", js.stream_info("NONE"), NotFoundError, err_code=10059)
    await check_error("storage cannot change", js.update_stream(name="CFG", subjects=["cfg.>"], storage=api.StorageType.MEMORY), ServerError, err_code=10052)

    updated = await js.update_stream(
        name="CFG", subjects=["cfg.>", "more.*"], max_msgs=100, max_age=3600, description="described",
        metadata={"owner": "tests"}, allow_direct=True, duplicate_window=60,
    )
    note("updated", updated.config)
    check("found by subject", await js.find_stream_name_by_subject("more.x"), "CFG")
    await check_error("no stream for a subject", js.find_stream_name_by_subject("nothing"), NotFoundError)

    await js.add_stream(name="MEM", subjects=["mem"], storage=api.StorageType.MEMORY)
    check("names", sorted(s.config.name for s in await js.streams_info()), ["CFG", "MEM"])
    account = await js.account_info()
    check("account", [account.streams, account.consumers], [2, 0])
    check("deleted", await js.delete_stream("MEM"), True)
    check("deleted", await js.delete_stream("CFG"), True)
    await check_error("delete again", js.delete_stream("CFG"), NotFoundError, err_code=10059)


async def publishing(js):
    await js.add_stream(name="PUB", subjects=["pub.*"], duplicate_window=60)
    first = await js.publish("pub.a", b"one")
    check("ack", [first.stream, first.seq, first.duplicate], ["PUB", 1, None])
    with_id = await js.publish("pub.a", b"two", headers={"Nats-Msg-Id": "id-1"})
    same_id = await js.publish("pub.a", b"two again", headers={"Nats-Msg-Id": "id-1"})
    check("duplicate", [with_id.seq, same_id.seq, same_id.duplicate], [2, 2, True])

    async def publish(**headers):
        named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        return await js.publish("pub.b", b"x", headers=named)

    await check_error("wrong last sequence", publish(Nats_Expected_Last_Sequence=7), BadRequestError, err_code=10071)
    check("right last sequence", (await publish(Nats_Expected_Last_Sequence=2)).seq, 3)
    await check_error("wrong last subject sequence", publish(Nats_Expected_Last_Subject_Sequence=2), BadRequestError, err_code=10071)
    check("right last subject sequence", (await publish(Nats_Expected_Last_Subject_Sequence=3)).seq, 4)
    await check_error("wrong stream", publish(Nats_Expected_Stream="OTHER"), BadRequestError, err_code=10060)
    check("right stream", (await publish(Nats_Expected_Stream="PUB")).seq, 5)
    await check_error("wrong last message id", publish(Nats_Expected_Last_Msg_Id="no"), BadRequestError, err_code=10070)
    await check_error("no stream listens", js.publish("elsewhere", b""), NoStreamResponseError)

    futures = [await js.publish_async("pub.c", b"%d" % n) for n in range(500)]
    await js.publish_async_completed()
    check("five hundred acks in order", [f.result().seq for f in futures] == list(range(6, 506)), True)
    note("state", (await js.stream_info("PUB", subjects_filter=">")).state)
    await js.delete_stream("PUB")


async def reading(js):
    for direct in (False, True):
        name = "DIRECT" if direct else "READ"
        await js.add_stream(name=name, subjects=[f"{name}.*"], allow_direct=direct)
        for n in range(1, 7):
            await js.publish(f"{name}.{n % 2}", b"%d" % n, headers={"N": str(n)} if n % 3 == 0 else None)

        def get(**query):
            return js.get_msg(name, direct=direct, **query)

        third = await get(seq=3)
        check(f"{name} by sequence", [third.subject, third.seq, third.data, third.headers and third.headers.get("N")], [f"{name}.1", 3, b"3", "3"])
        last = await get(subject=f"{name}.0")
        check(f"{name} last of a subject", [last.seq, last.data], [6, b"6"])
        following = await get(seq=3, subject=f"{name}.0", next=True)
        check(f"{name} next of a subject", following.seq, 4)
        await check_error(f"{name} beyond the end", get(seq=99), NotFoundError)
        await check_error(f"{name} unknown subject", get(subject=f"{name}.9"), NotFoundError)

        check(f"{name} delete", await js.delete_msg(name, 3), True)
        await check_error(f"{name} get a deleted one", get(seq=3), NotFoundError)
        await check_error(f"{name} delete again", js.delete_msg(name, 3), APIError)
        note(f"{name} state", (await js.stream_info(name)).state)
        check(f"{name} purge one subject, keep one", await js.purge_stream(name, subject=f"{name}.0", keep=1), True)
        note(f"{name} after purge of a subject", (await js.stream_info(name, subjects_filter=">")).state)
        check(f"{name} purge up to", await js.purge_stream(name, seq=6), True)
        check(f"{name} first", (await js.stream_info(name)).state.first_seq, 6)
        check(f"{name} purge all", await js.purge_stream(name), True)
        note(f"{name} after purge", (await js.stream_info(name)).state)
        check(f"{name} sequence goes on", (await js.publish(f"{name}.1", b"7")).seq, 7)
        await js.delete_stream(name)


async def limits(js):
    async def state(name):
        state = (await js.stream_info(name)).state
        return [state.messages, state.first_seq, state.last_seq]

    await js.add_stream(name="OLD", subjects=["old"], max_msgs=3)
    for n in range(5):
        await js.publish("old", b"%d" % n)
    check("discard old", await state("OLD"), [3, 3, 5])

    await js.add_stream(name="NEW", subjects=["new"], max_msgs=2, discard=api.DiscardPolicy.NEW)
    await js.publish("new", b"1")
    await js.publish("new", b"2")
    await check_error("discard new", js.publish("new", b"3"), APIError, err_code=10077)
    check("discard new state", await state("NEW"), [2, 1, 2])

    await js.add_stream(name="EACH", subjects=["each.*"], max_msgs_per_subject=1)
    for n in range(6):
        await js.publish(f"each.{n % 3}", b"%d" % n)
    check("one per subject", await state("EACH"), [3, 4, 6])

    await js.add_stream(name="SIZE", subjects=["size"], max_msg_size=10)
    await check_error("message too large", js.publish("size", b"x" * 11), APIError, err_code=10054)

    await js.add_stream(name="BYTES", subjects=["bytes"], max_bytes=1000)
    for _ in range(20):
        await js.publish("bytes", b"x" * 100)
    bounded = (await js.stream_info("BYTES")).state
    check("max bytes holds", bounded.bytes <= 1000 and bounded.last_seq == 20, True)
    note("max bytes", bounded)

    await js.add_stream(name="AGE", subjects=["age"], max_age=0.5, duplicate_window=0.4)
    await js.publish("age", b"old")
    from scenario import eventually

    async def expired():
        return (await js.stream_info("AGE")).state.messages == 0

    await eventually("expired", expired)
    check("expired", await state("AGE"), [0, 2, 1])

    await js.add_stream(name="LOCK", subjects=["lock"], deny_delete=True, deny_purge=True)
    await js.publish("lock", b"x")
    await check_error("delete denied", js.delete_msg("LOCK", 1), APIError)
    await check_error("purge denied", js.purge_stream("LOCK"), APIError)
    await js.update_stream(name="OLD", subjects=["old"], max_msgs=1)
    check("lowered limit", await state("OLD"), [1, 5, 5])
    for name in ("OLD", "NEW", "EACH", "SIZE", "BYTES", "AGE", "LOCK"):
        await js.delete_stream(name)


async def retention(js):
    await js.add_stream(name="WORK", subjects=["work.*"], retention=api.RetentionPolicy.WORK_QUEUE)
    for n in range(3):
        await js.publish("work.a", b"%d" % n)
    worker = await js.pull_subscribe("work.*", durable="worker")
    for msg in await worker.fetch(2):
        await msg.ack_sync()
    state = (await js.stream_info("WORK")).state
    check("work queue", [state.messages, state.first_seq], [1, 3])
    await check_error("second worker", js.pull_subscribe("work.*", durable="second"), APIError)

    await js.add_stream(name="INTEREST", subjects=["interest"], retention=api.RetentionPolicy.INTEREST)
    ack = await js.publish("interest", b"nobody")
    check("nobody is interested", [ack.seq, (await js.stream_info("INTEREST")).state.messages], [1, 0])
    one = await js.pull_subscribe("interest", durable="one")
    two = await js.pull_subscribe("interest", durable="two")
    await js.publish("interest", b"both")
    await (await one.fetch(1))[0].ack_sync()
    check("one of two", (await js.stream_info("INTEREST")).state.messages, 1)
    await (await two.fetch(1))[0].ack_sync()
    check("two of two", (await js.stream_info("INTEREST")).state.messages, 0)
    await js.delete_stream("WORK")
    await js.delete_stream("INTEREST")


async def scenario(nc):
    js = nc.jetstream()
    for part in (configuration, publishing, reading, limits, retention):
        await part(js)
    await check_error("bad name", js._api_request(f"{js._prefix}.STREAM.CREATE.a*b", b"{}", timeout=5), nats.js.errors.Error)


run(scenario)
