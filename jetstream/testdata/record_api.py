#!/usr/bin/env python3
"""Records how the reference server answers JetStream API requests.

    nats-server -js -sd EMPTY_DIRECTORY -n reference -p PORT
    python3 record_api.py nats://127.0.0.1:PORT > api_transcript.txt

Needs nats-py and a server that holds no streams yet. One exchange is two lines, `>>> subject body`
and `<<< reply`, empty for silence; a line that begins with `#` says what the next exchanges
show, one with `---` is a request whose reply does not matter. Times of the server
become one fixed time, generated names become GENERATED and long runs of one character are counted,
so a transcript only changes when the server's behaviour does.
"""

import asyncio
import json
import re
import sys

import nats

TIME = re.compile(r'("(?:created|ts|first_ts|last_ts|time|last_active)":)"(?!0001)[^"]*"')


RUN = re.compile(r"(.)\1{199,}")


def normalise(text):
    return TIME.sub(r'\1"2026-01-01T00:00:00Z"', text)


def short(text):
    """Writes 200 and more of one character as <<character*count>>."""
    return RUN.sub(lambda run: f"<<{run[1]}*{len(run[0])}>>", text)


class Recorder:
    def __init__(self, nc):
        self.nc = nc

    def note(self, text):
        print(f"# {text}")

    async def ask(self, subject, body="", headers=None, echo=True, generated=False):
        if not isinstance(body, str):
            body = json.dumps(body, separators=(",", ":"))
        head = "".join(f"[{k}: {v}] " for k, v in (headers or {}).items())
        line = f">>> {head}{subject} {body}".rstrip()
        try:
            reply = await self.nc.request(
                f"$JS.API.{subject}", body.encode(), timeout=0.7, headers=headers
            )
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError):
            print(short(f"{line}\n<<<"))
            return {}
        text = normalise(reply.data.decode())
        if generated:
            name = json.loads(text)["name"]
            assert re.fullmatch(r"[0-9A-Za-z]{8}", name), name
            text = text.replace(f'"{name}"', '"GENERATED"')
        if echo:
            print(short(f"{line}\n<<< {text}"))
        return json.loads(reply.data)

    async def remove(self, subject, generated=False):
        """Removes something between two exchanges."""
        await self.ask(subject, echo=False)
        if generated:
            subject = subject.rsplit(".", 1)[0] + ".GENERATED"
        print(short(f"--- {subject}"))

    async def create(self, config, subject=None, keep=False, **more):
        """Creates a stream and, unless told to keep it, removes it again."""
        name = config.get("name", "")
        answer = await self.ask(f"STREAM.CREATE.{subject or name}", {**config, **more})
        if not keep and "error" not in answer:
            await self.remove(f"STREAM.DELETE.{name}")

    async def consumer(self, stream, config, action=None, name=None, suffix="", keep=False,
                       generated=False, **more):
        """Creates a consumer and, unless told to keep it, removes it again."""
        body = {"stream_name": stream, "config": config}
        if action is not None:
            body["action"] = action
        body.update(more)
        if name is None:
            name = config.get("name") or config.get("durable_name") or ""
        subject = f"CONSUMER.CREATE.{stream}" + (f".{name}" if name else "") + suffix
        answer = await self.ask(subject, body, generated=generated)
        if not keep and "error" not in answer:
            await self.remove(f"CONSUMER.DELETE.{stream}.{answer['name']}", generated)


async def system(r):
    r.note("requests that reach nobody")
    await r.ask("NOPE")
    await r.ask("STREAM.CREATE")
    await r.ask("STREAM.CREATE.A.B", "{}")
    await r.ask("STREAM.NAMES.A")
    await r.ask("STREAM.MSG.GET")
    await r.ask("CONSUMER.INFO.A")
    await r.ask("CONSUMER.DURABLE.CREATE.A.B.C")
    await r.ask("stream.info.A")
    r.note("empty listings")
    await r.ask("STREAM.NAMES")
    await r.ask("STREAM.LIST")
    await r.ask("STREAM.NAMES", {"offset": -1, "subject": "a"})
    await r.ask("STREAM.NAMES", "x")
    await r.ask("STREAM.NAMES", '{"offset":0,"filter":"x"}')
    r.note("required level")
    await r.ask("STREAM.NAMES", headers={"Nats-Required-Api-Level": "1"})
    await r.ask("STREAM.NAMES", headers={"Nats-Required-Api-Level": "1000"})
    await r.ask("STREAM.CREATE.A", {"name": "A"}, headers={"Nats-Required-Api-Level": "x"})


