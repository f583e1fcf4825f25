"""Produces with memphis-py while the server is killed again and again: station.

Prints `SENT id` before a message's first sending and `ACKED id` after its ack; repeats a message,
with the same id, until it is acknowledged. A line on standard input ends it in good order.
"""

import asyncio
import sys
import threading

from scenario import Headers, MemphisError, connect


async def main(station):
    memphis = await connect(reconnect_interval_ms=20)
    await memphis.station(station, idempotency_window_ms=3600000, retention_value=7200)
    producer = await memphis.producer(station, "kill-loop")

    ending = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), ending.set()), daemon=True).start()
    print("READY", flush=True)
    number = 0
    while not ending.is_set():
        number += 1
        text = f"memphis-{number}"
        print(f"SENT {text}", flush=True)
        while True:
            headers = Headers()
            headers.add("number", str(number))
            try:
                await producer.produce(bytearray(text.encode()), headers=headers, msg_id=text, ack_wait_sec=1)
                break
            except MemphisError:
                await asyncio.sleep(0.02)
        print(f"ACKED {text}", flush=True)
    await memphis.close()


asyncio.run(main(sys.argv[1]))
