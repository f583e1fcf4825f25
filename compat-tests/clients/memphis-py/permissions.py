"""What application users may do with stations: asked of the SDK, of NATS and of the REST gateway."""

import asyncio
import json

import nats
from nats.js.api import ConsumerConfig
from nats.js.errors import APIError
from people import SECRET, Plain, call, rest
from scenario import check, check_error, connect, eventually, run, texts


async def permissions():
    lists = {"allow_read": ["in.*"], "allow_write": ["out"], "deny_read": ["in.secret"]}
    status, made = await call("POST", "/users", {"name": "lim", "password": SECRET, "permissions": lists})
    check("limited", (status, made["permissions"]), (201, {**lists, "deny_write": []}))
    root = await connect()
    for station in ("in.open", "in.secret", "out", "else"):
        await root.station(station)
        producer = await root.producer(station, "p")
        await producer.produce(bytearray(station.encode()))
    memphis = await connect(username="lim", password=SECRET)
    producer = await memphis.producer("out", "p")
    await producer.produce(bytearray(b"from lim"))
    consumer = await memphis.consumer("in.open", "c", consumer_group="lim")
    messages = []

    async def came():
        messages.extend(await consumer.fetch(batch_size=5))
        return bool(messages)

    await eventually("may read", came, 20)
    check("read", texts(messages), ["in.open"])
    await messages[0].ack()
    await check_error("may not write", memphis.producer("in.open", "p"), "not allowed")
    await check_error("may not make", memphis.station("new"), "not allowed")
    await check_error("may not read", memphis.consumer("out", "c"), "not allowed")
    await check_error("a denial wins", memphis.consumer("in.secret", "c"), "not allowed")

    # The same for a NATS client, which names streams and subjects itself.
    lim = await Plain()(user="lim", password=SECRET)
    js = lim.nc.jetstream()
    check("published", (await js.publish("out$1.final", b"x")).stream, "out$1")
    for subject in ("in#open$1.final", "else$1.final", "plain", "$MENES.API.USER.LIST", "$JS.API.STREAM.DELETE.out$1", "$KV.b.k"):
        await lim.nc.publish(subject, b"x")
        await lim.denied(f"publish {subject}", "permissions violation", f'publish to "{subject.lower()}"')
    for subject in ("out$1.final", "in#secret$1.final", ">", "_INBOX.>", "$MENES.>", "$memphis_station_creations"):
        await lim.nc.subscribe(subject)
        await lim.denied(f"subscribe {subject}", "permissions violation", f'subscription to "{subject.lower()}"')
    await lim.nc.publish("$JS.API.CONSUMER.MSG.NEXT.in#open$1.lim", b"", reply="else$1.final")
    await lim.denied("an answer into a station", "permissions violation", "reply")
    await js.add_consumer("in#open$1", ConsumerConfig(durable_name="nats", ack_policy="explicit"))
    try:
        await js.add_consumer("in#open$1", ConsumerConfig(name="push", deliver_subject="else$1.final", ack_policy="none"))
        raise AssertionError("a consumer delivers into a station")
    except APIError as error:
        check("a consumer that delivers into a station", error.code, 403)
    live = await lim.nc.subscribe("in#open$1.>")
    await lim.nc.flush()
    producer = await root.producer("in.open", "p")
    await producer.produce(bytearray(b"live"))
    check("delivered", (await live.next_msg(timeout=5)).data, b"live")

    # REST.
    _, session = await rest("/auth/authenticate", {"username": "lim", "password": SECRET})
    status, _ = await rest("/stations/out/produce/single", {"a": 1}, session["jwt"])
    check("REST may write", status, 200)
    status, answer = await rest("/stations/else/produce/single", {"a": 1}, session["jwt"])
    check("REST may not write", (status != 200, "not allowed" in json.dumps(answer)), (True, True))
    body = {"consumer_name": "r", "consumer_group": "r", "batch_size": 1, "batch_max_wait_time_ms": 200}
    status, answer = await rest("/stations/out/consume/batch", body, session["jwt"])
    check("REST may not read", (status != 200, "not allowed" in json.dumps(answer)), (True, True))

    # Narrowed while connected: what waits is not handed out, what is subscribed to ends.
    pull = await js.pull_subscribe_bind(durable="nats", stream="in#open$1")
    while True:
        try:
            for message in await pull.fetch(10, timeout=0.3):
                await message.ack()
        except nats.errors.TimeoutError:
            break
    waiting = asyncio.create_task(pull.fetch(1, timeout=3))
    status, changed = await call("PATCH", "/users/lim", {"permissions": {"allow_read": ["other"], "allow_write": ["out"]}})
    narrowed = {"allow_read": ["other"], "allow_write": ["out"], "deny_read": ["in.secret"], "deny_write": []}
    check("narrowed, and what was not mentioned stays", (status, changed["permissions"]), (200, narrowed))
    for wrong in ("deny-write", "deny_reads", "read"):
        status, refusal = await call("PATCH", "/users/lim", {"permissions": {wrong: ["else"]}})
        check(f"no list is called {wrong}", (status, refusal["code"]), (422, "E-API-REFUSED"))
    await lim.denied("the subscription ends", "permissions violation", "in#open$1")
    await producer.produce(bytearray(b"not for lim"))
    try:
        got = [message.data for message in await waiting]
    except nats.errors.TimeoutError:
        got = []
    check("nothing is handed out", got, [])
    await lim.nc.publish("$JS.API.CONSUMER.MSG.NEXT.in#open$1.nats", b"")
    await lim.denied("fetching ends", "permissions violation", "in#open$1.nats")
    check("the connection stays", (await js.publish("out$1.final", b"x")).stream, "out$1")
    await memphis.close()
    await root.close()
    await lim.nc.close()


async def scenario(_memphis, _js):
    await permissions()


run(scenario)