async def stream_create(r):
    s = 1_000_000_000
    r.note("what a request must be")
    await r.ask("STREAM.CREATE.A")
    await r.ask("STREAM.CREATE.A", "{}")
    await r.ask("STREAM.CREATE.A", "null")
    await r.ask("STREAM.CREATE.A", '{"name":"A","nope":1}')
    await r.ask("STREAM.CREATE.A", '{"name":"A","consumer_limits":{"nope":1}}')
    await r.create({"name": "B"}, subject="A")
    await r.ask("STREAM.CREATE.A/B", {"name": "A/B"})
    await r.ask("STREAM.CREATE.A\\B", {"name": "A\\B"})
    long = "N" * 256
    await r.ask(f"STREAM.CREATE.{long}", {"name": long})
    await r.create({"name": "N" * 255})
    r.note("defaults")
    await r.create({"name": "A"})
    await r.create({"name": "A", "metadata": {"a": "1", "_nats.ver": "x", "_nats.level": "9", "_nats.req.level": "7"}})
    await r.create({"name": "A", "storage": "memory", "subjects": ["a.*", "b.>"], "retention": "interest",
                    "max_consumers": 5, "max_msgs": 6, "max_bytes": 7000, "max_age": 3600 * s,
                    "max_msgs_per_subject": 8, "max_msg_size": 900, "discard": "new",
                    "description": "all <of> & them", "no_ack": True, "duplicate_window": 30 * s,
                    "compression": "s2", "first_seq": 11, "allow_direct": True,
                    "discard_new_per_subject": True, "deny_delete": True, "deny_purge": True,
                    "consumer_limits": {"inactive_threshold": 60 * s, "max_ack_pending": 10},
                    "placement": {"cluster": ""}})
    await r.create({"name": "A", "max_msgs": -5, "max_bytes": -7, "max_msgs_per_subject": -2,
                    "max_msg_size": -3, "max_consumers": -9})
    for key in ["max_msgs", "max_bytes", "max_msgs_per_subject", "max_msg_size", "max_consumers"]:
        await r.create({"name": "A", key: -2}, pedantic=True)
    await r.create({"name": "A", "max_age": 10 * s})
    await r.create({"name": "A", "max_age": 10 * s}, pedantic=True)
    await r.create({"name": "A", "placement": {}})
    r.note("limits of fields")
    await r.create({"name": "A", "description": "d" * 4096})
    await r.create({"name": "A", "description": "d" * 4097})
    await r.create({"name": "A", "metadata": {"k": "v" * (128 * 1024)}})
    await r.create({"name": "A", "retention": "nope"})
    await r.create({"name": "A", "discard": "nope"})
    await r.create({"name": "A", "storage": "nope"})
    await r.create({"name": "A", "compression": "nope"})
    await r.create({"name": "A", "max_msgs": "many"})
    await r.create({"name": "A", "subjects": "a"})
    await r.create({"name": "A", "num_replicas": 2})
    await r.create({"name": "A", "num_replicas": 6})
    await r.create({"name": "A", "num_replicas": -1})
    await r.create({"name": "A", "max_age": -1})
    await r.create({"name": "A", "max_age": 99_999_999})
    await r.create({"name": "A", "duplicate_window": -1})
    await r.create({"name": "A", "duplicate_window": 99_999_999})
    await r.create({"name": "A", "duplicate_window": 2 * s, "max_age": s})
    await r.create({"name": "A", "deny_purge": True, "allow_rollup_hdrs": True})
    await r.create({"name": "A", "discard_new_per_subject": True})
    await r.create({"name": "A", "discard_new_per_subject": True, "discard": "new"})
    await r.create({"name": "A", "sealed": True})
    await r.create({"name": "A", "mirror_direct": True})
    await r.create({"name": "A", "subject_delete_marker_ttl": -1})
    await r.create({"name": "A", "subject_delete_marker_ttl": 1})
    await r.create({"name": "A", "placement": {"preferred": "x"}})
    r.note("subjects")
    await r.create({"name": "A", "subjects": ["a..b"]})
    await r.create({"name": "A", "subjects": [""]})
    await r.create({"name": "A", "subjects": ["a b"]})
    await r.create({"name": "A", "subjects": ["a", "a"]})
    await r.create({"name": "A", "subjects": ["a.*", "a.b"]})
    await r.create({"name": "A", "subjects": [">"]})
    await r.create({"name": "A", "subjects": [">"], "no_ack": True})
    await r.create({"name": "A", "subjects": ["$JS.API.>"]})
    await r.create({"name": "A", "subjects": ["$JSC.x"]})
    await r.create({"name": "A", "subjects": ["*.x"]})
    await r.create({"name": "A", "subjects": ["$JS.EVENT.ADVISORY.>"]})
    await r.create({"name": "A", "subjects": ["$SYS.>"]})
    await r.create({"name": "A", "subjects": ["$SYS.ACCOUNT.x.>"]})
    await r.create({"name": "A", "subjects": ["$JS.API.>"], "no_ack": True})
    r.note("the same again is fine, another is not")
    await r.create({"name": "A", "subjects": ["a"]}, keep=True)
    await r.create({"name": "A", "subjects": ["a"]}, keep=True)
    await r.create({"name": "A", "subjects": ["a"], "max_msgs": -1, "num_replicas": 1,
                    "metadata": {"_nats.ver": "2.0.0", "_nats.req.level": "3"}}, keep=True)
    await r.create({"name": "A", "subjects": ["a"], "max_msgs": 1}, keep=True)
    await r.create({"name": "B", "subjects": ["*"]})
    await r.create({"name": "B", "subjects": ["b"]}, keep=True)
    r.note("listings")
    await r.ask("STREAM.NAMES")
    await r.ask("STREAM.NAMES", {"subject": "b"})
    await r.ask("STREAM.NAMES", {"subject": "c"})
    await r.ask("STREAM.NAMES", {"offset": 1})
    await r.ask("STREAM.NAMES", {"offset": 9223372036854775807})
    await r.ask("STREAM.NAMES", {"offset": 9223372036854775808})
    await r.ask("STREAM.LIST")
    await r.ask("STREAM.LIST", {"offset": 1, "subject": "*"})
    await r.ask("STREAM.LIST", {"subject": "c"})
    r.note("info")
    await r.ask("STREAM.INFO.A")
    await r.ask("STREAM.INFO.A", "null")
    await r.ask("STREAM.INFO.A", "x")
    await r.ask("STREAM.INFO.A", "[]")
    await r.ask("STREAM.INFO.A", {"subjects_filter": ">", "offset": 3})
    await r.ask("STREAM.INFO.A", {"nope": True})
    await r.ask("STREAM.INFO.C")


