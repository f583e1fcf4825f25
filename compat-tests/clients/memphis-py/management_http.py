"""The management API beyond one request each: messages, groups over HTTP, etags, rehearsals,
repeated requests, live views, and the document that describes it all. Driven with Python's HTTP
client; what it does is looked at with nats-py."""

import asyncio
import base64
import json
import time

from exchanges import API, BASIC, PASSWORD, USER, call, opened, send
from scenario import check, eventually, note, run


async def refused(label, status, code, *arguments, **named):
    seen, problem, fields = await call(*arguments, **named)
    check(label, (seen, problem["code"], problem["status"]), (status, code, status))
    check(f"{label}: where and what helps", (problem["instance"].startswith("/api/v1"), bool(problem["fix"]), problem["request_id"]), (True, True, fields["x-request-id"]))
    return problem


async def stations_and_etags(js):
    body = {"name": "orders", "partitions": 3, "max_age": "7d"}
    status, made, fields = await call("POST", "/stations", body)
    check("the example of the documentation", (status, fields["location"], made["partitions"], made["replicas"], made["storage"], made["max_age_ms"], made["links"]),
          (201, "/api/v1/stations/orders", 3, 1, "file", 604800000, {"dashboard": "/stations/orders"}))
    tag = fields["etag"]
    check("an etag", (tag, made["created_at"][:2]), (f'"{made["etag"]}"', "20"))
    status, shown, fields = await call("GET", "/stations/orders")
    check("the same when looked at", fields["etag"], tag)
    status, changed, fields = await call("PATCH", "/stations/orders", {"max_bytes": "1GiB"}, headers={"If-Match": tag})
    check("changed", (status, changed["max_bytes"], fields["etag"] != tag), (200, 1 << 30, True))
    problem = await refused("changed meanwhile", 412, "E-API-MATCH", "PATCH", "/stations/orders", {"max_age": "1d"}, headers={"If-Match": tag})
    check("with the object as it is", (problem["current"]["max_bytes"], problem["current"]["etag"]), (1 << 30, fields["etag"].strip('"')))
    check("nothing was done", (await js.stream_info("orders$1")).config.max_bytes, 1 << 30)
    await refused("no etag", 400, "E-API-QUERY", "PATCH", "/stations/orders", {"max_age": "1d"}, headers={"If-Match": "x"})
    await refused("where none is looked at", 400, "E-API-QUERY", "POST", "/stations/orders/purge", {}, headers={"If-Match": tag})
    await refused("removing what changed", 412, "E-API-MATCH", "DELETE", "/stations/orders", headers={"If-Match": tag})
    problem = await refused("mistyped", 400, "E-API-BODY", "POST", "/stations", {"name": "x", "partitons": 1})
    check("the nearest", 'did you mean "partitions"?' in problem["detail"], True)
    for label, body in (("no age", {"max_age": "soon"}), ("two limits", {"max_age": "1d", "max_bytes": 5})):
        await refused(label, 400, "E-API-BODY", "POST", "/stations", {"name": "x", **body})

    status, plan, _ = await call("POST", "/stations?dry_run=true", {"name": "planned", "partitions": 2})
    check("a rehearsal", (status, plan["dry_run"], [s["what"] for s in plan["steps"] if s["does"] == "make stream"]), (200, True, ["planned$1", "planned$2"]))
    await refused("changed nothing", 404, "E-API-MISSING", "GET", "/stations/planned")
    status, plan, _ = await call("DELETE", "/stations/orders?dry_run=true")
    check("of a removal", (status, sum(s["does"] == "remove stream" for s in plan["steps"])), (200, 3))
    check("still there", (await call("GET", "/stations/orders"))[0], 200)
    await refused("a rehearsal is refused as the change is", 409, "E-API-CONFLICT", "POST", "/stations?dry_run=true", {"name": "orders"})
    await refused("another parameter", 400, "E-API-QUERY", "POST", "/stations?dryrun=true", {"name": "x"})

    status, put, _ = await call("PUT", "/stations/put.me", {"partitions": 1, "max_messages": 5})
    check("put", (status, put["max_messages"]), (201, 5))
    status, put, _ = await call("PUT", "/stations/put.me", {"partitions": 2, "max_messages": 5, "storage": "file"})
    check("put again", (status, put["partitions"]), (200, 2))
    await refused("what cannot change", 409, "E-API-CONFLICT", "PUT", "/stations/put.me", {"storage": "memory"})
    await call("DELETE", "/stations/put.me")


