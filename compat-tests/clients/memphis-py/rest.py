"""The REST gateway, driven with Python's HTTP client and with curl; what it stores and gives is
looked at with memphis-py and nats-py."""

import asyncio
import base64
import json
import os
import subprocess

from exchanges import PASSWORD, REST, USER, exchange
from scenario import ask, check, eventually, plain, run


def call(method, path, body=None, headers=None, token=None):
    """One request: status, JSON or text, fields."""
    status, text, fields = exchange(REST, method, path, body, headers, authorization=token and f"Bearer {token}")
    text = text.decode()
    is_json = fields.get("content-type", "").startswith("application/json")
    return status, json.loads(text) if is_json else text, fields


def seen(label, answer, expected):
    check(label, answer[:2], expected)


def log_in(**fields):
    return call("POST", "/auth/authenticate", {"username": USER, "password": PASSWORD, **fields})


async def in_thread(function, *arguments, **named):
    return await asyncio.to_thread(function, *arguments, **named)


def logins():
    seen("status needs no token", call("GET", "/monitoring/status"), (200, {"status": "ok"}))
    status, answer, fields = log_in()
    check("logged in", (status, sorted(answer)), (200, ["expires_in", "jwt", "jwt_refresh_token", "refresh_token_expires_in"]))
    check("numbers", [type(answer["expires_in"]), type(answer["refresh_token_expires_in"])], [int, int])
    check("any page may ask", fields["access-control-allow-origin"], "*")
    claims = base64.urlsafe_b64decode(answer["jwt"].split(".")[1] + "==")
    check("no password in the token", PASSWORD.encode() in claims, False)
    for label, fields in (
        ("with the account in the name", {"username": f"{USER}$1"}),
        ("with the account beside it", {"account_id": 1}),
        ("for long", {"token_expiry_in_minutes": 100, "refresh_token_expiry_in_minutes": 10000}),
        ("for no time is for the usual one", {"token_expiry_in_minutes": 0}),
        ("for less than that, too", {"token_expiry_in_minutes": -5}),
    ):
        check(label, log_in(**fields)[0], 200)
    unauthorized = (401, {"message": "Unauthorized"})
    for label, fields in (
        ("wrong password", {"password": "wrong"}),
        ("no password", {"password": ""}),
        ("null password", {"password": None}),
        ("unknown user", {"username": "nobody"}),
        ("a token where there are passwords", {"password": "", "connection_token": "x"}),
    ):
        seen(label, log_in(**fields), unauthorized)
    required = (400, {"message": [{"field": "Username", "reason": "required"}]})
    for label, body in (("no user", {}), ("an empty user", {"username": ""}), ("a null user", {"username": None})):
        seen(label, call("POST", "/auth/authenticate", body), required)
    for label, body in (
        ("no JSON", "{"),
        ("a list", "[]"),
        ("nothing", ""),
        ("a number as user", '{"username": 1}'),
        ("a text as account", '{"username": "root", "account_id": "1"}'),
        ("a text as time", '{"username": "root", "token_expiry_in_minutes": "1"}'),
        ("deep nesting", "[" * 100_000),
    ):
        status, answer, _ = call("POST", "/auth/authenticate", body, {"Content-Type": "application/json"})
        check(label, (status, answer["message"].startswith("Some of your fields are not valid")), (400, True))

    token = answer_of_login()["jwt"]
    refresh = answer_of_login()["jwt_refresh_token"]
    status, renewed, _ = call("POST", "/auth/refreshToken", {"jwt_refresh_token": refresh, "token_expiry_in_minutes": 60})
    check("renewed", (status, sorted(renewed)), (200, ["expires_in", "jwt", "jwt_refresh_token", "refresh_token_expires_in"]))
    for label, body in (
        ("no token to renew", {}),
        ("a token for requests", {"jwt_refresh_token": token}),
        ("no token at all", {"jwt_refresh_token": "x.y.z"}),
        ("a null token", {"jwt_refresh_token": None}),
    ):
        seen(label, call("POST", "/auth/refreshToken", body), unauthorized)
    seen("an unreadable renewal", call("POST", "/auth/refreshToken", "{"), (500, {"message": "Server error"}))

    produce = "/stations/rest.logins/produce/single"
    for label, headers in (
        ("no token", {}),
        ("one word", {"Authorization": token}),
        ("three words", {"Authorization": f"Bearer {token} x"}),
        ("a changed token", {"Authorization": f"Bearer {token[:-2]}xx"}),
        ("an unsigned token", {"Authorization": "Bearer " + ".".join(token.split(".")[:2]) + "."}),
        ("a token to renew", {"Authorization": f"Bearer {refresh}"}),
        ("a huge token", {"Authorization": "Bearer " + "x" * 20_000}),
    ):
        seen(label, call("POST", produce, "x", {"Content-Type": "text/plain", **headers}), unauthorized)
    text = {"Content-Type": "text/plain"}
    seen("any word before it", call("POST", produce, "x", {**text, "Authorization": f"Token {token}"}), (200, {"success": True, "error": None}))
    seen("in the query", call("POST", f"{produce}?authorization={token}", "x", text), (200, {"success": True, "error": None}))
    seen("in any case, with a slash", call("POST", "/Stations/Rest.Logins/PRODUCE/single/", "x", text, token), (200, {"success": True, "error": None}))
    for method, path in (("POST", "/stations/a/produce"), ("GET", "/stations/a/produce/single"), ("POST", "/stations/a/produce/other"), ("DELETE", "/x")):
        seen(f"{method} {path}", call(method, path, token=token), (404, f"Cannot {method} {path}"))
    seen("the root", call("GET", "/"), (404, "Cannot GET /"))
    status, _, fields = call("OPTIONS", produce, headers={"Origin": "http://a", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"})
    check("asked by a browser", (status, fields["access-control-allow-headers"]), (204, "authorization"))


def answer_of_login():
    return log_in()[1]


DONE = (200, {"success": True, "error": None})


async def producing(memphis, nc, js):
    token = answer_of_login()["jwt"]
    single, batch = "/stations/Rest.St/produce/single", "/stations/rest.st/produce/batch"
    seen("a station is made", await in_thread(call, "POST", single, "hello", {"Content-Type": "text/plain", "X-my-HEADER": "v", "Cookie": "secret=1"}, token), DONE)
    seen("JSON", await in_thread(call, "POST", single, '{"a": 1}', {"Content-Type": "application/json; charset=utf-8"}, token), DONE)
    seen("Protobuf", await in_thread(call, "POST", single, b"\x0a\x01a", {"Content-Type": "application/x-protobuf"}, token), DONE)
    consumer = await memphis.consumer("rest.st", "c", batch_size=3)
    messages = await consumer.fetch(batch_size=3)
    check("payloads as they came", [bytes(m.get_data()) for m in messages], [b"hello", b'{"a": 1}', b"\x0a\x01a"])
    headers = messages[0].get_headers()
    check("headers go along", (headers.get("X-My-Header"), headers.get("Content-Type")), ("v", "text/plain"))
    check("what proves the caller does not", [h for h in headers if h.lower() in ("authorization", "cookie")], [])
    check("producer", headers["$memphis_producedBy"], "rest-gateway")
    for message in messages:
        await message.ack()
    info = await ask(nc, "STATION.INFO", station="rest.st")
    check("known as a producer", info["producers"], 1)

    seen("a batch", await in_thread(call, "POST", batch, [{"n": 1}, {"b": 2, "a": 1}], token=token), DONE)
    messages = await consumer.fetch(batch_size=2)
    check("in order, compact, sorted", [bytes(m.get_data()) for m in messages], [b'{"n":1}', b'{"a":1,"b":2}'])
    seen("an empty batch", await in_thread(call, "POST", batch, [], token=token), DONE)
    for label, body in (("an object", {}), ("texts", ["a"]), ("numbers", [1]), ("no JSON", "["), ("mixed", [{}, 1])):
        answer = await in_thread(call, "POST", batch, body, {"Content-Type": "application/json"}, token)
        seen(label, answer, (500, "unsupported request"))
    before = (await js.stream_info("rest#st$1")).state.messages
    for label, path, kind in (("no type", single, None), ("another type", single, "image/png"), ("text as a batch", batch, "text/plain")):
        headers = {"Content-Type": kind} if kind else {}
        answer = await in_thread(call, "POST", path, b"x", headers, token)
        seen(label, answer, (500, "unsupported content type"))
    answer = await in_thread(call, "POST", single, "x", {"Content-Type": "text/plain", "$memphis_x": "y"}, token)
    seen("a header of Memphis", answer, (500, {"success": False, "error": "Server error"}))
    check("nothing of it stored", (await js.stream_info("rest#st$1")).state.messages, before)

    for _ in range(2):
        answer = await in_thread(call, "POST", single, "once", {"Content-Type": "text/plain", "msg-id": "m1"}, token)
        seen("with an id", answer, DONE)
    check("stored once", (await js.stream_info("rest#st$1")).state.messages, before + 1)

    status, answer, _ = await in_thread(call, "POST", single, b"x" * (2 << 20), {"Content-Type": "text/plain"}, token)
    check("larger than a message", (status, answer["success"], "max_payload" in answer["error"]), (500, False, True))
    status, *_ = await in_thread(call, "POST", single, b"x" * ((4 << 20) + 1), {"Content-Type": "text/plain"}, token)
    check("larger than any body", status, 413)
    for name in ("-bad", "a%20b", "%ff", "x" * 200, "a$b"):
        status, answer, _ = await in_thread(call, "POST", f"/stations/{name}/produce/single", "x", {"Content-Type": "text/plain"}, token)
        check(f"station {name[:10]}", (status, answer["success"]), (500, False))

    await memphis.station("Rest.Parts", partitions_number=3)
    for n in range(6):
        seen("in turn", await in_thread(call, "POST", "/stations/rest.parts/produce/single", str(n), {"Content-Type": "text/plain"}, token), DONE)
    check("evenly", [(await js.stream_info(f"rest#parts${p}")).state.messages for p in (1, 2, 3)], [2, 2, 2])
    station = await memphis.station("Rest.Parts")
    await station.destroy()
    seen("a station that was removed is made again", await in_thread(call, "POST", "/stations/rest.parts/produce/single", "x", {"Content-Type": "text/plain"}, token), DONE)


async def consuming(memphis, nc, js):
    token = answer_of_login()["jwt"]
    path = "/stations/rest.take/consume/batch"
    await memphis.station("rest.take", partitions_number=2)
    producer = await memphis.producer("rest.take", "p")
    for n in range(5):
        await producer.produce(bytearray(str(n).encode()), headers=None)

    async def take(**body):
        return await in_thread(call, "POST", path, body, token=token)

    status, messages, _ = await take(consumer_name="c", consumer_group="g", batch_size=3)
    check("no more than asked for", (status, len(messages)), (200, 3))
    status, rest, _ = await take(consumer_name="c", consumer_group="g", batch_max_wait_time_ms=500)
    check("the rest", (status, sorted(m["message"] for m in messages + rest)), (200, ["0", "1", "2", "3", "4"]))
    check("no headers of Memphis", [m["headers"] for m in rest], [{}, {}])
    seen("nothing left", await take(consumer_name="c", consumer_group="g", batch_max_wait_time_ms=100), (200, []))
    groups = (await ask(nc, "GROUP.LIST", station="rest.take"))["groups"]
    check("a group of its own, settled", [(g["group"], g["lag"], g["in_process"]) for g in groups], [("g-rest-gateway", 0, 0)])
    status, messages, _ = await take(consumer_name="c")
    check("the usual group has them all", (status, len(messages)), (200, 5))

    waiting = asyncio.create_task(in_thread(call, "POST", path, {"consumer_name": "c", "consumer_group": "g", "batch_max_wait_time_ms": 10000}, None, token))

    async def waits():
        await producer.produce(bytearray(b"late"))
        return waiting.done()

    await eventually("waits for messages", waits, 10)
    status, messages, _ = await waiting
    check("and gives them", (status, messages[0]["message"]), (200, "late"))

    for label, body, text in (
        ("no name", {}, "Consumer name is required"),
        ("an empty name", {"consumer_name": ""}, "Consumer name is required"),
        ("a number", {"consumer_name": 1}, "Invalid request body"),
        ("a text as size", {"consumer_name": "c", "batch_size": "1"}, "Invalid request body"),
        ("no JSON", "{", "Invalid request body"),
        ("a list", [], "Invalid request body"),
        ("too many", {"consumer_name": "c", "batch_size": 5001}, "Batch size can not be greater than 5000 or less than 1"),
        ("fewer than one", {"consumer_name": "c", "batch_size": -1}, "Batch size can not be greater than 5000 or less than 1"),
    ):
        seen(label, await in_thread(call, "POST", path, body, token=token), (400, {"success": False, "error": text}))
    for label, body in (("a bad group", {"consumer_name": "c", "consumer_group": "a b"}), ("a bad name", {"consumer_name": "-"})):
        status, answer, _ = await in_thread(call, "POST", path, body, token=token)
        check(label, (status, answer["success"]), (400, False))


async def schemas(memphis, nc):
    token = answer_of_login()["jwt"]
    await memphis.station("rest.schema")
    await ask(nc, "SCHEMA.CREATE", name="rest-person", type="json", content='{"required":["f"]}')
    await ask(nc, "SCHEMA.ATTACH", name="rest-person", station="rest.schema")
    path = "/stations/rest.schema/produce"
    seen("a good message", await in_thread(call, "POST", f"{path}/single", {"f": 1}, token=token), DONE)
    status, answer, _ = await in_thread(call, "POST", f"{path}/single", {"g": 1}, token=token)
    check("a bad one", (status, answer["success"], answer["error"].startswith("Schema validation has failed: ")), (400, False, True))
    status, answer, _ = await in_thread(call, "POST", f"{path}/batch", [{"f": 1}, {"g": 1}, {"f": 2}], token=token)
    check("a batch ends there", (status, len(answer["error"]), answer["error"][0].startswith("Schema validation has failed: ")), (400, 1, True))

    async def kept():
        return len((await ask(nc, "DEAD_LETTER.LIST", station="rest.schema"))["dead_letters"]) == 2

    await eventually("what was refused is kept", kept)


def with_curl():
    """As the documentation of the gateway has it."""

    def curl(*arguments):
        return json.loads(subprocess.run(["curl", "-sS", *arguments], check=True, capture_output=True, timeout=30).stdout)

    base = os.environ["REST_URL"]
    login = curl("-X", "POST", f"{base}/auth/authenticate", "-H", "Content-Type: application/json", "-d", json.dumps({"username": USER, "password": PASSWORD, "token_expiry_in_minutes": 123}))
    bearer = f"Authorization: Bearer {login['jwt']}"
    check("curl: single", curl("-X", "POST", f"{base}/stations/curl/produce/single", "-H", bearer, "-H", "Content-Type: application/json", "-d", '{"message": "New Message"}'), {"success": True, "error": None})
    check("curl: batch", curl("-X", "POST", f"{base}/stations/curl/produce/batch", "-H", bearer, "-H", "Content-Type: application/json", "-d", '[{"message": "x"}, {"message": "y"}]'), {"success": True, "error": None})
    taken = curl("-X", "POST", f"{base}/stations/curl/consume/batch", "-H", bearer, "-H", "Content-Type: application/json", "-d", '{"consumer_name": "c", "consumer_group": "g", "batch_size": 100, "batch_max_wait_time_ms": 1000}')
    check("curl: consume", [m["message"] for m in taken], ['{"message": "New Message"}', '{"message":"x"}', '{"message":"y"}'])


async def scenario(memphis, js):
    nc = await plain()
    await in_thread(logins)
    await producing(memphis, nc, js)
    await consuming(memphis, nc, js)
    await schemas(memphis, nc)
    await in_thread(with_curl)
    await nc.close()


run(scenario)
