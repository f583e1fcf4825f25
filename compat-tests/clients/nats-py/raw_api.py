"""JetStream API requests as bare JSON, good and bad; every answer is printed whole.

Nothing is asserted: the scenario exists to be compared between servers, where a missing field, a
different order of checks or another error text shows as a differing line.
"""

import json
import re

import nats
from scenario import normalise, run

STREAM = {"name": "S", "subjects": ["s.>"], "retention": "limits", "max_consumers": -1, "max_msgs": -1,
          "max_bytes": -1, "max_age": 0, "storage": "file", "discard": "old", "num_replicas": 1}

# (subject after $JS.API., body); a body of bytes is sent as it is.
REQUESTS = [
    ("INFO", b""),
    ("STREAM.INFO.S", b""),
    ("STREAM.CREATE.S", STREAM),
    ("STREAM.CREATE.S", STREAM),
    ("STREAM.CREATE.S", {**STREAM, "max_msgs": 5}),
    ("STREAM.CREATE.OTHER", STREAM),
    ("STREAM.CREATE.S2", {"name": "S2", "subjects": ["s.a"]}),
    ("STREAM.CREATE.S2", {"name": "S2", "subjects": ["bad..subject"]}),
    ("STREAM.CREATE.S2", {"name": "S2", "subjects": ["a.>", "a.b"]}),
    ("STREAM.CREATE.S2", {"name": "S2", "subjects": ["$JS.API.>"]}),
    ("STREAM.CREATE.S2", {"name": "S2", "num_replicas": 3}),
    ("STREAM.CREATE.S2", {"name": "S2", "num_replicas": 9}),
    ("STREAM.CREATE.S2", {"name": "S2", "max_age": 1}),
    ("STREAM.CREATE.S2", {"name": "S2", "duplicate_window": 1}),
    ("STREAM.CREATE.S2", {"name": "S2", "max_age": 1000000000, "duplicate_window": 2000000000}),
    ("STREAM.CREATE.S2", {"name": "S2", "retention": "no such policy"}),
    ("STREAM.CREATE.S2", {"name": "S2", "unknown_field": 1}),
    ("STREAM.CREATE.S2", {"name": "S2", "discard_new_per_subject": True}),
    ("STREAM.CREATE.S2", {"name": "S2", "max_msgs_per_subject": -7, "max_bytes": -9, "max_msg_size": 0}),
    ("STREAM.INFO.S2", b""),
    ("STREAM.DELETE.S2", b""),
    ("STREAM.CREATE.S2", b"not json"),
    ("STREAM.CREATE.S2", b"[]"),
    ("STREAM.CREATE.S2", b""),
    ("STREAM.CREATE.a/name", {"name": "a/name"}),
    ("STREAM.CREATE.dotted.name", {"name": "dotted.name"}),
    ("STREAM.CREATE.DEFAULTS", {"name": "DEFAULTS"}),
    ("STREAM.INFO.DEFAULTS", b""),
    ("STREAM.INFO.DEFAULTS", {"subjects_filter": ">", "deleted_details": True}),
    ("STREAM.INFO.DEFAULTS", b"null"),
    ("STREAM.INFO.DEFAULTS", b"{}"),
    ("STREAM.DELETE.DEFAULTS", b"{}"),
    ("STREAM.UPDATE.S", {**STREAM, "max_msgs": 100, "description": "d", "metadata": {"k": "v"}}),
    ("STREAM.UPDATE.S", {**STREAM, "storage": "memory"}),
    ("STREAM.UPDATE.S", {**STREAM, "retention": "workqueue"}),
    ("STREAM.UPDATE.S", {**STREAM, "max_consumers": 50}),
    ("STREAM.UPDATE.NONE", {**STREAM, "name": "NONE"}),
    ("STREAM.UPDATE.NONE", STREAM),
    ("STREAM.NAMES", b""),
    ("STREAM.NAMES", {"subject": "s.x"}),
    ("STREAM.NAMES", {"subject": "none"}),
    ("STREAM.NAMES", {"offset": 5}),
    ("STREAM.LIST", b""),
    ("STREAM.LIST", {"offset": 0, "subject": "s.*"}),
    ("STREAM.DELETE.NONE", b""),
    ("STREAM.MSG.GET.S", {"seq": 1}),
    ("STREAM.MSG.GET.S", {"seq": 3}),
    ("STREAM.MSG.GET.S", {"seq": 99}),
    ("STREAM.MSG.GET.S", {}),
    ("STREAM.MSG.GET.S", {"seq": 1, "last_by_subj": "s.a"}),
    ("STREAM.MSG.GET.S", {"last_by_subj": "s.a"}),
    ("STREAM.MSG.GET.S", {"last_by_subj": "s.>"}),
    ("STREAM.MSG.GET.S", {"seq": 2, "next_by_subj": "s.a"}),
    ("STREAM.MSG.GET.S", {"next_by_subj": "s.b"}),
    ("STREAM.MSG.GET.S", b"not json"),
    ("STREAM.MSG.GET.NONE", {"seq": 1}),
    ("STREAM.MSG.DELETE.S", {"seq": 2}),
    ("STREAM.MSG.DELETE.S", {"seq": 2}),
    ("STREAM.MSG.DELETE.S", {"seq": 99}),
    ("STREAM.MSG.DELETE.S", {}),
    ("STREAM.MSG.GET.S", {"seq": 2}),
    ("STREAM.PURGE.S", {"seq": 2, "keep": 1}),
    ("STREAM.PURGE.S", {"filter": "s.b", "keep": 1}),
    ("STREAM.PURGE.S", {"seq": 3}),
    ("STREAM.PURGE.NONE", b""),
    ("STREAM.INFO.S", {"subjects_filter": ">", "deleted_details": True}),
    ("CONSUMER.DURABLE.CREATE.S.d", {"stream_name": "S", "config": {"durable_name": "d", "ack_policy": "explicit"}}),
    ("CONSUMER.DURABLE.CREATE.S.d", {"stream_name": "S", "config": {"durable_name": "d", "ack_policy": "explicit"}}),
    ("CONSUMER.DURABLE.CREATE.S.d", {"stream_name": "S", "config": {"durable_name": "d", "ack_policy": "none"}}),
    ("CONSUMER.DURABLE.CREATE.S.d", {"stream_name": "S", "config": {"durable_name": "d", "ack_policy": "explicit", "deliver_policy": "new"}}),
    ("CONSUMER.DURABLE.CREATE.S.d", {"stream_name": "OTHER", "config": {"durable_name": "d", "ack_policy": "explicit"}}),
    ("CONSUMER.DURABLE.CREATE.S.d", {"stream_name": "S", "config": {"durable_name": "e", "ack_policy": "explicit"}}),
    ("CONSUMER.DURABLE.CREATE.S.d", {"stream_name": "S", "config": {"ack_policy": "explicit"}}),
    ("CONSUMER.CREATE.S.n", {"stream_name": "S", "action": "create", "config": {"name": "n", "ack_policy": "explicit", "filter_subjects": ["s.a", "s.b"], "ack_wait": 5000000000, "max_deliver": 3}}),
    ("CONSUMER.CREATE.S.n", {"stream_name": "S", "action": "create", "config": {"name": "n", "ack_policy": "explicit"}}),
    ("CONSUMER.CREATE.S.n", {"stream_name": "S", "action": "update", "config": {"name": "n", "ack_policy": "explicit", "filter_subjects": ["s.a"]}}),
    ("CONSUMER.CREATE.S.m", {"stream_name": "S", "action": "update", "config": {"name": "m", "ack_policy": "explicit"}}),
    ("CONSUMER.CREATE.S.f.s.a", {"stream_name": "S", "config": {"name": "f", "filter_subject": "s.a"}}),
    ("CONSUMER.CREATE.S.g.s.a", {"stream_name": "S", "config": {"name": "g", "filter_subject": "s.b"}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "filter_subject": "s.a", "filter_subjects": ["s.b"]}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "filter_subjects": ["s.*", "s.a"]}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "deliver_policy": "by_start_sequence"}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "deliver_policy": "by_start_time"}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "deliver_policy": "last", "opt_start_seq": 3}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "backoff": [1000000000, 2000000000], "max_deliver": 1}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "ack_policy": "none", "ack_wait": -1}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "flow_control": True}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "idle_heartbeat": 1000000}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "deliver_subject": "s.x"}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "deliver_subject": "a.*"}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "deliver_subject": "out", "max_waiting": 5}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "replay_policy": "odd"}}),
    ("CONSUMER.CREATE.S.g", {"stream_name": "S", "config": {"name": "g", "max_ack_pending": -1, "inactive_threshold": 5000000000, "headers_only": True, "metadata": {"k": "v"}}}),
    ("CONSUMER.CREATE.S.g", b"not json"),
    ("CONSUMER.CREATE.NONE.g", {"stream_name": "NONE", "config": {"name": "g"}}),
    ("CONSUMER.CREATE.S.p", {"stream_name": "S", "config": {"name": "p", "deliver_subject": "push.out", "ack_policy": "explicit", "flow_control": True, "idle_heartbeat": 5000000000}}),
    ("CONSUMER.INFO.S.d", b""),
    ("CONSUMER.INFO.S.d", b"{}"),
    ("CONSUMER.INFO.S.none", b""),
    ("CONSUMER.INFO.NONE.d", b""),
    ("CONSUMER.NAMES.S", b""),
    ("CONSUMER.NAMES.S", {"offset": 2}),
    ("CONSUMER.NAMES.NONE", b""),
    ("CONSUMER.LIST.S", b""),
    ("CONSUMER.PAUSE.S.d", {"pause_until": "2100-01-01T00:00:00Z"}),
    ("CONSUMER.INFO.S.d", b""),
    ("CONSUMER.PAUSE.S.d", {}),
    ("CONSUMER.DELETE.S.p", b""),
    ("CONSUMER.DELETE.S.p", b""),
    ("STREAM.SNAPSHOT.NONE", {"deliver_subject": "x"}),
    ("STREAM.LEADER.STEPDOWN.S", b""),
    ("STREAM.PURGE.S", b""),
    ("STREAM.INFO.S", b""),
    ("STREAM.DELETE.S", b""),
]

