"""Exports and imports between accounts, mappings, permissions and limits."""

import asyncio
import json
import os

import nats
import nats.errors
from scenario import check, note, run, settle

# Of the client that asked or answered, what differs from run to run.
VARYING = {"rtt": "<duration>", "start": "<time>", "host": "<host>", "id": "<id>", "server": "<server>",
           "timestamp": "<time>", "service": "<duration>", "system": "<duration>", "total": "<duration>"}


def tidy(value):
    if isinstance(value, dict):
        # A round trip is reported once it was measured.
        return {k: VARYING.get(k) or tidy(v) for k, v in value.items() if k not in ("rtt", "ver")}
    return value


async def client(user, **options):
    return await nats.connect(os.environ["NATS_URL"], user=user, password=user, **options)


async def answered(nc, subject, body=b"", timeout=15, headers=None):
    try:
        return (await nc.request(subject, body, timeout=timeout, headers=headers)).data.decode()
    except nats.errors.NoRespondersError:
        return "no responders"
    except (nats.errors.TimeoutError, asyncio.TimeoutError):
        return "silence"


async def collected(sub, wait=0.2):
    """Subjects and bodies of what comes."""
    found = []
    try:
        while True:
            msg = await sub.next_msg(timeout=wait)
            found.append((msg.subject, msg.data.decode()))
    except nats.errors.TimeoutError:
        return found


async def streams(a, b):
    everything = await b.subscribe(">")
    narrow = await b.subscribe("from.a.news.x")
    wild = await b.subscribe("from.a.*.*")
    mine = await b.subscribe("mine.k")
    await settle(b)
    for subject in ("news.x", "news.y", "own.k.x", "own.j.x", "pos.B.x", "pos.C.x", "other"):
        await a.publish(subject, subject.encode())
    await settle(a)
    note("everything", await collected(everything))
    note("narrow", await collected(narrow))
    note("wild", await collected(wild))
    note("mine", await collected(mine))
    for sub in (everything, narrow, wild, mine):
        await sub.unsubscribe()
    limited = await b.subscribe("from.a.>")
    await limited.unsubscribe(limit=2)
    await settle(b)
    for n in range(4):
        await a.publish(f"news.{n}")
    await settle(a)
    note("a maximum", await collected(limited))
    counts = {"a": 0, "b": 0}

    def member(name):
        async def handle(_):
            counts[name] += 1
        return handle

    await a.subscribe("news.work", queue="workers", cb=member("a"))
    await b.subscribe("from.a.news.work", queue="workers", cb=member("b"))
    await settle(a)
    await settle(b)
    for _ in range(100):
        await a.publish("news.work")
    await settle(a)
    await settle(b)
    await asyncio.sleep(0.1)
    check("a queue group spans accounts", (sum(counts.values()), all(counts.values())), (100, True))


async def services(a, b, c):
    info = []

    async def serve(msg):
        info.append(json.loads((msg.headers or {}).get("Nats-Request-Info", "{}")))
        reply = msg.reply.split(".")
        check("the reply is made up", (reply[0], len(reply)), ("_R_", 3))
        await msg.respond(f"{msg.subject} {msg.data.decode()}".encode())

    note("nobody serves", await answered(b, "ask.me"))
    sub = await a.subscribe("svc.*", cb=serve)
    await settle(a)
    note("a service", await answered(b, "ask.me", b"1"))
    note("who asks", [tidy(i) for i in info])
    info.clear()
    note("through two accounts", await answered(c, "far.chain", b"2"))
    note("who asks from far", [tidy(i) for i in info])
    info.clear()
    note("a mapped request", await answered(b, "mapped.ask", b"3"))
    await sub.unsubscribe()

    async def twice(msg):
        for body in (b"first", b"second"):
            await a.publish(msg.reply, body)

    sub = await a.subscribe("svc.twice", cb=twice)
    await settle(a)
    inbox = b.new_inbox()
    replies = await b.subscribe(inbox)
    await b.publish("ask.twice", b"", reply=inbox)
    note("one response is one", [body for _, body in await collected(replies)])
    await sub.unsubscribe()

    async def chunks(msg):
        for body in (b"1", b"2", b"3", b"", b"4"):
            await a.publish(msg.reply, body)

    await a.subscribe("chunks", cb=chunks)
    await settle(a)
    await b.publish("chunks", b"", reply=inbox)
    note("a response in pieces", [body for _, body in await collected(replies)])
    await replies.unsubscribe()

    errors = []

    async def heard(error):
        errors.append(str(error))

    other = await client("b", error_cb=heard)
    await other.publish("x", b"", reply="_R_.x.y")
    await settle(other)
    note("a reply of the server's", errors)
    await other.close()


async def latency(a, b):
    reports = await a.subscribe("latency")
    await settle(a)

    async def report(label):
        msg = await reports.next_msg(timeout=3)
        note(label, tidy(json.loads(msg.data)))

    note("nobody", await answered(b, "slow"))
    await report("nobody reported")
    seen = asyncio.Queue()
    sub = await a.subscribe("slow", cb=seen.put)
    await settle(a)
    await b.publish("slow")
    await report("no reply subject")
    await seen.get()

    async def respond():
        await (await seen.get()).respond(b"yes")

    task = asyncio.create_task(respond())
    note("answered", await answered(b, "slow"))
    await task
    await report("answer reported")
    note("never answered", await answered(b, "slow", timeout=1.5))
    await report("time out reported")
    late = await seen.get()
    await late.respond(b"late")
    inbox = b.new_inbox()
    short = await b.subscribe(inbox)
    await b.publish("slow", b"", reply=inbox)
    await settle(b)
    await short.unsubscribe()
    await settle(b)
    await report("the requester left")
    await sub.unsubscribe()

    async def traced(msg):
        await msg.respond(b"t")

    await a.subscribe("traced", cb=traced)
    await settle(a)
    await answered(b, "traced")
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "x=y"}
    await answered(b, "traced", headers=trace)
    await report("asked for by a header")


