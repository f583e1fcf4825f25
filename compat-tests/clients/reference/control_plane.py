"""A stand-in for the Memphis control plane, beside nats-server.

The Memphis SDKs need a broker that answers their `$memphis_...` requests. This one knows stations,
producers and consumer groups just well enough that a Memphis scenario can be tried against
nats-server: a scenario that fails here is wrong itself. It is no reference for the details; those
are in the scenarios. nats-server does not know the header `msg-id`, so nothing is deduplicated.

Usage: control_plane.py READY_FILE, with NATS_URL, NATS_USER and NATS_PASSWORD set.
"""

import asyncio
import json
import os
import pathlib
import re
import sys
import traceback

import nats
from nats.js import api
from nats.js.errors import NotFoundError

RETENTION = ("message_age_sec", "messages", "bytes", "ack_based")
EMPTY_SCHEMA = {
    "schema_name": "",
    "type": "",
    "active_version": {"version_number": 0, "descriptor": "", "schema_content": "", "message_struct_name": ""},
}


class Refusal(Exception):
    pass


def lower_keys(value):
    if isinstance(value, dict):
        return {k.lower(): lower_keys(v) for k, v in value.items()}
    return value


def external(name, kind):
    name = name.lower().replace("#", ".")
    if not name:
        raise Refusal(f"{kind} name can not be empty")
    if len(name) > 128:
        raise Refusal(f"{kind} should be under 128 characters")
    if not re.fullmatch(r"[a-z0-9_.-]*", name):
        raise Refusal(f"Only alphanumeric and the '_', '-', '.' characters are allowed in {kind}")
    if name[0] in ".-_" or name[-1] in ".-_":
        raise Refusal(f"{kind} name can not start or end with non alphanumeric character")
    return name


def internal(name):
    return name.replace(".", "#")


