"""What a server tells of itself over HTTP, every field of every document, with a little traffic.

Nothing is asserted: the scenario is compared between servers. Values that differ from run to run
are replaced by their kind; what is left are names, which fields are left out, order of lists, and
the figures that the traffic decides.
"""

import asyncio
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request

import nats
from documents import KNOWN, lines, shape, without
from scenario import eventually, note, run, settle


class Monitor:
    def __init__(self):
        self.base = os.environ["MONITORING_URL"]

    def get(self, path):
        try:
            with urllib.request.urlopen(self.base + path) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    def show(self, path, pick=None):
        """Prints a document: its fields in order, one line for each."""
        status, headers, body = self.get(path)
        kind = headers.get("Content-Type", "")
        origin = headers.get("Access-Control-Allow-Origin", "")
        note(path, f"{status} {kind} {origin}".rstrip())
        if "json" not in kind:
            note("  text", re.sub(r"\s+", " ", body)[:200])
            return
        document = json.loads(body)
        if pick:
            document = pick(document)
        for line in lines(shape(without(document))):
            print(f"  {line}", flush=True)

    def json(self, path):
        return json.loads(self.get(path)[2])


def known(document):
    """Only the connections that this scenario made."""
    document["connections"] = [c for c in document["connections"] if str(c.get("name", "")).startswith(KNOWN)]
    document.pop("num_connections"), document.pop("total")
    return document


def names(document):
    return {"connections": [c.get("name", "") for c in document["connections"] if c.get("name", "").startswith(KNOWN)]}


async def scenario(nc):
    monitor = Monitor()

    async def client(name, **options):
        return await nats.connect(
            os.environ["NATS_URL"], user=os.environ["NATS_USER"], password=os.environ["NATS_PASSWORD"],
            name=KNOWN + name, **options)

    talker, listener, gone = await client("talker"), await client("listener"), await client("gone")
    await listener.subscribe("news.*")
    await listener.subscribe("work", queue="workers")
    limited = await listener.subscribe("few")
    await limited.unsubscribe(5)
    await settle(listener)
    for n in range(3):
        await talker.publish("news.a", b"x" * (n + 1))
    await talker.publish("work", b"12345")
    await talker.publish("few", b"")
    await settle(talker)
    await settle(listener)
    await gone.subscribe("late")
    await settle(gone)
    await gone.close()
    js = nc.jetstream()
    await js.add_stream(name="S", subjects=["s.>"])
    await js.publish("s.1", b"hello")
    await js.pull_subscribe("s.>", "D", stream="S")

    async def closed():
        return any(c.get("name") == KNOWN + "gone" for c in monitor.json("/connz?state=closed")["connections"])

    await eventually("the closed connection is known", closed)

    async def counted():
        return monitor.json("/jsz")["messages"] == 1

    await eventually("the message is counted", counted)

    monitor.show("/varz")
    monitor.show("/connz", known)
    monitor.show("/connz?auth=1&subs=1", known)
    monitor.show("/connz?subs=detail", known)
    monitor.show("/connz?state=closed&auth=true&subs=detail", known)
    monitor.show("/connz?state=any", names)
    for sort in ("cid", "start", "subs", "pending", "msgs_to", "msgs_from", "bytes_to", "bytes_from", "last", "idle",
                 "uptime", "rtt"):
        order = names if sort in ("cid", "start", "subs", "msgs_to", "msgs_from", "bytes_to", "bytes_from") else lambda d: sorted(d)
        monitor.show(f"/connz?sort={sort}", order)
    for sort in ("stop", "reason"):
        monitor.show(f"/connz?state=closed&sort={sort}", names)
    ours = next(c["cid"] for c in monitor.json("/connz")["connections"] if c.get("name") == KNOWN + "talker")
    one = lambda d: {k: d[k] for k in ("num_connections", "offset", "limit")}
    note("/connz?cid", one(monitor.json(f"/connz?cid={ours}")))
    monitor.show("/connz?cid=999998", lambda d: {k: d[k] for k in ("num_connections", "offset", "limit")})
    monitor.show("/connz?cid=999999", lambda d: {k: d[k] for k in ("num_connections", "offset", "limit", "connections")})
    user = urllib.parse.quote(os.environ["NATS_USER"])
    monitor.show(f"/connz?user={user}", lambda d: {"some": d["num_connections"] > 0})
    monitor.show("/connz?user=nobody", lambda d: {k: d[k] for k in ("num_connections", "connections")})
    monitor.show("/connz?acc=$G", lambda d: {"some": d["num_connections"] > 0})
    monitor.show("/connz?limit=1&offset=1", lambda d: {k: d[k] for k in ("num_connections", "offset", "limit")})
    for bad in ("sort=foo", "limit=x", "offset=x", "cid=-1", "auth=maybe", "subs=maybe", "state=gone", "sort=stop",
                "sort=reason"):
        monitor.show(f"/connz?{bad}")

    monitor.show("/subsz", lambda d: sorted(d))
    found = lambda d: {**{k: d[k] for k in ("total", "offset", "limit")}, "list": d.get("subscriptions_list")}
    monitor.show("/subsz?subs=1&test=news.b", found)
    monitor.show("/subscriptionsz?subs=1&test=work", found)
    monitor.show("/subsz?subs=1&acc=none", found)
    monitor.show("/subsz?test=news.b", found)
    for bad in ("subs=x", "test=a.*", "limit=x"):
        monitor.show(f"/subsz?{bad}")

    def sorted_names(document):
        document["accounts"].sort()
        return document

    monitor.show("/accountz", sorted_names)
    for path in ("/routez", "/routez?subs=1", "/gatewayz", "/leafz", "/leafz?subs=1", "/accountz?acc=none", "/raftz", "/ipqueuesz?queues=none"):
        monitor.show(path)
    for bad in ("/routez?subs=x", "/leafz?subs=x", "/gatewayz?accs=x", "/accstatz?unused=x"):
        monitor.show(bad)

    def account(document):
        for field in ("imports", "exports", "responses"):
            document["account_detail"].pop(field, None)
        return document

    monitor.show("/accountz?acc=$G", account)
    monitor.show("/accountz?acc=$SYS", account)
    monitor.show("/accstatz")
    monitor.show("/accstatz?unused=1", lambda d: {"accounts": sorted(a["acc"] for a in d["account_statz"])})

    monitor.show("/jsz")
    monitor.show("/jsz?accounts=1")
    monitor.show("/jsz?acc=$G&streams=1")
    monitor.show("/jsz?consumers=1&config=1")
    monitor.show("/jsz?acc=none&streams=1", lambda d: {"details": d.get("account_details")})
    monitor.show("/jsz?raft=1&leader-only=1", lambda d: sorted(d))
    for bad in ("limit=x", "accounts=x", "streams=x"):
        monitor.show(f"/jsz?{bad}")

    for query in ("", "?js-enabled-only=true", "?js-enabled=1", "?js-server-only=true", "?js-meta-only=1", "?details=1",
                  "?account=$G", "?account=$G&stream=S", "?account=$G&stream=S&consumer=D", "?account=none",
                  "?account=$G&stream=none", "?account=$G&stream=S&consumer=none", "?stream=S",
                  "?account=$G&consumer=D", "?account=none&details=1", "?account=$G&stream=none&details=1",
                  "?stream=S&details=1", "?js-enabled-only=x"):
        monitor.show("/healthz" + query)

    monitor.show("/none")
    monitor.show("/varz?callback=show", lambda d: {"is": "JSON"})
    monitor.show("/debug/vars", lambda d: sorted(d))
    await talker.close()
    await listener.close()
    await asyncio.sleep(0)


run(scenario)
