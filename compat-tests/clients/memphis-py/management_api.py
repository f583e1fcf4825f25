"""The management API, driven with Python's HTTP client and with curl; what it does is looked at
with memphis-py and nats-py."""

import base64
import json
import os
import subprocess

import exchanges
from exchanges import PASSWORD, USER
from scenario import check, eventually, plain, run, texts


async def call(*arguments, **named):
    """Status and answer of a request."""
    return (await exchanges.call(*arguments, **named))[:2]


async def refused(label, status, code, *arguments, **named):
    answer = await call(*arguments, **named)
    check(label, (answer[0], answer[1]["code"], answer[1]["status"]), (status, code, status))


async def logins():
    check("health needs no login", await call("GET", "/health", authorization=None), (200, {"status": "ok"}))
    status, session = await call("POST", "/sessions", {"username": USER, "password": PASSWORD}, authorization=None)
    check("logged in", (status, sorted(session)), (201, ["expires_in_ms", "token", "username"]))
    bearer = f"Bearer {session['token']}"
    check("with a token", (await call("GET", "/stations", authorization=bearer))[0], 200)
    check("with a password", (await call("GET", "/stations"))[0], 200)
    wrong = base64.b64encode(b"root:wrong").decode()
    for label, authorization in (
        ("nothing", None),
        ("wrong password", f"Basic {wrong}"),
        ("no base64", "Basic ???"),
        ("no pair", "Basic " + base64.b64encode(b"root").decode()),
        ("another scheme", "Digest x"),
        ("one word", session["token"]),
        ("a changed token", bearer[:-2] + "xx"),
    ):
        await refused(label, 401, "E-AUTH-LOGIN", "GET", "/stations", authorization=authorization)
    await refused("wrong login", 401, "E-AUTH-LOGIN", "POST", "/sessions", {"username": USER, "password": "x"}, authorization=None)
    for label, body in (("no JSON", "{"), ("no name", {}), ("another field", {"username": "a", "x": 1}), ("a number", {"username": 1})):
        await refused(label, 400, "E-API-BODY", "POST", "/sessions", body, authorization=None)