async def stream_update(r):
    s = 1_000_000_000

    async def update(**fields):
        await r.ask("STREAM.UPDATE.A", {"name": "A", "subjects": ["a"], **fields})

    r.note("updates")
    info = await r.ask("STREAM.INFO.A", echo=False)
    r.note("a config as info returns it is accepted")
    await r.ask("STREAM.UPDATE.A", info["config"])
    await r.ask("STREAM.UPDATE.A")
    await r.ask("STREAM.UPDATE.A", "{}")
    await r.ask("STREAM.UPDATE.A", {"name": "B"})
    await r.ask("STREAM.UPDATE.C", {"name": "C"})
    await r.ask("STREAM.UPDATE.C", {"name": "C", "max_age": -1})
    await update(storage="memory")
    await update(retention="workqueue")
    await update(retention="interest")
    await update(retention="limits")
    await update(num_replicas=2)
    await update(subjects=["a", "b"])
    await update(subjects=["a", "c"])
    await update(subjects=["a", "a"])
    await update(max_msgs=10, max_age=60 * s, description="changed", metadata={"x": "y"})
    await update(persist_mode="nope")
    await update(deny_delete=True, deny_purge=True)
    await update(deny_purge=True)
    await update(deny_delete=True)
    await update(deny_delete=True, deny_purge=True, first_seq=7)
    await update(deny_delete=True, deny_purge=True, consumer_limits={"max_ack_pending": 5})
    await update(deny_delete=True, deny_purge=True)
    await update(sealed=True, deny_delete=True, deny_purge=True, max_age=60 * s)
    await update(deny_delete=True, deny_purge=True)
    r.note("a sealed stream")
    await r.ask("STREAM.PURGE.A")
    await r.ask("STREAM.MSG.DELETE.A", {"seq": 1})


