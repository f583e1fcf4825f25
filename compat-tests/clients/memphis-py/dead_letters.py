"""Dead letters with memphis-py: where they come from, resending, settling, forwarding, dropping."""

import asyncio
import base64
import json

from scenario import Headers, MemphisError, Retention, ask, check, eventually, plain, run, texts


async def letters(nc, station, **more):
    return (await ask(nc, "DEAD_LETTER.LIST", station=station, **more))["dead_letters"]


async def has(nc, station, count, **more):
    async def enough():
        return len(await letters(nc, station, **more)) == count

    await eventually(f"{station} has {count} dead letters", enough, 10)
    return await letters(nc, station, **more)


async def undelivered(memphis, nc):
    await memphis.station("Poison.St", partitions_number=1)
    producer = await memphis.producer("poison.st", "prod")
    await producer.produce(bytearray(b"one"), headers=header(k="v"))
    await producer.produce(bytearray(b"two"))
    groups = {}
    for group in ("Grp.A", "grp-b"):
        groups[group] = await memphis.consumer("poison.st", group, consumer_group=group, max_ack_time_ms=300, max_msg_deliveries=1)
        check(f"{group} gets both", texts(await groups[group].fetch(batch_size=2)), ["one", "two"])
    # A limit that is exceeded is noticed by whoever asks for more.
    for consumer in groups.values():
        await consumer.fetch(batch_size=1)
    found = await has(nc, "poison.st", 4)
    seen = sorted([l["sequence"], l["group"], base64.b64decode(l["payload"]).decode()] for l in found)
    check("each group has its own", seen, [[1, "grp-b", "one"], [1, "grp.a", "one"], [2, "grp-b", "two"], [2, "grp.a", "two"]])
    first = next(l for l in found if l["sequence"] == 1 and l["group"] == "grp.a")
    check("details", [first["kind"], first["partition"], first["producer"], first["headers"]["k"], first["reason"]], ["poison", 1, "prod", "v", ""])
    check("found by text", len(await letters(nc, "poison.st", search="TWO")), 2)
    check("found by group", len(await letters(nc, "poison.st", group="Grp.A")), 2)
    page = await ask(nc, "DEAD_LETTER.LIST", station="poison.st", limit=3)
    rest = await ask(nc, "DEAD_LETTER.LIST", station="poison.st", after=page["next"])
    check("pages", [len(page["dead_letters"]), len(rest["dead_letters"]), rest["next"]], [3, 1, None])

    # Sent again, to the group that failed it.
    check("resent", (await ask(nc, "DEAD_LETTER.RESEND", station="poison.st", ids=[first["id"]]))["resent"], 1)

    async def arrived():
        return len(groups["Grp.A"].dls_messages) == 1

    await eventually("the message comes again", arrived)
    again = await groups["Grp.A"].fetch(batch_size=1)
    headers = again[0].get_headers()
    check("as the SDK expects it", [texts(again), headers["k"], headers["$memphis_pm_id"], headers["$memphis_pm_cg_name"], headers["$memphis_producedBy"]],
          [["one"], "v", str(first["id"]), "grp.a", "$memphis_dls"])
    await again[0].ack()
    await has(nc, "poison.st", 3)
    check("the other group is not told", len(groups["grp-b"].dls_messages), 0)
    check("all of a group", (await ask(nc, "DEAD_LETTER.RESEND", station="poison.st", group="grp-b"))["resent"], 2)

    async def both():
        return len(groups["grp-b"].dls_messages) == 2

    await eventually("both come again", both)

    # Leaving with the last member takes the group's dead letters along.
    await groups["grp-b"].destroy()
    await has(nc, "poison.st", 1)
    check("dropped", (await ask(nc, "DEAD_LETTER.DROP", station="poison.st", ids=[first["id"]]))["dropped"], 0)
    left = await letters(nc, "poison.st")
    check("dropped", (await ask(nc, "DEAD_LETTER.DROP", station="poison.st", ids=[left[0]["id"]]))["dropped"], 1)
    check("none left", await letters(nc, "poison.st"), [])


def header(**fields):
    headers = Headers()
    for name, value in fields.items():
        headers.add(name, value)
    return headers


