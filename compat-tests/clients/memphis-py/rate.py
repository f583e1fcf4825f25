"""How fast memphis-py produces and consumes, for scripts/benchmarks-memphis.py. Prints JSON: seconds
of each part. Usage: rate.py MESSAGES BYTES, with MEMPHIS_HOST, MEMPHIS_PORT, NATS_USER and
NATS_PASSWORD set."""

import asyncio
import json
import sys
import time

from scenario import connect


async def main(count, size):
    memphis = await connect()
    name = f"rate-{time.time_ns()}"
    await memphis.station(name, retention_value=3600)
    producer = await memphis.producer(name, "p")
    message = bytearray(b"x" * size)
    seconds = {}

    # One after the other: each waits for its acknowledgement.
    few = max(count // 10, 1)
    began = time.perf_counter()
    for _ in range(few):
        await producer.produce(message)
    seconds["one at a time"] = (time.perf_counter() - began) / few

    # Many at a time.
    began = time.perf_counter()
    for _ in range(count // 100):
        await asyncio.gather(*(producer.produce(message) for _ in range(100)))
    seconds["100 at a time"] = (time.perf_counter() - began) / (count // 100 * 100)

    total = few + count // 100 * 100
    consumer = await memphis.consumer(name, "c", batch_size=500, max_ack_time_ms=60000)
    began = time.perf_counter()
    taken = 0
    while taken < total:
        messages = await consumer.fetch(batch_size=500)
        for one in messages or []:
            await one.ack()
        taken += len(messages or [])
    seconds["consume and ack"] = (time.perf_counter() - began) / total
    await memphis.close()
    print(json.dumps(seconds))


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