async def messages(r):
    r.note("messages of an empty stream")
    for body in ["", "{}", "null", "x", {"seq": 1}, {"seq": 1, "last_by_subj": "b"}, {"last_by_subj": "b"},
                 {"next_by_subj": "b"}, {"seq": 1, "next_by_subj": "b"}, {"last_by_subj": "b", "next_by_subj": "b"},
                 {"start_time": "2020-01-01T00:00:00Z"}, {"seq": 1, "start_time": "2020-01-01T00:00:00Z"},
                 {"seq": 1, "batch": 2}, {"seq": 1, "max_bytes": 2}, {"seq": 1, "nope": 2}, {"no_hdr": True},
                 {"start_time": "yesterday"}]:
        await r.ask("STREAM.MSG.GET.B", body)
    await r.ask("STREAM.MSG.GET.C", {"seq": 1})
    for body in ["", "{}", {"seq": -1}, {"nope": 1}]:
        await r.ask("STREAM.MSG.DELETE.B", body)
    await r.ask("STREAM.MSG.DELETE.C", {"seq": 1})
    for body in ["", "{}", {"seq": 1, "keep": 1}, {"filter": "b", "keep": 1}, {"filter": "b", "seq": 1},
                 {"nope": 1}]:
        await r.ask("STREAM.PURGE.B", body)
    await r.ask("STREAM.PURGE.C")
    await r.create({"name": "D", "deny_delete": True, "deny_purge": True}, keep=True)
    await r.ask("STREAM.PURGE.D")
    await r.ask("STREAM.MSG.DELETE.D", {"seq": 1})
    r.note("deletion")
    await r.ask("STREAM.DELETE.D", {"x": 1})
    await r.ask("STREAM.DELETE.D", " { } ")
    await r.ask("STREAM.DELETE.D")