async def messages(js):
    for n in range(5):
        status, receipt, fields = await call("POST", "/stations/orders/messages?partition=1", f'{{"n": {n}}}', headers={"Menes-Header-kind": f"test {n}"})
        check("stored", (status, receipt, fields["location"]), (201, {"station": "orders", "partition": 1, "sequence": n + 1, "duplicate": False, "stored_on": 1, "replicas": 1}, f"/api/v1/stations/orders/messages/1/{n + 1}"))
    stored = await js.get_msg("orders$1", 3)
    check("as it came", (stored.data, stored.headers["Kind"], stored.headers["$memphis_producedBy"]), (b'{"n": 2}', "test 2", "api"))
    status, receipt, _ = await call("POST", "/stations/orders/messages?partition=2&id=a", b"\x00\xff", kind="application/octet-stream")
    status2, again, _ = await call("POST", "/stations/orders/messages?partition=2&id=a", b"\x00\xff", kind="application/octet-stream")
    check("once", (status, receipt["duplicate"], status2, again["duplicate"], again["sequence"]), (201, False, 200, True, 1))
    lines = "\n".join(f'{{"line": {n}}}' for n in range(1200)) + "\n"
    status, text, fields = await asyncio.to_thread(send, "POST", "/stations/orders/messages?partition=3", lines, None, "application/x-ndjson")
    results = [json.loads(line) for line in text.splitlines()]
    check("a batch", (status, fields["content-type"], len(results), results[0]["line"], results[-1]["line"], [r["sequence"] for r in results] == list(range(1, 1201))), (200, "application/x-ndjson", 1200, 1, 1200, True))
    check("in the order of the lines", (await js.get_msg("orders$3", 700)).data, b'{"line": 699}')
    await refused("text", 415, "E-API-TYPE", "POST", "/stations/orders/messages", "x", kind="text/plain")
    await refused("no such partition", 422, "E-API-REFUSED", "POST", "/stations/orders/messages?partition=9", "x")
    await refused("no such station", 404, "E-API-MISSING", "POST", "/stations/none/messages", "x")
    await refused("too large", 413, "E-MSG-SIZE", "POST", "/stations/orders/messages", b"x" * ((1 << 20) + 1))
    await refused("much too large", 413, "E-API-SIZE", "POST", "/stations/orders/messages", b"x" * ((2 << 20) + 1))
    await refused("a header of Memphis", 400, "E-API-BODY", "POST", "/stations/orders/messages", "x", headers={"Menes-Header-$memphis_x": "y"})

    status, page, _ = await call("GET", "/stations/orders/messages?partition=1&limit=2")
    check("a page", (status, [m["sequence"] for m in page["items"]], page["items"][0]["headers"]["Kind"], base64.b64decode(page["items"][0]["payload"])), (200, [1, 2], "test 0", b'{"n": 0}'))
    seen = [m["sequence"] for m in page["items"]]
    while page["next_cursor"]:
        _, page, _ = await call("GET", f"/stations/orders/messages?partition=1&limit=2&cursor={page['next_cursor']}")
        seen += [m["sequence"] for m in page["items"]]
    check("all pages", seen, [1, 2, 3, 4, 5])
    _, page, _ = await call("GET", "/stations/orders/messages?partition=1&newest_first=true&limit=3")
    seen = [m["sequence"] for m in page["items"]]
    _, page, _ = await call("GET", f"/stations/orders/messages?partition=1&newest_first=true&limit=3&cursor={page['next_cursor']}")
    check("the newest first", (seen, [m["sequence"] for m in page["items"]], page["next_cursor"]), ([5, 4, 3], [2, 1], None))
    every, cursor = 0, ""
    while cursor is not None:
        _, page, _ = await call("GET", f"/stations/orders/messages?limit=100{cursor and '&cursor=' + cursor}")
        every, cursor = every + len(page["items"]), page["next_cursor"]
    check("over all partitions", every, 1206)
    _, page, _ = await call("GET", "/stations/orders/messages?partition=1&search=TEST+3")
    check("searched", [m["sequence"] for m in page["items"]], [4])
    _, page, _ = await call("GET", "/stations/orders/messages?partition=1&limit=1&payload_bytes=3")
    check("cut", (base64.b64decode(page["items"][0]["payload"]), page["items"][0]["is_cut"]), (b'{"n', True))
    status, one, _ = await call("GET", "/stations/orders/messages/1/4")
    check("one", (status, one["sequence"], one["is_cut"]), (200, 4, False))
    check("removed", (await call("DELETE", "/stations/orders/messages/1/4"))[0], 204)
    await refused("gone", 404, "E-API-MISSING", "GET", "/stations/orders/messages/1/4")
    await refused("gone already", 404, "E-API-MISSING", "DELETE", "/stations/orders/messages/1/4")
    await refused("no cursor", 422, "E-API-REFUSED", "GET", "/stations/orders/messages?cursor=x")
    await refused("no number", 422, "E-API-REFUSED", "GET", "/stations/orders/messages/1/x")
    _, listed, _ = await call("GET", "/stations?figures=true&limit=1")
    figures = listed["items"][0]["figures"]
    check("figures", (figures["messages"], figures["stored"], figures["has_dead_letters"], listed["total"]), (1205, 1206, False, 1))


