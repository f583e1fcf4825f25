"""The account of the system: requests to the server, what it announces, and what others may ask.

Nothing much is asserted: the scenario is compared between servers, document by document.
"""

import asyncio
import json
import os
import signal

import nats
import nats.errors
from documents import KNOWN, lines, shape, without
from scenario import normalise, note, run

VARYING_HERE = {"flags": "<number>", "seq": "<number>", "ver": "<version>", "id": "<id>", "time": "<time>",
                "timestamp": "<time>", "host": "<host>", "active_servers": "<number>",
                # Which internal connections make an account active is a server's own affair.
                "active_accounts": "<number>"}


def tidy(value):
    """Envelopes, shaped: who answers, and the time of it, differ."""
    if isinstance(value, dict):
        return {k: VARYING_HERE[k] if k in VARYING_HERE else tidy(v) for k, v in value.items()}
    return [tidy(v) for v in value] if isinstance(value, list) else value


def show(label, body):
    note(label, "")
    try:
        document = json.loads(body)
    except ValueError:
        return note("  text", body)
    for line in lines(normalise(tidy(shape(without(document))))):
        print(f"  {line}", flush=True)


async def scenario(admin):
    async def client(user, name="", **options):
        return await nats.connect(os.environ["NATS_URL"], user=user, password=user, name=name, **options)

    async def ask(nc, subject, body=b"", headers=None):
        body = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        try:
            answer = await nc.request(subject, body, timeout=1 if body else 2, headers=headers)
            return answer.data.decode()
        except nats.errors.NoRespondersError:
            return "no responders"
        except (nats.errors.TimeoutError, asyncio.TimeoutError):
            return "silence"

    async def shown(nc, subject, body=b"", label=None):
        show(label or f"{subject} {body}", await ask(nc, subject, body))

    one = await client("a", "one")
    await one.subscribe("orders.*", queue="q")
    await one.subscribe("orders.new")
    await one.flush()
    js = one.jetstream()
    await js.add_stream(name="S", subjects=["s.>"])
    await js.publish("s.1", b"hello")

    # Who is there, and everything it tells.
    server = json.loads(await ask(admin, "$SYS.REQ.SERVER.PING.IDZ"))["id"]
    await shown(admin, "$SYS.REQ.SERVER.PING")
    for what in ("IDZ", "STATSZ", "VARZ", "SUBSZ", "ROUTEZ", "GATEWAYZ", "LEAFZ", "HEALTHZ"):
        await shown(admin, f"$SYS.REQ.SERVER.PING.{what}")
        note("the same of one server", len(await ask(admin, f"$SYS.REQ.SERVER.{server}.{what}")) > 10)
    await shown(admin, "$SYS.REQ.SERVER.PING.CONNZ", {"acc": "A", "subscriptions": True, "auth": True, "sort": "subs"})
    await shown(admin, "$SYS.REQ.SERVER.PING.CONNZ", {"acc": "A", "subscriptions_detail": True, "limit": 1})
    await shown(admin, "$SYS.REQ.SERVER.PING.CONNZ", {"acc": "A", "filter_subject": "orders.new", "limit": 5})
    await shown(admin, "$SYS.REQ.SERVER.PING.CONNZ", {"filter_subject": "orders.new"})
    await shown(admin, "$SYS.REQ.SERVER.PING.CONNZ", {"sort": "nothing"})
    await shown(admin, "$SYS.REQ.SERVER.PING.SUBSZ", {"subscriptions": True, "account": "A", "test": "orders.new"})
    await shown(admin, "$SYS.REQ.SERVER.PING.JSZ")
    await shown(admin, "$SYS.REQ.SERVER.PING.JSZ", {"account": "A", "streams": True, "consumer": True, "config": True})
    await shown(admin, "$SYS.REQ.SERVER.PING.ACCOUNTZ", {"account": "nobody"})
    await shown(admin, "$SYS.REQ.SERVER.PING.HEALTHZ", {"account": "A", "stream": "none", "details": True})
    await shown(admin, "$SYS.REQ.SERVER.PING.HEALTHZ", {"js-enabled-only": True})
    for subject in ("$SYS.REQ.SERVER.PING.NOTHING", "$SYS.REQ.SERVER.NOBODY.VARZ", "$SYS.REQ.NOTHING"):
        await shown(admin, subject)

    # Which servers are meant.
    for chosen in ({"server_name": "one"}, {"server_name": "one-of-"}, {"server_name": "other"},
                   {"server_name": "one", "exact_match": True}, {"tags": ["zone:a"]}, {"tags": ["zone:a", "none"]},
                   {"cluster": "c"}, {"domain": "d"}, {"tags": None, "server_name": None}):
        answer = await ask(admin, "$SYS.REQ.SERVER.PING.HEALTHZ", chosen)
        note(f"asked of {chosen}", "answers" if answer.startswith("{") else answer)
    for bad in (b"not json", b"[]", b'{"tags": 5}', b'{"limit": "x"}'):
        answer = await ask(admin, "$SYS.REQ.SERVER.PING.CONNZ", bad)
        error = json.loads(answer).get("error", {}) if answer.startswith("{") else answer
        note(f"options {bad}", {"code": error.get("code")} if isinstance(error, dict) else error)

    # Accounts.
    for what, options in (("CONNZ", {}), ("SUBSZ", {"test": "orders.new"}), ("LEAFZ", {}), ("STATZ", {}), ("CONNS", {}),
                          ("JSZ", {"streams": True})):
        await shown(admin, f"$SYS.REQ.ACCOUNT.A.{what}", options)
    info = json.loads(await ask(admin, "$SYS.REQ.ACCOUNT.A.INFO"))
    for field in ("imports", "exports", "responses"):
        info["data"].pop(field, None)
    show("$SYS.REQ.ACCOUNT.A.INFO", json.dumps(info))
    await shown(admin, "$SYS.REQ.ACCOUNT.nobody.INFO")
    await shown(admin, "$SYS.REQ.ACCOUNT.nobody.JSZ")
    await shown(admin, "$SYS.REQ.ACCOUNT.PING.STATZ", {"accounts": ["A"]})
    await shown(admin, "$SYS.REQ.ACCOUNT.PING.STATZ", {"accounts": ["nobody"], "include_unused": True})
    await shown(admin, "$SYS.REQ.ACCOUNT.PING.STATZ", {"accounts": ["nobody"]})

    # What everyone may ask, and what not.
    limited = await client("limited", "limited")
    for nc, who in ((one, "a"), (limited, "limited"), (admin, "admin")):
        await shown(nc, "$SYS.REQ.USER.INFO", label=f"user info of {who}")
    await shown(one, "$SYS.REQ.ACCOUNT.PING.CONNZ")
    await shown(one, "$SYS.REQ.SERVER.PING.CONNZ", {"limit": 1})
    await shown(one, "$SYS.REQ.ACCOUNT.PING.STATZ")
    for subject in ("$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.VARZ", f"$SYS.REQ.SERVER.{server}.VARZ",
                    "$SYS.REQ.ACCOUNT.A.CONNZ", "$SYS.DEBUG.SUBSCRIBERS"):
        await shown(one, subject, label=f"{subject.replace(server, '<server>')} of another account")
    for subject in ("orders.new", "orders.new q", "orders.*", "nothing"):
        await shown(admin, "$SYS.DEBUG.SUBSCRIBERS", subject.encode())

    # What is announced.
    events = await admin.subscribe("$SYS.ACCOUNT.>")
    server_events = await admin.subscribe(f"$SYS.SERVER.{server}.CLIENT.AUTH.ERR")
    await admin.flush()

    async def announced(subscription, count):
        seen = []
        for _ in range(count):
            try:
                message = await subscription.next_msg(timeout=15)
            except (nats.errors.TimeoutError, asyncio.TimeoutError):
                note("missing", f"saw {sorted(seen)} only")
                break
            seen.append((message.subject.replace(server, "<server>"), message.data))
        for subject, data in sorted(seen):
            show(f"event on {subject}", data)

    two = await client("a", KNOWN + "two")
    await two.publish("orders.new", b"12345")
    await two.flush()
    await announced(events, 2)
    await two.close()
    await announced(events, 2)
    try:
        await nats.connect(os.environ["NATS_URL"], user="a", password="wrong", allow_reconnect=False,
                           max_reconnect_attempts=0)
    except Exception as error:  # noqa: BLE001 — which one it is, is the client's affair
        note("wrong password", type(error).__name__)
    await announced(server_events, 1)

    # What can be done to a server and to a connection.
    kicked = asyncio.Event()

    async def lost():
        kicked.set()

    three = await client("a", KNOWN + "three", allow_reconnect=False, disconnected_cb=lost)
    show("kicked", await ask(admin, f"$SYS.REQ.SERVER.{server}.KICK", {"cid": three.client_id}))
    await asyncio.wait_for(kicked.wait(), 5)
    show("kicked nobody", await ask(admin, f"$SYS.REQ.SERVER.{server}.KICK", {"cid": 999999}))
    show("told to leave", await ask(admin, f"$SYS.REQ.SERVER.{server}.LDM", {"cid": one.client_id}))
    show("told nobody", await ask(admin, f"$SYS.REQ.SERVER.{server}.LDM", {"cid": 999999}))
    show("reloaded", await ask(admin, f"$SYS.REQ.SERVER.{server}.RELOAD"))
    closed = json.loads(await ask(admin, "$SYS.REQ.SERVER.PING.CONNZ", {"state": 1, "acc": "A", "sort": "stop"}))
    note("reasons", [c["reason"] for c in closed["data"]["connections"]])
    for nc in (one, limited):
        await nc.close()
    while json.loads(await ask(admin, "$SYS.REQ.SERVER.PING.STATSZ"))["statsz"]["connections"] > 1:
        await asyncio.sleep(0.05)  # The server notices in its own time; the scenario has a limit.

    # What it says of itself now and then, and when it ends.
    now_and_then = await admin.subscribe(f"$SYS.SERVER.{server}.STATSZ")
    show("statsz", (await now_and_then.next_msg(timeout=15)).data)
    last_words = await admin.subscribe(f"$SYS.SERVER.{server}.SHUTDOWN")
    await admin.flush()
    os.kill(int(os.environ["SERVER_PID"]), signal.SIGTERM)
    show("shutdown", (await last_words.next_msg(timeout=15)).data)
    os._exit(0)  # The connection is lost now, which nobody has to complain about.


run(scenario)
