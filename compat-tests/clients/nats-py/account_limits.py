"""What an account may use of JetStream, as the configuration says; see `limits.conf`."""

import json

import nats
from scenario import check, normalise, note, run

# The account may hold 2 streams, 64 KiB on disk, 16 KiB in memory, 1 consumer of a stream.
REQUESTS = [
    ("INFO", None, 0),
    ("STREAM.CREATE.A", {"name": "A"}, 10113),
    ("STREAM.CREATE.A", {"name": "A", "max_bytes": 40000}, 10122),
    ("STREAM.CREATE.A", {"name": "A", "max_bytes": 32768}, 0),
    ("STREAM.CREATE.M", {"name": "M", "max_bytes": 16385, "storage": "memory"}, 10028),
    ("STREAM.CREATE.M", {"name": "M", "max_bytes": 16384, "storage": "memory"}, 0),
    ("STREAM.CREATE.B", {"name": "B", "max_bytes": 1}, 10027),
    ("STREAM.DELETE.M", None, 0),
    ("STREAM.CREATE.B", {"name": "B", "max_bytes": 32769}, 10122),
    ("STREAM.CREATE.B", {"name": "B", "max_bytes": 32768}, 0),
    ("STREAM.UPDATE.A", {"name": "A", "max_bytes": 32767, "max_consumers": 5}, 10026),
    ("CONSUMER.CREATE.A.x", {"stream_name": "A", "config": {"name": "x", "ack_policy": "explicit", "max_ack_pending": 101}}, 10121),
    ("CONSUMER.CREATE.A.x", {"stream_name": "A", "config": {"name": "x", "ack_policy": "explicit", "max_ack_pending": 100}}, 0),
    ("CONSUMER.CREATE.A.y", {"stream_name": "A", "config": {"name": "y", "ack_policy": "none"}}, 10026),
    ("INFO", None, 0),
]


async def scenario(nc):
    for what, body, expected in REQUESTS:
        payload = b"" if body is None else json.dumps(body).encode()
        answer = json.loads((await nc.request(f"$JS.API.{what}", payload, timeout=2)).data)
        print(f"{what} {json.dumps(body)} = {json.dumps(normalise(answer), sort_keys=True)}")
        check(what, answer.get("error", {}).get("err_code", 0), expected)
    without = await nats.connect(nc.connected_url.geturl(), user="without", password="without")
    for what in ("INFO", "STREAM.NAMES", "STREAM.INFO.A", "STREAM.CREATE.A", "CONSUMER.LIST.A"):
        answer = json.loads((await without.request(f"$JS.API.{what}", b"", timeout=2)).data)
        note(f"{what} without JetStream", answer)
        check(what, answer["error"]["err_code"], 10039)
    for what in ("CONSUMER.MSG.NEXT.A.x", "DIRECT.GET.A"):
        try:
            await without.request(f"$JS.API.{what}", b"", timeout=2)
            raise AssertionError(f"someone answers {what} of an account without JetStream")
        except nats.errors.NoRespondersError:
            print(f"{what}: no responders")
    await without.close()


run(scenario)