async def given_up(memphis, nc):
    """What a consumer gives up is a dead letter once, with the reason if there is one."""
    await memphis.station("given-up", partitions_number=2)
    producer = await memphis.producer("given-up", "prod")
    for text in ("a", "b"):
        await producer.produce(text)
    consumer = await memphis.consumer("given-up", "c", consumer_group="g")
    messages = await consumer.fetch(batch_size=1) + await consumer.fetch(batch_size=1)
    check("both partitions", sorted(texts(messages)), ["a", "b"])
    for message in messages:
        if message.get_data() == b"a":
            # This SDK ends the delivery and then trips over itself before it says why.
            try:
                await message.dead_letter("no reason arrives")
            except MemphisError:
                pass
        else:
            await message.message.term()
            metadata = message.message.metadata
            await nc.publish("$memphis_nacked_dls", json.dumps({
                "station_name": "given-up", "error": "because", "partition": 2, "cg_name": "G", "seq": metadata.sequence.stream,
            }).encode())
    found = await has(nc, "given-up", 2)
    check("reasons", sorted([l["partition"], l["reason"]] for l in found), [[1, ""], [2, "because"]])
    await asyncio.sleep(1.5)
    check("once each", len(await letters(nc, "given-up")), 2)


async def violations(memphis, nc):
    await memphis.station("violated")
    body = {"station_name": "violated", "producer": {"name": "p", "connection_id": "x"},
            "message": {"data": b'{"g":1}'.hex().upper(), "headers": {"Hk": "hv", "$memphis_producedBy": "p"}},
            "validation_error": "Schema validation has failed: f is missing"}
    await nc.request("$memphis_schemaverse_dls", json.dumps(body).encode(), timeout=15)
    (letter,) = await has(nc, "violated", 1, kind="schema")
    check("kept", [base64.b64decode(letter["payload"]), letter["headers"]["Hk"], letter["producer"], letter["reason"]],
          [b'{"g":1}', "hv", "p", "Schema validation has failed: f is missing"])
    await ask(nc, "DEAD_LETTER.EDIT", id=letter["id"], text='{"f":"mended"}')
    check("mended and gone", await letters(nc, "violated"), [])
    consumer = await memphis.consumer("violated", "c")
    check("in the station", texts(await consumer.fetch(batch_size=1)), ['{"f":"mended"}'])


async def forwarding(memphis, nc):
    await memphis.station("source", dls_station="Copies")
    producer = await memphis.producer("source", "prod")
    await producer.produce("x", msg_id="id-1")
    for group in ("g", "h"):
        consumer = await memphis.consumer("source", group, max_ack_time_ms=200, max_msg_deliveries=1)
        await consumer.fetch(batch_size=1)
        await consumer.fetch(batch_size=1)
    await has(nc, "source", 2)
    reader = await memphis.consumer("copies", "reader")
    copies = await reader.fetch(batch_size=5)
    headers = copies[0].get_headers()
    check("one copy", [texts(copies), headers["station"], headers["type"]], [["x"], "source", "unacked"])


async def switched_off(memphis, nc):
    await memphis.station("silent", send_poison_msg_to_dls=False)
    producer = await memphis.producer("silent", "prod")
    await producer.produce("x")
    consumer = await memphis.consumer("silent", "c", max_ack_time_ms=200, max_msg_deliveries=1)
    await consumer.fetch(batch_size=1)
    await consumer.fetch(batch_size=1)
    check("nothing is kept", await letters(nc, "silent"), [])
    await ask(nc, "STATION.UPDATE", station="silent", dls_configuration={"poison": True, "schemaverse": False})
    info = await ask(nc, "STATION.INFO", station="silent")
    check("switched on", info["dead_letters"], {"poison": True, "schemaverse": False})
    await producer.produce("y")
    await consumer.fetch(batch_size=1)
    await consumer.fetch(batch_size=1)
    await has(nc, "silent", 1)


async def ack_based(memphis, nc):
    """A message that its station lets go of is kept as a dead letter all the same."""
    await memphis.station("let-go", retention_type=Retention.ACK_BASED)
    consumer = await memphis.consumer("let-go", "c")
    producer = await memphis.producer("let-go", "prod")
    await producer.produce("kept")
    (message,) = await consumer.fetch(batch_size=1)
    await message.message.term()
    (letter,) = await has(nc, "let-go", 1)
    check("its content", base64.b64decode(letter["payload"]), b"kept")


async def removal(memphis, nc):
    station = await memphis.station("short-lived")
    await nc.request("$memphis_schemaverse_dls", json.dumps({"station_name": "short-lived", "message": {"data": "00", "headers": {}}}).encode(), timeout=15)
    await has(nc, "short-lived", 1)
    await station.destroy()
    await memphis.station("short-lived")
    check("gone with the station", await letters(nc, "short-lived"), [])


async def scenario(memphis, _js):
    nc = await plain()
    for part in (undelivered, given_up, violations, forwarding, switched_off, ack_based, removal):
        await part(memphis, nc)
    await nc.close()


run(scenario)