async def repeats(js):
    key = {"Idempotency-Key": "k-1"}
    first = await call("POST", "/stations", {"name": "repeated"}, headers=key)
    again = await call("POST", "/stations", {"name": "repeated"}, headers=key)
    check("done once", (first[0], again[0], first[1] == again[1], first[2]["etag"] == again[2]["etag"]), (201, 201, True, True))
    await refused("the key for something else", 422, "E-API-REPEAT", "POST", "/stations", {"name": "other"}, headers=key)
    await refused("without a key", 409, "E-API-CONFLICT", "POST", "/stations", {"name": "repeated"})
    key = {"Idempotency-Key": "k-2"}
    await refused("what failed", 409, "E-API-CONFLICT", "POST", "/stations", {"name": "repeated"}, headers=key)
    check("may be tried again", (await call("POST", "/stations", {"name": "repeated.too"}, headers=key))[0], 201)
    key = {"Idempotency-Key": "k-3"}
    stored = [await call("POST", "/stations/repeated/messages", "{}", headers=key) for _ in range(3)]
    check("stored once", ([s[0] for s in stored], (await js.stream_info("repeated$1")).state.messages), ([201] * 3, 1))
    for bad in ("x" * 129, ""):
        await refused("no key", 400, "E-API-QUERY", "POST", "/stations", {"name": "x"}, headers={"Idempotency-Key": bad})
    for name in ("repeated", "repeated.too"):
        await call("DELETE", f"/stations/{name}")


async def groups(js):
    await call("POST", "/stations", {"name": "jobs", "partitions": 2})
    for n in range(6):
        await call("POST", f"/stations/jobs/messages?partition={n % 2 + 1}", f'"{n}"')
    path = "/stations/jobs/groups/g"
    status, first, _ = await call("POST", f"{path}/fetch", {"max": 4})
    check("fetched", (status, len(first["items"]), {m["deliveries"] for m in first["items"]}), (200, 4, {1}))
    acks = [m["ack"] for m in first["items"]]
    check("acknowledged", (await call("POST", f"{path}/ack", {"acks": acks}))[0], 204)
    _, rest, _ = await call("POST", f"{path}/fetch", {"max": 100})
    check("the rest", len(rest["items"]), 2)
    check("in flight", (await call("GET", path))[1]["in_process"], 2)
    nacked, given_up = rest["items"]
    check("again", (await call("POST", f"{path}/nack", {"acks": [nacked["ack"]]}))[0], 204)
    _, again, _ = await call("POST", f"{path}/fetch", {"max": 1, "wait_ms": 5000})
    check("delivered again", (again["items"][0]["sequence"], again["items"][0]["deliveries"]), (nacked["sequence"], 2))
    await call("POST", f"{path}/ack", {"acks": [again["items"][0]["ack"]]})
    check("given up", (await call("POST", f"{path}/dead-letter", {"acks": [given_up["ack"]], "reason": "no use"}))[0], 204)

    async def letters():
        _, page, _ = await call("GET", "/dead-letters?search=no+use")
        return [letter["station"] for letter in page["items"]] == ["jobs"]

    await eventually("a dead letter, over all stations", letters)
    _, page, _ = await call("GET", "/dead-letters?kind=schema")
    check("of one kind", page["items"], [])
    _, page, _ = await call("GET", "/dead-letters?group=g")
    check("of one group", [letter["station"] for letter in page["items"]], ["jobs"])
    check("resent, whatever the station", (await call("POST", "/dead-letters/resend", {"all": True}))[:2], (200, {"resent": 1}))
    await refused("everything by mistake", 422, "E-API-REFUSED", "POST", "/dead-letters/drop", {})
    check("another kind", (await call("POST", "/dead-letters/drop", {"all": True, "kind": "schema"}))[:2], (200, {"dropped": 0}))
    check("by its number", (await call("POST", "/dead-letters/drop", {"ids": [page["items"][0]["id"]]}))[:2], (200, {"dropped": 1}))

    async def settled():
        _, group, _ = await call("GET", path)
        return (group["lag"], group["in_process"]) == (0, 0)

    await eventually("settled", settled)
    began = time.monotonic()
    waiting = asyncio.create_task(call("POST", f"{path}/fetch", {"wait_ms": 20000, "partition": 1}))
    await asyncio.sleep(0)
    await call("POST", "/stations/jobs/messages?partition=1", '"late"')
    _, late, _ = await waiting
    check("waited for", (len(late["items"]), time.monotonic() - began < 15), (1, True))
    await call("POST", f"{path}/ack", {"acks": [late["items"][0]["ack"]]})
    _, none, _ = await call("POST", f"{path}/fetch", {})
    check("nothing more", none["items"], [])
    await refused("an ack of another group", 400, "E-API-BODY", "POST", "/stations/jobs/groups/h/ack", {"acks": acks})
    for bad in ([], ["x"], ["$JS.ACK.jobs$1.*.1.1.1.1.0"], [1]):
        await refused("no ack", 400, "E-API-BODY", "POST", f"{path}/ack", {"acks": bad})
    await refused("too many", 400, "E-API-BODY", "POST", f"{path}/fetch", {"max": 1001})
    await refused("no station", 404, "E-API-MISSING", "POST", "/stations/none/groups/g/fetch", {})
    _, group, fields = await call("GET", path)
    await refused("a group that changed", 412, "E-API-MATCH", "DELETE", path, headers={"If-Match": '"0"'})
    check("removed as it was", (await call("DELETE", path, headers={"If-Match": fields["etag"]}))[0], 204)