async def stations(memphis, nc, js):
    status, made = await call("POST", "/stations", {"name": "Api.St", "partitions": 2, "retention_type": "messages", "retention_value": 100})
    check("made", (status, made["name"], made["partitions"], made["retention"]), (201, "api.st", 2, {"type": "messages", "value": 100}))
    check("a stream for each partition", (await js.stream_info("api#st$2")).config.max_msgs, 100)
    await refused("made twice", 409, "E-API-CONFLICT", "POST", "/stations", {"name": "api.st"})
    producer = await memphis.producer("api.st", "p")
    for n in range(4):
        await producer.produce(bytearray(str(n).encode()))
    consumer = await memphis.consumer("api.st", "c", consumer_group="g", max_msg_deliveries=2)
    for partition in (1, 2):
        for message in await consumer.fetch(batch_size=2, consumer_partition_number=partition):
            await message.ack()
    status, listed = await call("GET", "/stations")
    check("listed", (status, "api.st" in [s["name"] for s in listed["items"]], listed["next_cursor"]), (200, True, None))
    status, shown = await call("GET", "/stations/Api.St")
    check("shown", (status, shown["producers"], [g["members"] for g in shown["groups"]]), (200, 1, [1]))
    status, changed = await call("PATCH", "/stations/api.st", {"partitions": 3})
    check("changed", (status, changed["partitions"]), (200, 3))
    check("grown", (await js.stream_info("api#st$3")).config.max_msgs, 100)
    status, counts = await call("GET", "/status")
    check("counts", (status, counts["stations"], counts["groups"], counts["members"], counts["producers"]), (200, 1, 1, 1, 1))

    path = "/stations/api.st/groups"

    async def settled():
        _, groups = await call("GET", path)
        return [(g["group"], g["lag"], g["in_process"]) for g in groups["items"]] == [("g", 0, 0)]

    await eventually("everything is acknowledged", settled)
    status, group = await call("GET", f"{path}/g")
    check("members", [(m["name"], m["user"], m["is_active"]) for m in group["members"]], [("c", USER, True)])
    check("partitions", [p["partition"] for p in group["partitions"]], [1, 2, 3])
    status, answer = await call("POST", f"{path}/g/reset", {"to": "start"})
    check("reset", (status, [s["sequence"] for s in answer["sequences"]]), (200, [1, 1, 1]))
    check("read again", texts(await consumer.fetch(batch_size=1, consumer_partition_number=1)), ["0"])
    check("paused", await call("POST", f"{path}/g/pause", {"seconds": 60}), (204, None))
    check("it says so", (await call("GET", f"{path}/g"))[1]["is_paused"], True)
    check("resumed", await call("POST", f"{path}/g/resume"), (204, None))
    check("a retry policy", await call("PATCH", f"{path}/g", {"max_msg_deliveries": 20, "backoff_ms": [100, 200]}), (204, None))
    config = (await js.consumer_info("api#st$3", "g")).config
    check("holds on every partition", (config.max_deliver, config.ack_wait, config.backoff), (20, 0.1, [0.1, 0.2]))
    again = await memphis.consumer("api.st", "d", consumer_group="g", max_msg_deliveries=2)
    config = (await js.consumer_info("api#st$1", "g")).config
    check("whatever members ask for", (config.max_deliver, config.backoff), (20, [0.1, 0.2]))
    check("until it is taken back", await call("PATCH", f"{path}/g", {"follow_members": True}), (204, None))
    config = (await js.consumer_info("api#st$1", "g")).config
    check("then theirs hold", (config.max_deliver, config.ack_wait), (2, 30.0))
    for label, body in (
        ("nothing to change", {}),
        ("both", {"follow_members": True, "max_ack_time_ms": 1}),
        ("no time", {"max_ack_time_ms": 0}),
        ("no deliveries", {"max_msg_deliveries": 0}),
        ("a negative wait", {"backoff_ms": [-1]}),
        ("too many waits", {"backoff_ms": [1] * 101}),
    ):
        await refused(label, 422, "E-API-REFUSED", "PATCH", f"{path}/g", body)
    await refused("more waits than deliveries", 422, "E-API-REFUSED", "PATCH", f"{path}/g", {"max_msg_deliveries": 2, "backoff_ms": [1, 2, 3]})
    await again.destroy()
    for label, status, code, where, body in (
        ("no such group", 404, "E-API-MISSING", f"{path}/none/reset", {"to": "end"}),
        ("no such station", 404, "E-API-MISSING", "/stations/none/groups/g/reset", {"to": "end"}),
        ("reset to nowhere", 422, "E-API-REFUSED", f"{path}/g/reset", {}),
        ("reset to no time", 422, "E-API-REFUSED", f"{path}/g/reset", {"time": "yesterday"}),
        ("no such partition", 422, "E-API-REFUSED", f"{path}/g/reset", {"to": "end", "partition": 9}),
        ("a field nobody knows", 400, "E-API-BODY", f"{path}/g/reset", {"too": "end"}),
        ("no JSON", 400, "E-API-BODY", f"{path}/g/reset", "{"),
        ("a list", 400, "E-API-BODY", f"{path}/g/reset", []),
        ("endless pause", 422, "E-API-REFUSED", f"{path}/g/pause", {"seconds": 10**12}),
    ):
        await refused(label, status, code, "POST", where, body)
    check("removed", await call("DELETE", f"{path}/g"), (204, None))
    await refused("gone", 404, "E-API-MISSING", "GET", f"{path}/g")
    check("its durables, too", await js.consumers_info("api#st$1"), [])
    check("purged", await call("POST", "/stations/api.st/purge", {"partition": 1}), (204, None))
    check("one partition", [(await js.stream_info(f"api#st${p}")).state.messages for p in (1, 2)], [0, 2])
    check("removed", await call("DELETE", "/stations/api.st"), (204, None))
    await refused("a station that is gone", 404, "E-API-MISSING", "GET", "/stations/api.st")


def payloads(page):
    return [base64.b64decode(letter["payload"]) for letter in page["items"]]


