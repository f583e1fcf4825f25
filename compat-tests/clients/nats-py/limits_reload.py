"""What accounts and the server may use of JetStream changes while clients stay connected."""

import json
import os
import urllib.request

import nats
import reloading
from reloading import FILE, said
from scenario import note, normalise, run


async def reload(old, new):
    """Puts other words into the configuration; notes what the log says of it."""
    fresh, text = await reloading.reload(old, new)
    wanted = [said(line) for line in fresh if "JetStream max_" in line or "Failed" in line]
    note(f"reload to {new}", [line.replace("Failed to reload server configuration: ", "") for line in wanted])
    if any("not supported" in line for line in wanted):
        FILE.write_text(text)


async def api(nc, what, body=None):
    payload = b"" if body is None else json.dumps(body).encode()
    try:
        answer = json.loads((await nc.request(f"$JS.API.{what}", payload, timeout=2)).data)
    except nats.errors.NoRespondersError:
        answer = "no responders"
    else:
        answer = answer.get("error") or {k: answer[k] for k in ("limits", "storage", "streams", "config") if k in answer}
    if isinstance(answer, dict) and "config" in answer:
        answer = answer["config"]["max_bytes"]
    note(f"{what} {json.dumps(body)}", normalise(answer))


async def stream(nc, name, size, **more):
    await api(nc, f"STREAM.CREATE.{name}", {"name": name, "subjects": [name], "max_bytes": size, **more})


def server_limits():
    with urllib.request.urlopen(f"{os.environ['MONITORING_URL']}/jsz") as page:
        config = json.load(page)["config"]
    note("server", {k: config[k] for k in ("max_memory", "max_storage")})


async def scenario(nc):
    b = await nats.connect(os.environ["NATS_URL"], user="b", password="b")
    await api(nc, "INFO")
    await api(b, "INFO")
    await stream(nc, "S1", 20000)
    await stream(nc, "S2", 20000)
    await reload("max_file: 32KB", "max_file: 64KB")
    await api(nc, "INFO")
    await stream(nc, "S2", 20000)
    await stream(nc, "S3", 30000)
    await reload("max_streams: 3", "max_streams: 2")
    await stream(nc, "S3", 1000)
    await reload("max_streams: 2", "max_streams: 3")
    await stream(nc, "S3", 1000)
    await reload("B { jetstream: disabled", "B { jetstream: enabled")
    await api(b, "INFO")
    await stream(b, "S1", 70000)
    await stream(b, "S2", 90000)
    await stream(b, "M", 9000, storage="memory")
    server_limits()
    await reload("max_file_store: 128KB", "max_file_store: 256KB")
    server_limits()
    await stream(b, "S2", 90000)
    await reload("max_memory_store: 8KB", "max_memory_store: 16KB")
    server_limits()
    await stream(b, "M", 9000, storage="memory")
    await reload("max_memory_store: 16KB", "max_memory_store: 4KB")
    await reload("max_memory_store: 16KB, ", "")
    server_limits()
    await publish(b, "S1", b"while there is JetStream")
    await reload("B { jetstream: enabled", "B { jetstream: disabled")
    await api(b, "INFO")
    await publish(b, "S1", b"while there is no JetStream")
    await reload("B { jetstream: disabled", "B { jetstream: enabled")
    await messages(b, "S1")
    await publish(b, "S1", b"again")
    await messages(b, "S1")
    await b.close()


async def publish(nc, subject, payload):
    try:
        answer = json.loads((await nc.request(subject, payload, timeout=2)).data)
    except nats.errors.NoRespondersError:
        answer = "no responders"
    note(f"{payload} to {subject}", normalise(answer))


async def messages(nc, stream):
    answer = json.loads((await nc.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=2)).data)
    note(f"stored in {stream}", answer["state"]["messages"])


run(scenario)
