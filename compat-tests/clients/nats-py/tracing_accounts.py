"""Traces of messages whose subjects are mapped and that go to other accounts, and what accounts share."""

import json
import os
import urllib.request

import nats
from documents import lines, without
from scenario import normalise, note, run
from tracing import Tracer


async def scenario(nc):
    async def client(user, name):
        return await nats.connect(os.environ["NATS_URL"], user=user, password=user, name=name)

    far = await client("c", "far")
    talker, importer, tracer = await client("a", "talker"), await client("b", "importer"), await client("a", "tracer")
    received = []

    async def got(message):
        destination = (message.headers or {}).get("Nats-Trace-Dest", "none")
        destination = "<place for responses>" if destination.startswith("_R_.") else destination
        received.append((message.subject, sorted(message.headers or {}), destination, bool(message.reply)))

    for connection, subject in ((talker, "new.*"), (talker, "news.>"), (talker, "help.*"), (importer, "from.a.>"),
                                (talker, "open.door"), (importer, "heard.>"), (far, "far")):
        await connection.subscribe(subject, cb=got)
    traces = await tracer.subscribe("traces.>")
    await importer.subscribe("heard.told.q", queue="q", cb=got)
    for connection in (talker, importer, tracer, far):
        await connection.flush()
    traced = Tracer(talker, traces, received)
    to, only = {"Nats-Trace-Dest": "traces.x"}, {"Nats-Trace-Dest": "traces.x", "Nats-Trace-Only": "1"}
    await traced("mapped", "old.1", to)
    await traced("exported", "news.today", to)
    await traced("exported, only traced", "news.today", only)
    await traced("told by the importer", "told.q", to)
    await traced("told by the importer, only traced", "told.q", only)
    await traced("of another system", "new.2",
                 {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, wait=2)
    await traced("of another system, not sampled", "new.2",
                 {"TraceParent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"})

    # A request to a service of another account.
    traces = await importer.subscribe("traces.>")
    await importer.flush()
    traced = Tracer(importer, traces, received)
    await traced("service", "aid", to)
    await traced("service, only traced", "aid", only)
    await traced("service that tells", "door", to)
    await traced("service that tells, only traced", "door", only)
    await traced("service behind a service", "on", to)
    await traced("service behind a service, only traced", "on", only)

    for account in ("A", "B"):
        with urllib.request.urlopen(f"{os.environ['MONITORING_URL']}/accountz?acc={account}") as answer:
            detail = json.load(answer)["account_detail"]
        ours = {key: detail.get(key, []) for key in ("mappings", "exports", "imports")}
        for key in ("exports", "imports"):
            # nats-server lists what every account has of the system, too; latency of an import is its exporter's.
            ours[key] = sorted((without(entry) for entry in ours[key] if not entry["subject"].startswith("$")),
                               key=lambda entry: entry["subject"])
            for entry in ours[key]:
                entry.pop("latency", None)
        note(f"account {account}", "")
        for line in lines(normalise(ours)):
            print(f"  {line}", flush=True)
    for connection in (talker, importer, tracer, far):
        await connection.close()


run(scenario)