async def letters(memphis, nc, js):
    await call("POST", "/stations", {"name": "api.dead"})
    producer = await memphis.producer("api.dead", "p")
    consumer = await memphis.consumer("api.dead", "c", consumer_group="g", max_msg_deliveries=1, max_ack_time_ms=500)
    for n in range(3):
        await producer.produce(bytearray(f"letter {n}".encode()))
    check("nobody acknowledges", len(await consumer.fetch(batch_size=3)), 3)
    path = "/stations/api.dead/dead-letters"

    async def there():
        return len((await call("GET", path))[1]["items"]) == 3

    await eventually("dead letters", there)
    status, page = await call("GET", f"{path}?limit=2")
    check("a page", (status, payloads(page)), (200, [b"letter 0", b"letter 1"]))
    status, page = await call("GET", f"{path}?limit=2&cursor={page['next_cursor']}")
    check("the next", (payloads(page), page["next_cursor"]), ([b"letter 2"], None))
    status, found = await call("GET", f"{path}?search=letter+1&group=g&kind=poison")
    check("searched", payloads(found), [b"letter 1"])
    number = found["items"][0]["id"]
    check("shown", (await call("GET", f"/dead-letters/{number}"))[1]["sequence"], 2)
    check("edited and sent again", await call("POST", f"/dead-letters/{number}/edit", {"text": "mended"}), (204, None))
    check("as a new message", texts(await consumer.fetch(batch_size=1)), ["mended"])
    check("resent", await call("POST", f"{path}/resend", {}), (200, {"resent": 2}))

    async def told():
        return len(consumer.dls_messages) == 2

    await eventually("told the group", told)
    check("to the group", texts(await consumer.fetch(batch_size=2)), ["letter 0", "letter 2"])
    check("dropped", (await call("POST", f"{path}/drop", {}))[0], 200)
    check("none left", (await call("GET", path))[1]["items"], [])
    await refused("no such dead letter", 404, "E-API-MISSING", "GET", "/dead-letters/999999")
    await refused("no number", 400, "E-API-QUERY", "GET", f"{path}?limit=x")
    await refused("no such parameter", 400, "E-API-QUERY", "GET", f"{path}?page=1")
    await refused("no such kind", 422, "E-API-REFUSED", "GET", f"{path}?kind=odd")


async def schemas(memphis, nc, js):
    content = '{"type":"object","required":["f"]}'
    check("a schema", await call("POST", "/schemas", {"name": "api-person", "type": "json", "content": content}), (201, {"version": 1}))
    check("another version", await call("POST", "/schemas", {"name": "api-person", "type": "json", "content": "{}", "compatible": True}), (201, {"version": 2}))
    await refused("the same again", 409, "E-API-CONFLICT", "POST", "/schemas", {"name": "api-person", "type": "json", "content": "{}"})
    await refused("no schema", 422, "E-API-REFUSED", "POST", "/schemas", {"name": "bad", "type": "json", "content": "["})
    await call("POST", "/stations", {"name": "api.schema"})
    check("attached", await call("PUT", "/stations/api.schema/schema", {"name": "api-person"}), (204, None))
    reply = await nc.request("api#schema$1.final", b"{}", timeout=15)
    check("enforced", json.loads(reply.data)["error"]["description"].startswith("Schema validation has failed"), True)
    check("activated", await call("POST", "/schemas/api-person/activate", {"version": 2}), (204, None))
    check("now it fits", (await js.publish("api#schema$1.final", b"{}")).seq, 1)
    status, shown = await call("GET", "/schemas/api-person")
    check("shown", (status, shown["active"], len(shown["versions"]), shown["stations"]), (200, 2, 2, ["api.schema"]))
    await refused("no such version", 404, "E-API-MISSING", "POST", "/schemas/api-person/activate", {"version": 9})
    check("detached", await call("DELETE", "/stations/api.schema/schema"), (204, None))
    check("removed", await call("DELETE", "/schemas/api-person"), (204, None))
    await refused("gone", 404, "E-API-MISSING", "GET", "/schemas/api-person")


async def strangers():
    for method, path in (("GET", ""), ("GET", "/x"), ("GET", "/stations/a/b"), ("GET", "/stations/%ff")):
        await refused(f"{method} {path}", 404, "E-API-ROUTE", method, path)
    for method, path, allowed in (("PUT", "/stations", "GET, POST"), ("DELETE", "/stations", "GET, POST"), ("TRACE", "/status", "GET")):
        await refused(f"{method} {path}", 405, "E-API-ROUTE", method, path)
        check("what there is", (await exchanges.call(method, path))[2]["allow"], allowed)
    await refused("a form", 415, "E-API-TYPE", "POST", "/stations", "name=a", kind="application/x-www-form-urlencoded")
    await refused("text", 415, "E-API-TYPE", "POST", "/stations", "{}", kind="text/plain")
    await refused("too large", 413, "E-API-SIZE", "POST", "/stations", b" " * ((2 << 20) + 1))
    status, document = await call("GET", "/openapi.json", authorization=None)
    check("described", (status, document["openapi"], "/api/v1/stations/{station}/groups/{group}/reset" in document["paths"]), (200, "3.1.0", True))
    output = subprocess.run(["curl", "-sS", "-u", f"{USER}:{PASSWORD}", f"{os.environ['MANAGEMENT_URL']}/api/v1/schemas"], check=True, capture_output=True, timeout=30).stdout
    check("curl", json.loads(output), {"items": [], "next_cursor": None})


async def scenario(memphis, js):
    nc = await plain()
    await logins()
    await stations(memphis, nc, js)
    await letters(memphis, nc, js)
    await schemas(memphis, nc, js)
    await strangers()
    await nc.close()


run(scenario)