async def consumers(r):
    s = 1_000_000_000
    far = "2099-01-01T00:00:00Z"
    await r.create({"name": "S", "subjects": ["s.>"]}, keep=True)
    await r.create({"name": "W", "subjects": ["w.>"], "retention": "workqueue"}, keep=True)
    await r.create({"name": "I", "subjects": ["i.>"], "retention": "interest"}, keep=True)
    await r.create({"name": "L", "subjects": ["l.>"],
                    "consumer_limits": {"inactive_threshold": 60 * s, "max_ack_pending": 10}}, keep=True)
    r.note("what a request must be")
    await r.ask("CONSUMER.CREATE.S")
    await r.ask("CONSUMER.CREATE.S", "{}")
    await r.ask("CONSUMER.CREATE.S", '{"stream_name":"S","config":{},"nope":1}')
    await r.ask("CONSUMER.CREATE.S.c", '{"stream_name":"S","config":{"nope":1}}')
    await r.ask("CONSUMER.CREATE.S.c", '{"stream_name":"W","config":{}}')
    await r.ask("CONSUMER.CREATE.C.c", '{"stream_name":"C","config":{}}')
    await r.consumer("S", {}, action="nope", name="c")
    await r.consumer("S", {"ack_policy": "nope"}, name="c")
    await r.consumer("S", {"deliver_policy": "nope"}, name="c")
    await r.consumer("S", {"replay_policy": "nope"}, name="c")
    await r.consumer("S", {"priority_policy": "nope"}, name="c")
    r.note("names")
    await r.consumer("S", {}, name="a/b")
    await r.consumer("S", {}, name="a\\b")
    await r.consumer("S", {"durable_name": "d"}, name="c")
    await r.consumer("S", {"durable_name": "d", "name": "c"}, name="d")
    await r.consumer("S", {"durable_name": "d", "name": "c"}, name="")
    await r.consumer("S", {"name": "a.b"}, name="")
    await r.consumer("S", {"name": "a.b"}, name="c")
    await r.consumer("S", {"durable_name": "d"}, name="")
    await r.consumer("S", {"name": "n"}, name="")
    await r.consumer("S", {}, name="", generated=True)
    await r.consumer("S", {"durable_name": "n" * 256})
    await r.consumer("S", {"durable_name": "n" * 255})
    r.note("the durable endpoint")
    for name, config in [("d", {}), ("d", {"durable_name": "e"}), ("d", {"durable_name": "d"}),
                         ("d", {"durable_name": "d", "name": "e"}),
                         ("a/b", {"durable_name": "a/b"})]:
        body = {"stream_name": "S", "config": config}
        answer = await r.ask(f"CONSUMER.DURABLE.CREATE.S.{name}", body)
        if "error" not in answer:
            await r.remove(f"CONSUMER.DELETE.S.{name}")
    await r.ask("CONSUMER.DURABLE.CREATE.S", {"stream_name": "S", "config": {"durable_name": "d"}})
    r.note("filters in the subject")
    await r.consumer("S", {"filter_subject": "s.a.>"}, name="c", suffix=".s.a.>")
    await r.consumer("S", {"filter_subject": "s.a"}, name="c", suffix=".s.b")
    await r.consumer("S", {}, name="c", suffix=".s.b")
    await r.consumer("S", {"filter_subjects": ["s.b"]}, name="c", suffix=".s.b")
    r.note("defaults")
    await r.consumer("S", {}, name="c")
    await r.consumer("S", {"ack_policy": "explicit"}, name="c")
    await r.consumer("S", {"ack_policy": "all", "durable_name": "d"})
    await r.consumer("S", {"deliver_subject": "out"}, name="c")
    await r.consumer("S", {"deliver_subject": "out", "ack_policy": "explicit"}, name="c")
    await r.consumer("L", {"ack_policy": "explicit"}, name="c")
    await r.consumer("L", {"durable_name": "d", "ack_policy": "explicit"})
    await r.consumer("S", {"max_deliver": -7, "max_waiting": -1, "max_ack_pending": -7, "max_batch": -1,
                           "max_expires": -1, "max_bytes": -1, "idle_heartbeat": -1, "inactive_threshold": -1,
                           "ack_policy": "explicit"}, name="c")
    await r.consumer("S", {"ack_policy": "explicit", "backoff": [s, 2 * s], "max_deliver": 3}, name="c")
    await r.consumer("S", {"ack_policy": "explicit", "description": "a consumer", "ack_wait": 2 * s, "max_deliver": 4,
                           "filter_subjects": ["s.a", "s.b"], "replay_policy": "original", "sample_freq": "30%",
                           "max_waiting": 7, "max_ack_pending": 8, "headers_only": True, "max_batch": 9,
                           "max_expires": 3 * s, "max_bytes": 10, "inactive_threshold": 90 * s, "num_replicas": 1,
                           "mem_storage": True, "metadata": {"a": "b"}, "deliver_policy": "by_start_sequence",
                           "opt_start_seq": 12}, name="c")
    await r.consumer("S", {"deliver_subject": "out", "deliver_group": "g", "flow_control": True,
                           "idle_heartbeat": s, "rate_limit_bps": 1000, "deliver_policy": "by_start_time",
                           "opt_start_time": "2026-01-01T01:00:00.500Z"}, name="c")
    await r.consumer("S", {"priority_groups": ["g"], "priority_policy": "pinned_client",
                           "ack_policy": "explicit"}, name="c")
    await r.consumer("S", {"priority_groups": ["g"], "priority_policy": "overflow",
                           "ack_policy": "explicit", "priority_timeout": 5 * s}, name="c")
    for key in ["max_deliver", "max_waiting", "max_ack_pending", "max_batch", "max_expires", "max_bytes",
                "idle_heartbeat", "inactive_threshold", "priority_timeout"]:
        await r.consumer("S", {key: -2}, name="c", pedantic=True)
    await r.consumer("S", {"ack_policy": "explicit", "backoff": [s], "max_deliver": 3}, name="c", pedantic=True)
    await r.consumer("L", {"inactive_threshold": s}, name="c", pedantic=True)
    await r.consumer("L", {"max_ack_pending": 1}, name="c", pedantic=True)
    r.note("checks")
    pull, push = {}, {"deliver_subject": "out"}
    for stream, config in [
        ("S", {"num_replicas": 3}), ("S", {"num_replicas": -1}), ("I", {"num_replicas": 1}),
        ("S", {"backoff": [-1]}), ("S", {"ack_wait": -1}), ("S", {"backoff": [1, 2], "max_deliver": 1}),
        ("S", {"description": "d" * 4097}),
        ("S", {"deliver_subject": "out.*"}), ("S", {"deliver_subject": "out..a"}),
        ("S", {"deliver_subject": "s.a"}),
        ("S", {**push, "max_waiting": 1}), ("S", {**push, "max_ack_pending": 1}),
        ("S", {**push, "idle_heartbeat": 1}), ("S", {**push, "flow_control": True}),
        ("S", {**pull, "rate_limit_bps": 1}), ("S", {**pull, "idle_heartbeat": s}),
        ("S", {**pull, "flow_control": True}), ("S", {**pull, "max_expires": 1}),
        ("L", {"max_ack_pending": 11, "ack_policy": "explicit"}), ("L", {"inactive_threshold": 61 * s}),
        ("S", {**pull, "direct": True}), ("S", {**push, "direct": True, "durable_name": "c"}),
        ("S", {"filter_subject": "s.a", "filter_subjects": ["s.b"]}),
        ("S", {"filter_subject": "s..a"}), ("S", {"filter_subjects": ["s..a"]}),
        ("S", {"filter_subjects": [""]}), ("S", {"filter_subjects": ["s.*", "s.a"]}),
        ("S", {"filter_subjects": ["s.a", "s.a"]}), ("S", {"filter_subjects": ["s.*.a", "s.a.*"]}),
        ("S", {"filter_subject": "other"}),
        ("S", {"opt_start_seq": 1}), ("S", {"opt_start_time": far}),
        ("S", {"deliver_policy": "last", "opt_start_seq": 1}), ("S", {"deliver_policy": "last", "opt_start_time": far}),
        ("S", {"deliver_policy": "last_per_subject"}),
        ("S", {"deliver_policy": "last_per_subject", "opt_start_seq": 1}),
        ("S", {"deliver_policy": "last_per_subject", "opt_start_time": far}),
        ("S", {"deliver_policy": "new", "opt_start_seq": 1}), ("S", {"deliver_policy": "new", "opt_start_time": far}),
        ("S", {"deliver_policy": "by_start_sequence"}),
        ("S", {"deliver_policy": "by_start_sequence", "opt_start_seq": 1, "opt_start_time": far}),
        ("S", {"deliver_policy": "by_start_time"}),
        ("S", {"deliver_policy": "by_start_time", "opt_start_time": far, "opt_start_seq": 1}),
        ("S", {"sample_freq": "x"}), ("S", {"sample_freq": "200"}),
        ("S", {"metadata": {"k": "v" * (128 * 1024)}}),
        ("S", {**push, "priority_policy": "overflow", "priority_groups": ["g"]}),
        ("S", {"priority_policy": "overflow"}), ("S", {"priority_policy": "overflow", "priority_groups": [""]}),
        ("S", {"priority_policy": "overflow", "priority_groups": ["a b"]}),
        ("S", {"priority_policy": "overflow", "priority_groups": ["g" * 17]}),
        ("S", {"priority_groups": ["g"]}), ("S", {"priority_timeout": 1}),
        ("W", {"ack_policy": "none"}), ("W", {"ack_policy": "all"}), ("W", {**push, "ack_policy": "none"}),
        ("W", {"ack_policy": "explicit", "deliver_policy": "new"}),
    ]:
        await r.consumer(stream, config, name="c")
    r.note("a work queue gives each message to one consumer")
    await r.consumer("W", {"durable_name": "one", "ack_policy": "explicit", "filter_subject": "w.a"}, keep=True)
    await r.consumer("W", {"durable_name": "two", "ack_policy": "explicit"})
    await r.consumer("W", {"durable_name": "two", "ack_policy": "explicit", "filter_subject": "w.*"})
    await r.consumer("W", {"durable_name": "two", "ack_policy": "explicit", "filter_subject": "w.b"}, keep=True)
    await r.consumer("W", {"durable_name": "two", "ack_policy": "explicit", "filter_subject": "w.a"}, keep=True)
    await r.consumer("W", {"durable_name": "two", "ack_policy": "explicit", "filter_subject": "w.c"}, keep=True)
    await r.ask("CONSUMER.DELETE.W.one")
    await r.consumer("W", {"durable_name": "three", "ack_policy": "explicit", "filter_subject": "w.c"}, keep=True)
    r.note("create and update")
    base = {"durable_name": "d", "ack_policy": "explicit"}
    await r.consumer("S", base, action="update")
    await r.consumer("S", base, action="create", keep=True)
    await r.consumer("S", base, action="create", keep=True)
    await r.consumer("S", base, action="", keep=True)
    await r.consumer("S", {**base, "description": "new"}, action="create", keep=True)
    await r.consumer("S", {**base, "description": "new", "pause_until": far}, action="update", keep=True)
    await r.consumer("S", {**base, "ack_wait": 5 * s, "max_deliver": 3, "filter_subject": "s.a"}, keep=True)
    for change in [{"deliver_policy": "new"}, {"ack_policy": "none"}, {"replay_policy": "original"},
                   {"deliver_policy": "by_start_sequence", "opt_start_seq": 5}, {"mem_storage": True},
                   {"max_waiting": 9}, {"deliver_subject": "out"}, {"direct": True},
                   {"backoff": [1, 2], "max_deliver": 1}, {"sample_freq": "x"}]:
        await r.consumer("S", {**base, **change}, keep=True)
    base = {"durable_name": "t", "deliver_policy": "by_start_time", "opt_start_time": "2020-01-01T00:00:00Z"}
    await r.consumer("S", base, keep=True)
    await r.consumer("S", {**base, "opt_start_time": "2020-01-01T00:00:00.00Z"}, keep=True)
    await r.consumer("S", {**base, "opt_start_time": "2020-01-01T00:00:01Z"}, keep=True)
    base = {"durable_name": "q", "deliver_policy": "by_start_sequence", "opt_start_seq": 4}
    await r.consumer("S", base, keep=True)
    await r.consumer("S", {**base, "opt_start_seq": 5}, keep=True)
    base = {"durable_name": "p", "deliver_subject": "out", "idle_heartbeat": s, "flow_control": True}
    await r.consumer("S", base, keep=True)
    for change in [{"idle_heartbeat": 2 * s}, {"flow_control": False}, {"deliver_subject": ""},
                   {"deliver_subject": "", "flow_control": False, "idle_heartbeat": 0},
                   {"deliver_subject": "elsewhere"}]:
        await r.consumer("S", {**base, **change}, keep=True)
    r.note("a config as info returns it is accepted")
    info = await r.ask("CONSUMER.INFO.S.d", echo=False)
    await r.consumer("S", info["config"], action="update", keep=True)
    r.note("listings")
    await r.ask("CONSUMER.NAMES.S")
    await r.ask("CONSUMER.NAMES.S", {"offset": 2})
    await r.ask("CONSUMER.NAMES.S", {"offset": -2})
    await r.ask("CONSUMER.NAMES.S", {"offset": 20})
    await r.ask("CONSUMER.NAMES.I")
    await r.ask("CONSUMER.NAMES.C")
    await r.ask("CONSUMER.NAMES.S", {"nope": 2})
    await r.ask("CONSUMER.LIST.W")
    await r.ask("CONSUMER.LIST.I")
    await r.ask("CONSUMER.LIST.C")
    r.note("info")
    await r.ask("CONSUMER.INFO.S.d")
    await r.ask("CONSUMER.INFO.S.d", "{}")
    await r.ask("CONSUMER.INFO.S.d", "null")
    await r.ask("CONSUMER.INFO.S.d", {"x": 1})
    await r.ask("CONSUMER.INFO.S.nope")
    await r.ask("CONSUMER.INFO.C.nope")
    r.note("pause")
    await r.ask("CONSUMER.PAUSE.S.t", {"pause_until": "2020-01-01T00:00:00Z"})
    await r.ask("CONSUMER.PAUSE.S.t")
    await r.ask("CONSUMER.PAUSE.S.t", {"nope": 1})
    await r.ask("CONSUMER.PAUSE.S.t", {"pause_until": "tomorrow"})
    await r.ask("CONSUMER.PAUSE.S.nope")
    r.note("unpin")
    await r.ask("CONSUMER.UNPIN.S.t")
    await r.ask("CONSUMER.UNPIN.S.t", "{}")
    await r.ask("CONSUMER.UNPIN.S.t", {"group": "a b"})
    await r.ask("CONSUMER.UNPIN.S.t", {"group": "g"})
    await r.ask("CONSUMER.UNPIN.S.nope", {"group": "g"})
    r.note("reset")
    await r.ask("CONSUMER.RESET.S.d")
    await r.ask("CONSUMER.RESET.S.d", {"seq": 3})
    await r.ask("CONSUMER.RESET.S.q", {"seq": 3})
    await r.ask("CONSUMER.RESET.S.d", {"nope": 3})
    r.note("deletion")
    await r.ask("CONSUMER.DELETE.S.d", {"x": 1})
    await r.ask("CONSUMER.DELETE.S.d")
    await r.ask("CONSUMER.DELETE.S.d")
    await r.ask("CONSUMER.DELETE.C.d")
    r.note("limits on consumers stop an update of the stream")
    await r.consumer("L", {"durable_name": "d", "ack_policy": "explicit"}, keep=True)
    await r.ask("STREAM.UPDATE.L", {"name": "L", "subjects": ["l.>"], "consumer_limits": {"max_ack_pending": 5}})
    await r.create({"name": "M", "max_consumers": 1}, keep=True)
    await r.consumer("M", {"durable_name": "a"}, keep=True)
    await r.consumer("M", {"durable_name": "b"}, keep=True)


