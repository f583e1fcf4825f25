"""Requests of every version that SDKs have sent, from before there were versions to the newest, as
those SDKs write them. The wire is the subject here, so the client is nats-py."""

import json

from scenario import check, is_reference, plain, run

OLD = "please upgrade your SDK version"


async def asked(nc, what, **body):
    reply = await nc.request(f"$memphis_{what}", json.dumps(body).encode(), timeout=20)
    return reply.data.decode()


def producer(station, version, **more):
    return {"name": f"p{version}", "station_name": station, "connection_id": "c1", "producer_type": "application", "username": "root",
            **({} if version == 0 else {"req_version": version}), **more}


def consumer(station, version, **more):
    return {"name": f"c{version}", "station_name": station, "connection_id": "c1", "consumer_type": "application", "consumers_group": f"g{version}",
            "max_ack_time_ms": 30000, "max_msg_deliveries": 2, "start_consume_from_sequence": 1, "last_messages": -1, "username": "root",
            **({} if version == 0 else {"req_version": version}), **more}


async def stations(nc):
    old = {"name": "vers", "retention_type": "message_age_sec", "retention_value": 3600, "storage_type": "file", "replicas": 1}
    check("from before partitions", await asked(nc, "station_creations", **old), "you are using an old SDK, make sure to update your SDK")
    check("with partitions", await asked(nc, "station_creations", **old, partitions_number=2), "")
    check("again, by an old one", await asked(nc, "station_creations", **old), "")


async def versions(nc, js):
    newest = {3: {}, 4: {"app_id": "a1", "sdk_lang": "python"}}
    for version in range(5):
        more = newest.get(version, {})
        reply = json.loads(await asked(nc, "producer_creations", **producer("vers", version, **more)))
        if version < 2:
            check(f"producer, version {version}", reply["error"], f"to produce to this station {OLD}")
        else:
            check(f"producer, version {version}", [reply["error"], reply["partitions_update"], reply["station_version"], reply["station_partitions_first_functions"]],
                  ["", {"partitions_list": [1, 2]}, 2, {}])
            check(f"all keys, version {version}", sorted(reply), ["error", "partitions_update", "schema_update", "schemaverse_to_dls", "send_notification", "station_partitions_first_functions", "station_version"])
        reply = await asked(nc, "consumer_creations", **consumer("vers", version, **more))
        if version < 2:
            check(f"consumer, version {version}", reply, f"to consume from this station {OLD}")
        else:
            reply = json.loads(reply)
            check(f"consumer, version {version}", [reply["error"], reply["partitions_update"], sorted(reply)], ["", {"partitions_list": [1, 2]}, ["error", "partitions_update", "schema_update"]])
            config = (await js.consumer_info("vers$2", f"g{version}")).config
            check(f"its durable, version {version}", config.filter_subject, "vers$2.final")
    for version in (0, 1):
        reply = json.loads(await asked(nc, "producer_creations", **producer(f"none{version}", version)))
        check(f"no station is made for a producer of version {version}", reply["error"], f"this station does not exist, a default station can not be created automatically, {OLD}")
        reply = await asked(nc, "consumer_creations", **consumer(f"none{version}", version))
        check(f"nor for a consumer of version {version}", reply, f"This station does not exist, a default station can not be created automatically, {OLD}")
    reply = json.loads(await asked(nc, "producer_creations", **producer("made.by.two", 2)))
    check("version 2 makes one", reply["partitions_update"], {"partitions_list": [1]})


async def keys(nc):
    """Keys in any case, with nulls, with what nobody knows, and with the internal name of a station."""
    body = {"NAME": "p", "Station_Name": "made#by#two", "connection_id": "c2", "producer_type": "application", "Req_Version": 4, "username": None, "creation_unix": 1}
    reply = json.loads(await asked(nc, "producer_creations", **body))
    check("as memphis.net asks", reply["error"], "")
    body = {"name": "by-net", "partitions_number": 1, "idempotency_windows_in_ms": 1, "dls_configuration": {"poison": False, "SchemaVerse": True}}
    check("a station of memphis.net", await asked(nc, "station_creations", **body), "")
    reply = json.loads(await asked(nc, "producer_creations", **producer("by-net", 4)))
    check("its switches", reply["schemaverse_to_dls"], True)
    java = consumer("vers", 3, connection_id="c3::root", name="java")
    check("memphis.java takes any error for one", json.loads(await asked(nc, "consumer_creations", **java))["error"], None)


async def destructions(nc):
    for version in (None, 0, 1):
        more = {} if version is None else {"req_version": version}
        gone = {"name": "p4", "station_name": "vers", "username": "root", "connection_id": "c1", **more}
        check(f"a producer goes, version {version}", await asked(nc, "producer_destructions", **gone), "")
    check("a consumer goes", await asked(nc, "consumer_destructions", name="c4", station_name="vers", username="root", connection_id="c1", req_version=1), "")
    seen = await asked(nc, "consumer_destructions", name="c4", station_name="vers", username="root", connection_id="c1", req_version=1)
    check("not twice", seen, "Consumer c4 at station vers does not exist")
    check("the station goes", await asked(nc, "station_destructions", station_name="vers", username="root"), "")
    check("not twice either", "not exist" in await asked(nc, "station_destructions", station_name="vers", username="root"), True)


async def scenario(memphis, js):
    if is_reference():
        return
    nc = await plain()
    await stations(nc)
    await versions(nc, js)
    await keys(nc)
    await destructions(nc)
    await nc.close()


run(scenario)
