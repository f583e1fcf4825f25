"""nats-py fetches one message by pull subscription: stream, expected text."""

import asyncio
import os
import sys

import nats


async def main(stream, text):
    nc = await nats.connect(os.environ["NATS_URL"], user=os.environ["NATS_USER"], password=os.environ["NATS_PASSWORD"])
    sub = await nc.jetstream().pull_subscribe(f"{stream}.final", durable="nats-py")
    (msg,) = await sub.fetch(1, timeout=5)
    await msg.ack_sync()
    seen = [msg.subject, msg.data.decode(), msg.headers["trip"], msg.headers["$memphis_producedBy"]]
    assert seen == [f"{stream}.final", text, "round", "round.trip"], seen
    await nc.close()


asyncio.run(main(*sys.argv[1:]))
