"""How fast memphis-py produces and consumes, for scripts/benchmarks-memphis.py. Prints JSON: of each
part the seconds for a message, and those of this process's processor time. Usage: rate.py MESSAGES
BYTES, with MEMPHIS_HOST, MEMPHIS_PORT, NATS_USER and NATS_PASSWORD set."""

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

    def now():
        return time.perf_counter(), time.process_time()

    def note(part, began, messages):
        seconds[part] = [(end - begin) / messages for end, begin in zip(now(), began)]

    # One after the other: each waits for its acknowledgement.
    few = max(count // 10, 1)
    began = now()
    for _ in range(few):
        await producer.produce(message)
    note("one at a time", began, few)

    # Many at a time.
    began = now()
    for _ in range(count // 100):
        await asyncio.gather(*(producer.produce(message) for _ in range(100)))
    note("100 at a time", began, count // 100 * 100)

    total = few + count // 100 * 100
    consumer = await memphis.consumer(name, "c", batch_size=500, max_ack_time_ms=60000)
    began = now()
    taken = 0
    while taken < total:
        messages = await consumer.fetch(batch_size=500)
        for one in messages or []:
            await one.ack()
        taken += len(messages or [])
    note("consume and ack", began, total)
    await memphis.close()
    print(json.dumps(seconds))


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