class Events:
    """One live view, read as it comes."""

    def __init__(self, path, last=None, authorization=BASIC):
        self.connection = opened(API)
        headers = {"Authorization": authorization} if authorization else {}
        if last is not None:
            headers["Last-Event-ID"] = last
        self.connection.request("GET", f"/api/v1{path}", headers=headers)
        self.response = self.connection.getresponse()
        self.status = self.response.status

    def _next(self):
        event = {}
        while True:
            line = self.response.readline().decode()
            if not line:
                return None
            line = line.rstrip("\n")
            if line.startswith(":"):
                continue
            if not line:
                if event:
                    return event
                continue
            name, _, value = line.partition(": ")
            event[name] = json.loads(value) if name == "data" else value

    async def next(self):
        return await asyncio.to_thread(self._next)

    async def until(self, label, accept):
        """The first event that is meant; a view may say the same thing in between."""
        for _ in range(50):
            event = await self.next()
            if event is None:
                break
            if accept(event):
                note(label, event["event"])
                return event
        raise AssertionError(f"{label}: no such event")

    def close(self):
        self.connection.sock and self.connection.sock.close()
        self.response.close()
        self.connection.close()


async def live(js):
    await call("POST", "/stations", {"name": "live"})
    tail = await asyncio.to_thread(Events, "/stations/live/tail")
    check("a tail", (tail.status, tail.response.getheader("Content-Type")), (200, "text/event-stream"))
    for n in range(3):
        await call("POST", "/stations/live/messages", f'"{n}"')
    seen = [await tail.next() for _ in range(3)]
    check("messages as they come", [(e["event"], e["id"], e["data"]["sequence"]) for e in seen], [("message", f"1:{n}", n) for n in (1, 2, 3)])
    tail.close()
    tail = await asyncio.to_thread(Events, "/stations/live/tail", "1:2")
    check("goes on behind the last", (await tail.next())["data"]["sequence"], 3)
    tail.close()
    tail = await asyncio.to_thread(Events, "/stations/live/tail?from=start")
    check("from the start", (await tail.next())["data"]["sequence"], 1)
    tail.close()
    check("no group moved", await js.consumers_info("live$1"), [])
    await refused("no such station", 404, "E-API-MISSING", "GET", "/stations/none/tail")
    await refused("from nowhere", 400, "E-API-QUERY", "GET", "/stations/live/tail?from=x")

    view = await asyncio.to_thread(Events, "/events?topics=overview,stations,station:live,groups:live,dead-letters:live")
    topics = set()
    while len(topics) < 5:
        event = await view.next()
        topics.add(event["event"])
    check("each is said at first", sorted(topics), ["dead-letters:live", "groups:live", "overview", "station:live", "stations"])
    await call("POST", "/stations/live/messages", '"x"')
    await view.until("a station that changes", lambda e: e["event"] == "station:live" and e["data"]["figures"]["messages"] == 4)
    _, fetched, _ = await call("POST", "/stations/live/groups/g/fetch", {"max": 2})
    await view.until("a group that comes", lambda e: e["event"] == "groups:live" and [g["in_process"] for g in e["data"]["groups"]] == [2])
    await call("POST", "/stations/live/groups/g/dead-letter", {"acks": [fetched["items"][0]["ack"]], "reason": "first"})
    letter = await view.until("a dead letter", lambda e: e["event"] == "dead-letters:live" and "reason" in e["data"])
    check("what it says", (letter["data"]["reason"], letter["id"].startswith("dead-letters:live=")), ("first", True))
    view.close()
    await call("POST", "/stations/live/groups/g/dead-letter", {"acks": [fetched["items"][1]["ack"]], "reason": "second"})
    view = await asyncio.to_thread(Events, "/events?topics=dead-letters:live", letter["id"])
    event = await view.next()
    check("none is lost in between", (event["event"], event["data"].get("reason")), ("dead-letters:live", "second"))
    view.close()

    view = await asyncio.to_thread(Events, "/events?topics=station:none")
    event = await view.next()
    check("what does not exist", (event["event"], event["data"]["code"], event["data"]["topic"]), ("problem", "E-API-MISSING", "station:none"))
    view.close()
    for bad in ("", "x", "station:", ",".join(f"station:{n}" for n in range(17))):
        await refused("no topic", 400, "E-API-QUERY", "GET", f"/events?topics={bad}")
    await refused("nobody", 401, "E-AUTH-LOGIN", "GET", "/events?topics=overview", authorization=None)
    many = []
    while len(many) <= 16 and (not many or many[-1].status == 200):
        many.append(await asyncio.to_thread(Events, "/events?topics=overview"))
    check("as many as one user may have", (1 < len(many) <= 17, many[-1].status), (True, 429))
    await refused("one more", 429, "E-API-VIEWS", "GET", "/events?topics=overview")
    for view in many:
        view.close()

    async def room():
        view = await asyncio.to_thread(Events, "/events?topics=overview")
        view.close()
        return view.status == 200

    await eventually("those that close make room", room, limit=20.0)


