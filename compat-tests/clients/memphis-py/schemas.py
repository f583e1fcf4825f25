"""Schemas with memphis-py: versions, attaching and detaching under a live producer, and a server
that checks what anyone publishes."""

import base64
import json
import os

from nats.js.errors import APIError
from scenario import ask, check, check_error, eventually, note, plain, run, texts

FOLDER = os.environ["SCENARIO_DIR"]
PERSON = '{"type":"object","properties":{"f":{"type":"string"}},"required":["f"]}'
PROTO = 'syntax = "proto3"; package shop; message Order { string id = 1; int32 count = 2; }'
AVRO = '{"type":"record","name":"User","fields":[{"name":"name","type":"string"}]}'
GRAPHQL = "type Query { greet(name: String!): String }"


def written(name, content):
    path = os.path.join(FOLDER, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
    return path


async def refused(label, js, subject, payload):
    """A plain NATS publisher is told why."""
    try:
        ack = await js.publish(subject, payload)
    except APIError as error:
        note(label, f"{error.code} {error.err_code} {error.description}")
        check(f"{label}, in words", error.description.startswith("Schema validation has failed: "), True)
        return
    raise AssertionError(f"{label}: stored as {ack}")


async def attached(memphis, nc, js):
    await memphis.station("Sch.St")
    producer = await memphis.producer("sch.st", "prod")
    await memphis.create_schema("person", "json", written("person.json", PERSON))
    await memphis.create_schema("person", "json", written("person.json", PERSON))
    await check_error("no schema", memphis.create_schema("broken", "json", written("broken.json", '{"type":7}')), "your json schema is invalid")
    await check_error("unknown schema", memphis.enforce_schema("missing", "sch.st"), "Schema missing does not exist")
    await producer.produce(bytearray(b"anything"))
    await memphis.enforce_schema("person", "sch.st")
    # Told of a JSON schema while it runs, a producer of memphis-py refuses everything: it reads the
    # definition only when a producer is made.
    producer = await memphis.producer("sch.st", "prod-2")
    await producer.produce(bytearray(b'{"f":"x"}'))
    await check_error("the SDK refuses", producer.produce(bytearray(b'{"g":1}')), "Schema validation has failed", Exception)

    # What the SDK refused is told by the SDK; what passes it by is refused by the server.
    async def kept(count):
        return len((await ask(nc, "DEAD_LETTER.LIST", station="sch.st"))["dead_letters"]) == count

    await eventually("kept by the SDK's word", lambda: kept(1))
    ack = await js.publish("sch#st$1.final", b'{"f":"from a NATS client"}')
    check("a good message of a NATS client", ack.seq, 3)
    await refused("a bad message of a NATS client", js, "sch#st$1.final", b'{"f":1}')
    await nc.publish("sch#st$1.final", b"no reply, no JSON")
    await eventually("both kept", lambda: kept(3))
    letters = (await ask(nc, "DEAD_LETTER.LIST", station="sch.st"))["dead_letters"]
    check("with the reason", [l["kind"] for l in letters], ["schema"] * 3)
    check("and the payload", base64.b64decode(letters[1]["payload"]), b'{"f":1}')
    await check_error("an edit is checked, too", ask(nc, "DEAD_LETTER.EDIT", id=letters[1]["id"], text='{"g":1}'), "Schema validation has failed", AssertionError)
    await ask(nc, "DEAD_LETTER.EDIT", id=letters[1]["id"], text='{"f":"mended"}')
    check("stored", (await js.stream_info("sch#st$1")).state.messages, 4)

    # The server lets everything pass where the station says so.
    await ask(nc, "SCHEMA.ATTACH", name="person", station="sch.st", enforce=False)
    await js.publish("sch#st$1.final", b"unchecked")
    await ask(nc, "SCHEMA.ATTACH", name="person", station="sch.st")
    await refused("checked again", js, "sch#st$1.final", b"unchecked")
    await memphis.detach_schema("sch.st")
    await producer.produce(bytearray(b"anything again"))
    await js.publish("sch#st$1.final", b"anything again")


async def versions(memphis, nc, js):
    await memphis.create_schema("v", "json", written("v.json", PERSON))
    wider = PERSON.replace('"f":{"type":"string"}', '"f":{"type":["string","integer"]}')
    await memphis.create_schema("v", "json", written("v.json", wider))
    info = await ask(nc, "SCHEMA.INFO", name="v")
    check("the first one stays active", [info["active"], info["latest"]], [1, 2])
    await memphis.station("versions", schema_name="v")
    await refused("version 1", js, "versions$1.final", b'{"f":1}')
    await ask(nc, "SCHEMA.ACTIVATE", name="v", version=2)
    await js.publish("versions$1.final", b'{"f":1}')
    await ask(nc, "SCHEMA.ACTIVATE", name="v", version=1)
    await refused("rolled back", js, "versions$1.final", b'{"f":1}')
    narrower = PERSON.replace('"required":["f"]', '"required":["f","g"]')
    await check_error("not compatible", ask(nc, "SCHEMA.CREATE", name="v", type="json", content=narrower, compatible=True), "not compatible", AssertionError)
    answer = await ask(nc, "SCHEMA.CREATE", name="v", type="json", content=narrower, activate=True)
    check("but possible", answer, {"version": 3})
    await refused("at once", js, "versions$1.final", b'{"f":"x"}')
    await ask(nc, "SCHEMA.DELETE", name="v")
    await js.publish("versions$1.final", b"free")


async def formats(memphis, nc, js):
    for kind, content, good, bad in (
        ("protobuf", PROTO, b"\x0a\x01a\x10\x02", b"\x0a\x05a"),
        ("avro", AVRO, b'{"name":"n"}', b'{"name":1}'),
        ("graphql", GRAPHQL, b'query { greet(name: "x") }', b"query { other }"),
    ):
        await memphis.create_schema(kind, kind, written(f"{kind}.txt", content))
        await memphis.station(f"format-{kind}", schema_name=kind)
        await js.publish(f"format-{kind}$1.final", good)
        await refused(kind, js, f"format-{kind}$1.final", bad)
    await check_error("no Protobuf", memphis.create_schema("bad", "protobuf", written("bad.txt", "message")), "your Proto file is invalid")
    await check_error("other type", memphis.create_schema("avro", "json", written("x.json", PERSON)), "already exist with type - avro")
    info = await ask(nc, "SCHEMA.INFO", name="protobuf")
    check("root message", info["versions"][0]["message"], "Order")
    check("file name", b"protobuf_1.proto" in base64.b64decode(info["versions"][0]["descriptor"]), True)
    producer = await memphis.producer("format-avro", "prod")
    await producer.produce({"name": "from the SDK"})
    consumer = await memphis.consumer("format-avro", "c")
    (first, second) = await consumer.fetch(batch_size=2)
    check("read with its schema", await second.get_data_deserialized(), {"name": "from the SDK"})


async def remote(memphis, nc, js):
    """Nothing that a schema refers to is fetched, and none can stall the server."""
    for name, schema in (
        ("remote", '{"$ref":"http://127.0.0.1:1/x"}'),
        ("file", '{"$ref":"file:///etc/passwd"}'),
        ("endless", '{"$ref":"#"}'),
    ):
        await check_error(name, memphis.create_schema(name, "json", written(f"{name}.json", schema)), "your json schema is invalid")


async def scenario(memphis, js):
    nc = await plain()
    for part in (attached, versions, formats, remote):
        await part(memphis, nc, js)
    await nc.close()


run(scenario)
