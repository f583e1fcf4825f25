"""Users and their tokens: made over HTTP, used by memphis-py, nats-py and the REST
gateway; and nobody else sees their secrets."""

import asyncio
import json
import os

import nats
from people import OTHER, ROOT, SECRET, Plain, call, is_refused, refused, rest
from scenario import check, connect, eventually, plain, run


async def users():
    status, made = await call("POST", "/users", {"name": "App", "password": SECRET, "token": True, "team": "core"})
    check("made", (status, made["name"], made["type"], made["has_password"]), (201, "app", "application", True))
    token = made["token"]
    check("a token is told once", token.startswith("mnt_"), True)
    await refused("made twice", 409, "E-API-CONFLICT", "POST", "/users", {"name": "app", "password": SECRET})
    for label, body in (
        ("a weak password", {"name": "x", "password": "password"}),
        ("a name that is none", {"name": "a b", "password": SECRET}),
        ("a kind that is none", {"name": "x", "type": "root", "password": SECRET}),
        ("a hash that costs too much", {"name": "x", "password_hash": "$argon2id$v=19$m=9999999,t=2,p=1$c2FsdHNhbHQ$aGFzaA"}),
    ):
        await refused(label, 422, "E-API-REFUSED", "POST", "/users", body)
    status, listed = await call("GET", "/users")
    check("listed", [(u["name"], u["origin"]) for u in listed["items"]], [("app", "stored"), ("root", "configuration")])
    status, page = await call("GET", "/users?limit=1")
    check("by pages", (len(page["items"]), page["next_cursor"]), (1, "app"))
    status, page = await call("GET", "/users?cursor=app")
    check("the next page", ([u["name"] for u in page["items"]], page["next_cursor"]), (["root"], None))
    for secret in (token, SECRET, "argon2"):
        check("no secret is shown", secret in json.dumps(listed), False)
    await refused("of the configuration", 403, "E-AUTH-DENIED", "DELETE", "/users/root")
    await refused("nobody", 404, "E-API-MISSING", "GET", "/users/nobody")

    # The same user by password, by token and by both, through every door.
    for label, options in (
        ("password", {"password": SECRET}),
        ("token", {"password": "", "connection_token": token}),
    ):
        memphis = await connect(username="app", **options)
        producer = await memphis.producer("all", label)
        await producer.produce(bytearray(label.encode()))
        await memphis.close()
    memphis = await connect(username="app", password=SECRET)
    consumer = await memphis.consumer("all", "c", consumer_group="g")
    taken = []

    async def all_taken():
        for message in await consumer.fetch(batch_size=10):
            taken.append(message.get_data().decode())
            await message.ack()
        return sorted(taken) == ["password", "token"]

    await eventually("consumed", all_taken, 20)
    await memphis.close()
    for label, options in (
        ("bare", {"user": "app", "password": SECRET}),
        ("with the account id", {"user": "app$1", "password": SECRET}),
        ("by token", {"token": token}),
        ("by name and token", {"token": f"app::{token}"}),
    ):
        nc = await nats.connect(f"nats://{os.environ['MEMPHIS_HOST']}:{os.environ['MEMPHIS_PORT']}", **options)
        check(label, (await nc.request("$JS.API.INFO", b"", timeout=5)).data[:1], b"{")
        await nc.close()
    for label, options in (
        ("a wrong password", {"user": "app", "password": "wrong"}),
        ("the name of another with the token", {"token": f"root::{token}"}),
        ("a token that is none", {"token": token[:-1]}),
        ("an account that is none", {"user": "app$7", "password": SECRET}),
        ("a configured user with another account", {"user": "root$7", "password": ROOT[1]}),
        ("nobody", {"user": "nobody", "password": SECRET}),
        ("nothing", {}),
    ):
        await is_refused(label, **options)
    for label, body in (("REST by password", {"password": SECRET}), ("REST by token", {"connection_token": token})):
        status, session = await rest("/auth/authenticate", {"username": "app", **body})
        check(label, status, 200)
        status, answer = await rest("/stations/all/produce/single", {"by": label}, session["jwt"])
        check(f"{label}, produced", (status, answer["success"]), (200, True))
    status, _ = await rest("/auth/authenticate", {"username": "app", "password": "wrong"})
    check("REST, wrong", status, 401)
    await refused("not for applications", 403, "E-AUTH-DENIED", "GET", "/users", as_user=("app", SECRET))
    return token


async def changes(token):
    by_password, by_token = await Plain()(user="app", password=SECRET), await Plain()(token=token)
    status, _ = await call("PUT", "/users/app/password", {"password": OTHER})
    check("another password", status, 204)
    await asyncio.wait_for(by_password.closed.wait(), 10)
    check("who came with the old one has to go", by_password.nc.is_closed, True)
    check("a token goes on", (await by_token.nc.request("$JS.API.INFO", b"", timeout=5)).data[:1], b"{")
    await is_refused("the old password", user="app", password=SECRET)
    await (await plain(user="app", password=OTHER)).close()

    status, tokens = await call("GET", "/users/app/tokens")
    check("tokens", (status, len(tokens["items"]), "token" in tokens["items"][0]), (200, 1, False))
    status, second = await call("POST", "/users/app/tokens", {"description": "ci"})
    check("a second token", status, 201)
    status, _ = await call("DELETE", f"/users/app/tokens/{tokens['items'][0]['id']}")
    check("the first ends", status, 204)
    await asyncio.wait_for(by_token.closed.wait(), 10)
    await is_refused("the first token", token=token)
    last = await Plain()(token=second["token"])

    status, _ = await call("DELETE", "/users/app")
    check("removed", status, 204)
    await asyncio.wait_for(last.closed.wait(), 10)
    await is_refused("who is gone", user="app", password=OTHER)
    await is_refused("whose token is gone", token=second["token"])


async def private():
    """Nobody else sees what the broker is asked."""
    await call("POST", "/users", {"name": "any", "password": SECRET})
    spy, root = await Plain()(user="any", password=SECRET), await plain()
    seen = await spy.nc.subscribe(">")
    root_seen = await root.subscribe("$MENES.>")
    await spy.nc.flush()
    await root.flush()
    reply = await root.request("$MENES.API.USER.CREATE", json.dumps({"user": "quiet", "password": SECRET}).encode(), timeout=10)
    check("made", json.loads(reply.data)["name"], "quiet")
    await root.publish("end", b"")
    subjects = []
    while not subjects or subjects[-1] != "end":
        subjects.append((await seen.next_msg(timeout=5)).subject)
    check("seen of others", [s for s in subjects if s.startswith(("_INBOX.", "$MENES."))], [])
    check("not even by root", root_seen.pending_msgs, 0)
    await spy.nc.close()
    await root.close()


async def scenario(_memphis, _js):
    token = await users()
    await changes(token)
    await private()


run(scenario)