async def sessions():
    status, session, fields = await call("POST", "/sessions", {"username": USER, "password": PASSWORD}, authorization=None)
    cookie = fields["set-cookie"]
    check("a cookie for pages of this site only", [part.strip() for part in cookie.split(";")][1:], ["Path=/", "Max-Age=43200", "HttpOnly", "SameSite=Strict"])
    own = {"Cookie": cookie.split(";")[0]}
    check("logged in by it", (await call("GET", "/sessions/current", headers=own, authorization=None))[1], {"username": USER})
    view = await asyncio.to_thread(Events, "/events?topics=overview", None, f"Bearer {session['token']}")
    overview = (await view.next())["data"]
    check("an overview", (sorted(overview["traffic"]), overview["server"]["uptime_ms"] > 0, overview["stations"] > 0), (["in_bytes", "in_msgs", "out_bytes", "out_msgs"], True, True))
    view.close()
    status, _, fields = await call("DELETE", "/sessions/current", headers=own, authorization=None)
    check("logged out", (status, "Max-Age=0" in fields["set-cookie"]), (204, True))
    await refused("no more", 401, "E-AUTH-LOGIN", "GET", "/stations", headers=own, authorization=None)
    status, _, fields = await call("GET", "/stations", headers={"X-Request-Id": "mine"})
    check("a request has the name it came with", fields["x-request-id"], "mine")
    status, known, _ = await call("GET", "/errors/e-api-match", authorization=None)
    check("a code is explained", (status, known["code"], known["fix"] != ""), (200, "E-API-MATCH", True))
    await refused("no such code", 404, "E-API-MISSING", "GET", "/errors/E-NO-SUCH", authorization=None)


async def document():
    """Every route of the document answers, and asks for a login unless it says otherwise."""
    _, described, _ = await call("GET", "/openapi.json", authorization=None)
    count = 0
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            place = path.removeprefix("/api/v1").replace("{", "x").replace("}", "")
            status, text, _ = await asyncio.to_thread(send, method.upper(), place, None, {}, "application/json", None)
            problem = json.loads(text) if text else {}
            if operation.get("security") == []:
                # Asked without what they need, but asked.
                answers = problem.get("code") != "E-API-ROUTE" and status != 401
            else:
                answers = (status, problem.get("code")) == (401, "E-AUTH-LOGIN")
            if not answers:
                raise AssertionError(f"{method} {path}: {status} {problem}")
            count += 1
    check("routes of the document that answer", count > 45, True)


async def scenario(memphis, js):
    await stations_and_etags(js)
    await messages(js)
    await repeats(js)
    await groups(js)
    await live(js)
    await sessions()
    await document()


run(scenario)
