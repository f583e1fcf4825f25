"""Stores what can be told from anything else (`write`), or reads all of it (`read`).

Everything is told by the words that the test looks for in the files of the server.
"""

import sys

from nats.js import api
from scenario import check, run

STREAM, SUBJECT, PAYLOAD, HEADER = "STREAMTOTELL", "subjecttotell", "payloadtotell", "headertotell"
CONSUMER, BUCKET, KEY, VALUE = "consumertotell", "buckettotell", "keytotell", "valuetotell"
OBJECT, MESSAGE_ID = "objecttotell", "idtotell"
COUNT = 300


async def write(js):
    await js.add_stream(
        name=STREAM,
        subjects=[f"{SUBJECT}.>"],
        description="descriptiontotell",
        duplicate_window=3600,
    )
    for number in range(COUNT):
        headers = {"X-Header": HEADER, "Nats-Msg-Id": f"{MESSAGE_ID}-{number}"}
        await js.publish(f"{SUBJECT}.{number}", f"{PAYLOAD}-{number}".encode(), headers=headers)
    kv = await js.create_key_value(bucket=BUCKET)
    await kv.put(KEY, VALUE.encode())
    objects = await js.create_object_store(bucket=BUCKET)
    await objects.put(OBJECT, PAYLOAD.encode() * 20000)
    consumer = await js.pull_subscribe(f"{SUBJECT}.>", durable=CONSUMER, stream=STREAM)
    for message in await consumer.fetch(10):
        await message.ack_sync()


async def read(js):
    for number in range(COUNT):
        message = await js.get_msg(STREAM, number + 1)
        check_quietly(message.subject, f"{SUBJECT}.{number}")
        check_quietly(message.data, f"{PAYLOAD}-{number}".encode())
    kv = await js.key_value(BUCKET)
    check("value", (await kv.get(KEY)).value, VALUE.encode())
    objects = await js.object_store(BUCKET)
    check_quietly((await objects.get(OBJECT)).data, PAYLOAD.encode() * 20000)
    info = await js.consumer_info(STREAM, CONSUMER)
    check("acknowledged", info.ack_floor.stream_seq, 10)
    again = await js.publish(f"{SUBJECT}.0", b"", headers={"Nats-Msg-Id": f"{MESSAGE_ID}-5"})
    check("known", again.duplicate, True)


def check_quietly(seen, expected):
    if seen != expected:
        raise AssertionError(f"saw {seen!r}, expected {expected!r}")


async def scenario(nc):
    js = nc.jetstream()
    if "write" in sys.argv:
        await write(js)
    await read(js)


run(scenario)