async def jetstream(a, b):
    js = a.jetstream()
    await js.add_stream(name="S", subjects=["s.*"])
    for n in range(3):
        await js.publish(f"s.{n}", str(n).encode())
    far = b.jetstream(prefix="JS.A.API")
    info = await far.stream_info("S")
    note("a stream of another account", (info.config.name, info.state.messages))
    sub = await far.pull_subscribe("s.*", "pull", stream="S")
    messages = await sub.fetch(3, timeout=2)
    note("fetched across", [m.data.decode() for m in messages])
    for m in messages:
        await m.ack()
    await settle(b)
    await asyncio.sleep(0.2)
    info = await js.consumer_info("S", "pull")
    note("acknowledged across", (info.ack_floor.stream_seq, info.num_ack_pending))
    try:
        await sub.fetch(1, timeout=0.3)
        note("nothing left", "a message")
    except nats.errors.TimeoutError:
        note("nothing left", "nothing")
    config = nats.js.api.ConsumerConfig(durable_name="push", deliver_subject="deliver.b.x",
                                        ack_policy=nats.js.api.AckPolicy.NONE)
    delivered = await b.subscribe("deliver.b.x")
    await settle(b)
    await js.add_consumer("S", config)
    note("pushed across", await collected(delivered, 0.5))
    own = b.jetstream()
    await own.add_stream(name="IN", subjects=["from.a.>", "mine.*"])
    for subject in ("news.kept", "own.kept.x", "own.lost.y"):
        await a.publish(subject, subject.encode())
    await settle(a)
    await asyncio.sleep(0.2)
    info = await own.stream_info("IN", subjects_filter=">")
    note("imported into a stream", info.state.subjects)


async def mappings(b):
    sub = await b.subscribe(">")
    await settle(b)
    for subject in ("old.1.2", "part.a", "part.b", "part.hello", "parts3.a.b", "parts3.foo.bar", "whole.a.b",
                    "whole.x.yz", "sl.12345678", "sr.12345678", "split.-a-b--c-", "spl.123456", "spr.12", "lost"):
        await b.publish(subject, subject.encode())
        await settle(b)
    note("mapped", await collected(sub))
    await sub.unsubscribe()


async def permissions():
    async def attempts(user, publishes, subscriptions):
        errors = []

        async def heard(error):
            errors.append(str(error))

        nc = await client(user, error_cb=heard)
        for subject in publishes:
            await nc.publish(subject)
        for subject, queue in subscriptions:
            await nc.subscribe(subject, queue=queue)
        await settle(nc)
        await settle(nc)
        note(f"refused to {user}", errors)
        await nc.close()

    await attempts("p", ["default.x", "other"], [("default.*", ""), ("other", ""), ("default.x", "q")])
    await attempts("q", ["anything"], [
        ("plain", ""), ("plain", "good"), ("plain", "bad"), ("only", ""), ("only", "v1"), ("only", "v2"),
        ("both", ""), ("both", "v1.x"), ("both", "v2"), ("_INBOX.secret", ""), ("_INBOX.*", ""),
    ])
    errors = []

    async def heard(error):
        errors.append(str(error))

    responder = await client("r", error_cb=heard)
    requester = await client("q")

    async def serve(msg):
        for n in range(3):
            await responder.publish(msg.reply, str(n).encode())

    await responder.subscribe("serve", cb=serve)
    await settle(responder)
    inbox = "_INBOX.fixed"
    replies = await requester.subscribe(inbox)
    await requester.publish("serve", b"", reply=inbox)
    note("two responses are allowed", [body for _, body in await collected(replies)])
    await responder.publish("serve")
    await settle(responder)
    note("refused to r", errors)
    await responder.close()
    await requester.close()


async def limits():
    # Byte by byte: the client closes its connection over each of these.
    host = os.environ["NATS_URL"].split("//")[1].split(":")
    reader, writer = await asyncio.open_connection(host[0], int(host[1]))

    async def line():
        return (await asyncio.wait_for(reader.readline(), 5)).decode().strip()

    async def said():
        text = await line()
        return json.loads(text[5:])["max_payload"] if text.startswith("INFO") else text

    note("payload before the login", await said())
    writer.write(b'CONNECT {"user":"l","pass":"l","verbose":false,"protocol":1}\r\nPING\r\n')
    note("logged in", await said())
    note("payload of the account", await said())

    async def quiet(_):
        pass

    try:
        await client("l", allow_reconnect=False, error_cb=quiet)
        note("a second connection", "accepted")
    except (nats.errors.Error, OSError) as error:
        note("a second connection", str(error))
    writer.write(b"SUB x.1 1\r\nSUB x.2 2\r\nSUB x.3 3\r\nPING\r\n")
    note("too many subscriptions", [await said(), await said()])
    writer.write(b"PUB x.1 101\r\n")
    note("too large a message", [await said(), await line()])
    writer.close()


async def scenario(a):
    b, c = await client("b"), await client("c")
    await streams(a, b)
    await services(a, b, c)
    await latency(a, b)
    await mappings(b)
    await permissions()
    await limits()
    await jetstream(a, b)
    await b.close()
    await c.close()


run(scenario)
