"""Tenants: accounts with stations and users of their own, and nothing gets from one to another."""

import asyncio
import json

from people import OTHER, SECRET, Plain, call, is_refused, refused, rest
from scenario import check, connect, eventually, plain, run, texts


async def tenants():
    status, made = await call("POST", "/tenants", {"name": "acme"})
    check("a tenant", (status, made["name"], made["id"]), (201, "acme", 2))
    await refused("made twice", 409, "E-API-CONFLICT", "POST", "/tenants", {"name": "acme"})
    for user, kind in (("boss", "management"), ("app", "application")):
        status, _ = await call("POST", "/users", {"name": user, "type": kind, "password": SECRET, "tenant": "acme"})
        check(f"its {user}", status, 201)
    status, _ = await call("POST", "/users", {"name": "app", "password": OTHER})
    check("the same name in the default tenant", status, 201)

    here = await connect(username="app", password=OTHER)
    there = await connect(username="app", password=SECRET, account_id=2)
    for memphis, text in ((here, b"here"), (there, b"there")):
        producer = await memphis.producer("shared-name", "p")
        await producer.produce(bytearray(text))
    for memphis, text in ((here, "here"), (there, "there")):
        consumer = await memphis.consumer("shared-name", "c", consumer_group="g")
        found = []

        async def came():
            found.extend(await consumer.fetch(batch_size=10))
            return bool(found)

        await eventually("its own", came, 20)
        check("only its own", texts(found), [text])
        await found[0].ack()
    await here.close()
    await there.close()

    boss = await plain(user="boss$acme", password=SECRET)
    listed = await boss.request("$MENES.API.STATION.LIST", b"", timeout=10)
    check("its stations", [s["name"] for s in json.loads(listed.data)["stations"]], ["shared-name"])
    listed = await boss.request("$MENES.API.USER.LIST", b"", timeout=10)
    check("its users", [u["name"] for u in json.loads(listed.data)["users"]], ["app", "boss"])
    names = json.loads((await boss.request("$JS.API.STREAM.NAMES", b"", timeout=10)).data)["streams"]
    check("its streams", [n for n in names if not n.startswith("$")], ["shared-name$1"])
    heard, elsewhere = await boss.subscribe(">"), await plain()
    await boss.flush()
    await elsewhere.publish("secret.of.others", b"")
    await elsewhere.flush()
    await boss.publish("own", b"")
    subjects = []
    while "own" not in subjects:
        subjects.append((await heard.next_msg(timeout=5)).subject)
    check("hears nothing of others", "secret.of.others" in subjects, False)
    await boss.close()
    await elsewhere.close()
    as_boss = ("boss$2", SECRET)
    for label, arguments in (
        ("users of others", ("GET", "/users?tenant=$memphis")),
        ("tenants", ("GET", "/tenants")),
        ("a tenant", ("POST", "/tenants", {"name": "mine"})),
    ):
        await refused(f"not for the tenant: {label}", 403, "E-AUTH-DENIED", *arguments, as_user=as_boss)
    status, me = await call("GET", "/me", as_user=as_boss)
    check("who asks", (status, me["name"], me["tenant"], me["type"]), (200, "boss", "acme", "management"))
    await is_refused("not in the default tenant", user="boss", password=SECRET)
    _, session = await rest("/auth/authenticate", {"username": "app", "password": SECRET, "account_id": 2})
    status, _ = await rest("/stations/shared-name/produce/single", {"by": "REST"}, session["jwt"])
    check("REST into the tenant", status, 200)

    answer = await call("DELETE", "/tenants/acme")
    check("in use", (answer[0], "in use" in answer[1]["detail"]), (422, True))
    status, _ = await call("DELETE", "/stations/shared-name", as_user=as_boss)
    check("its station goes", status, 204)
    last = await Plain()(user="app$2", password=SECRET)
    status, _ = await call("DELETE", "/tenants/acme")
    check("removed", status, 204)
    await asyncio.wait_for(last.closed.wait(), 10)
    await is_refused("its users with it", user="app$2", password=SECRET)
    status, again = await call("POST", "/tenants", {"name": "acme"})
    check("another one of this name", again["id"], 3)
    await is_refused("has another id and no users", user="app$3", password=SECRET)


async def scenario(_memphis, _js):
    await tenants()


run(scenario)