# What is published after the stream exists: subject, payload, headers.
PUBLISHED = [
    ("s.a", b"1", {}),
    ("s.b", b"2", {"Nats-Msg-Id": "id"}),
    ("s.b", b"2", {"Nats-Msg-Id": "id"}),
    ("s.a", b"3", {"Key": "value"}),
    ("s.a", b"", {}),
    ("s.a", b"x", {"Nats-Expected-Last-Sequence": "1"}),
    ("s.a", b"x", {"Nats-Expected-Last-Subject-Sequence": "1"}),
    ("s.a", b"x", {"Nats-Expected-Last-Sequence": "word"}),
    ("s.a", b"x", {"Nats-Expected-Stream": "OTHER"}),
    ("s.a", b"x", {"Nats-Expected-Last-Msg-Id": "other"}),
    ("s.a", b"x", {"Nats-Rollup": "sub"}),
    ("s.a", b"x", {"Nats-TTL": "1h"}),
    ("s.b", b"5", {}),
    ("s.c.d", b"6", {"Nats-Expected-Last-Subject-Sequence": "0"}),
]


async def scenario(nc):
    async def ask(subject, body, headers=None):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            reply = await nc.request(subject, body, headers=headers or None, timeout=4)
        except nats.errors.NoRespondersError:
            return "no responders"
        except nats.errors.TimeoutError:
            return "no answer"
        try:
            answer = json.dumps(normalise(json.loads(reply.data)))
            # What follows is the JSON decoder speaking, not the server.
            return re.sub(r"(invalid JSON: )[^}]*?(\", \"err_code|\"})", r"\1...\2", answer)
        except ValueError:
            return repr(reply.data)

    filled = False
    for number, (subject, body) in enumerate(REQUESTS):
        print(f"{number} {subject} {body if isinstance(body, bytes) else json.dumps(body)}")
        print(f"{number} = {await ask('$JS.API.' + subject, body)}", flush=True)
        if subject == "STREAM.CREATE.S" and not filled:
            filled = True
            for subject, payload, headers in PUBLISHED:
                print(f"publish {subject} {payload!r} {headers} = {await ask(subject, payload, headers)}")


run(scenario)