async def clustered(r):
    r.note("asked of a single server")
    await r.ask("STREAM.LEADER.STEPDOWN.S")
    await r.ask("STREAM.PEER.REMOVE.S", {"peer": "x"})
    await r.ask("STREAM.PEER.EVACUATE.S", {"peer": "x"})
    await r.ask("STREAM.CANCEL_MOVE.S")
    await r.ask("CONSUMER.LEADER.STEPDOWN.S.p")
    await r.ask("CONSUMER.PEER.REMOVE.S.p", {"peer": "x"})
    r.note("snapshot and restore refusals")
    await r.ask("STREAM.SNAPSHOT.S")
    await r.ask("STREAM.SNAPSHOT.S", {"deliver_subject": "bad subject"})
    await r.ask("STREAM.SNAPSHOT.C", {"deliver_subject": "good"})
    await r.ask("STREAM.RESTORE.S")
    await r.ask("STREAM.RESTORE.S", {"config": {"name": "S"}, "state": {}})
    await r.ask("STREAM.RESTORE.X", {"config": {"name": "S"}, "state": {}})


async def main():
    nc = await nats.connect(sys.argv[1])
    r = Recorder(nc)
    for part in (system, stream_create, stream_update, messages, consumers, clustered):
        try:
            await part(r)
        except Exception as error:
            print(f"! {part.__name__}: {error!r}", file=sys.stderr)
            raise
    await nc.close()


asyncio.run(main())