class ControlPlane:
    def __init__(self, js):
        self.js = js
        self.stations = {}  # name -> partition numbers
        self.members = {}  # (station, group) -> list of (consumer name, connection id)

    async def station_creations(self, body):
        name = external(body.get("name", ""), "Station")
        if name in self.stations:
            return b""
        await self.create_station(name, body)
        return b""

    async def create_station(self, name, body):
        retention = (body.get("retention_type") or "message_age_sec").lower()
        if retention not in RETENTION:
            raise Refusal("retention type can be one of the following message_age_sec/messages/bytes/ack_based")
        value = body.get("retention_value", 0)
        if value <= 0 and retention != "ack_based":
            retention, value = "message_age_sec", 3600
        window_ms = body.get("idempotency_window_in_ms", 0)
        window_ms = 120000 if window_ms <= 0 else max(window_ms, 100)
        if window_ms > 86400000:
            raise Refusal("idempotency window can not exceed 24 hours")
        if retention == "message_age_sec" and value * 1000 < window_ms:
            raise Refusal("idempotency window cannot be greater than the station retention")
        partitions = list(range(1, body.get("partitions_number", 1) + 1))
        for p in partitions:
            stream = f"{internal(name)}${p}"
            await self.js.add_stream(
                name=stream,
                subjects=[f"{stream}.>"],
                retention=api.RetentionPolicy.INTEREST if retention == "ack_based" else api.RetentionPolicy.LIMITS,
                max_age=value if retention == "message_age_sec" else 0,
                max_msgs=value if retention == "messages" else -1,
                max_bytes=value if retention == "bytes" else -1,
                storage=api.StorageType(body.get("storage_type") or "file"),
                duplicate_window=window_ms / 1000,
            )
        self.stations[name] = partitions

    async def ensured(self, name):
        name = external(name, "Station")
        if name not in self.stations:
            await self.create_station(name, {})
        return name

    async def station_destructions(self, body):
        name = external(body.get("station_name", ""), "Station")
        if name not in self.stations:
            raise Refusal("Station  does not exist")
        for p in self.stations.pop(name):
            await self.js.delete_stream(f"{internal(name)}${p}")
        self.members = {key: members for key, members in self.members.items() if key[0] != name}
        return b""

    async def producer_creations(self, body):
        try:
            external(body.get("name", ""), "Producer")
            station = await self.ensured(body.get("station_name", ""))
        except Refusal as refusal:
            return {"error": str(refusal), "partitions_update": {"partitions_list": None}, "schema_update": EMPTY_SCHEMA}
        return {
            "schema_update": EMPTY_SCHEMA,
            "partitions_update": {"partitions_list": self.stations[station]},
            "schemaverse_to_dls": True,
            "send_notification": False,
            "station_version": 2,
            "station_partitions_first_functions": {},
            "error": "",
        }

    async def producer_destructions(self, _):
        return b""

    async def consumer_creations(self, body):
        start, last = body.get("start_consume_from_sequence", 0), body.get("last_messages", 0)
        if start <= 0:
            raise Refusal("startConsumeFromSequence has to be a positive number")
        name = external(body.get("name", ""), "Consumer")
        group = external(body.get("consumers_group") or name, "Consumer")
        station = await self.ensured(body.get("station_name", ""))
        for p in self.stations[station]:
            stream = f"{internal(station)}${p}"
            config = api.ConsumerConfig(
                durable_name=internal(group),
                filter_subject=f"{stream}.final",
                ack_policy=api.AckPolicy.EXPLICIT,
                ack_wait=(body.get("max_ack_time_ms") or 30000) / 1000,
                max_deliver=body.get("max_msg_deliveries") or 10,
                max_ack_pending=-1,
            )
            if last == 0 and start == 1:
                config.deliver_policy = api.DeliverPolicy.NEW
            elif last > 0:
                state = (await self.js.stream_info(stream)).state
                config.deliver_policy = api.DeliverPolicy.BY_START_SEQUENCE
                config.opt_start_seq = max(1, state.last_seq - last + 1)
            elif start > 1:
                config.deliver_policy = api.DeliverPolicy.BY_START_SEQUENCE
                config.opt_start_seq = start
            if not self.members.get((station, group)):
                await self.js.add_consumer(stream, config)
        self.members.setdefault((station, group), []).append((name, body.get("connection_id")))
        return {"schema_update": EMPTY_SCHEMA, "partitions_update": {"partitions_list": self.stations[station]}, "error": ""}

    async def consumer_destructions(self, body):
        name = external(body.get("name", ""), "Consumer")
        station = external(body.get("station_name", ""), "Station")
        member = (name, body.get("connection_id"))
        for (of, group), members in self.members.items():
            if of == station and member in members:
                members.remove(member)
                if not members:
                    for p in self.stations[station]:
                        await self.js.delete_consumer(f"{internal(station)}${p}", internal(group))
                return b""
        raise Refusal(f"Consumer {name} at station {station} does not exist")


async def main(ready):
    async def quiet(_):
        pass

    # It outlives restarts of the server.
    nc = await nats.connect(
        os.environ["NATS_URL"], user=os.environ["NATS_USER"], password=os.environ["NATS_PASSWORD"],
        max_reconnect_attempts=-1, reconnect_time_wait=0.02, error_cb=quiet,
    )
    plane = ControlPlane(nc.jetstream())

    def answering(handler):
        async def answer(msg):
            try:
                reply = await handler(lower_keys(json.loads(msg.data)))
            except (Refusal, NotFoundError) as refusal:
                reply = str(refusal).encode()
            except Exception:
                traceback.print_exc()
                reply = b"internal error of the stand-in"
            await msg.respond(reply if isinstance(reply, bytes) else json.dumps(reply).encode())
        return answer

    for request in ("station_creations", "station_destructions", "producer_creations", "producer_destructions",
                    "consumer_creations", "consumer_destructions"):
        await nc.subscribe(f"$memphis_{request}", cb=answering(getattr(plane, request)))
    await nc.flush()
    await nc.flush()
    ready.touch()
    await asyncio.Event().wait()


asyncio.run(main(pathlib.Path(sys.argv[1])))
