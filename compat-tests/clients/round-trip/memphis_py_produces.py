"""memphis-py produces one message: station, text."""

import asyncio
import os
import sys

from memphis import Headers, Memphis


async def main(station, text):
    memphis = Memphis()
    await memphis.connect(
        host=os.environ["MEMPHIS_HOST"], port=int(os.environ["MEMPHIS_PORT"]),
        username=os.environ["NATS_USER"], password=os.environ["NATS_PASSWORD"],
    )
    await memphis.station(station)
    producer = await memphis.producer(station, "Round.Trip")
    headers = Headers()
    headers.add("trip", "round")
    await producer.produce(bytearray(text.encode()), headers=headers, msg_id="trip-1")
    await memphis.close()


asyncio.run(main(*sys.argv[1:]))
