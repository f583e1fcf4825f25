"""Logins and stations with memphis-py."""

import asyncio
import os

import nats
from nats.js.errors import NotFoundError
from scenario import MemphisError, Retention, Storage, check, check_error, connect, plain, run


async def logins(memphis):
    check("connected", memphis.is_connected(), True)
    user = os.environ["NATS_USER"]
    for name in (user, f"{user}$1"):
        nc = await plain(user=name)
        check(f"plain login as {name}", nc.is_connected, True)
        await nc.close()
    # The account id makes the SDK ask for <user>$7 first; it then falls back to the bare name.
    fallback = await connect(account_id=7)
    check("bare name", fallback.is_connected(), True)
    await fallback.close()
    await check_error("wrong password", connect(password="wrong"), "Authorization Violation")
    await check_error("unknown user", connect(username="nobody"), "Authorization Violation")
    await check_error("no credentials", connect(password=""), "connection token / password")
    sdks = await asyncio.gather(*(connect() for _ in range(5)))
    check("five at once", all(sdk.is_connected() for sdk in sdks), True)
    for sdk in sdks:
        await sdk.close()


async def config(js, stream):
    config = (await js.stream_info(stream)).config
    return {
        "subjects": config.subjects,
        "retention": str(config.retention).split(".")[-1].lower(),
        "storage": str(config.storage).split(".")[-1].lower(),
        "max_age": config.max_age,
        "max_msgs": config.max_msgs,
        "max_bytes": config.max_bytes,
        "duplicate_window": config.duplicate_window,
        "discard": str(config.discard).split(".")[-1].lower(),
        "num_replicas": config.num_replicas,
    }


async def creation(memphis, js):
    cases = [
        ("by-age", Retention.MAX_MESSAGE_AGE_SECONDS, 7200, {"max_age": 7200.0}),
        ("by-count", Retention.MESSAGES, 50, {"max_msgs": 50}),
        ("by-size", Retention.BYTES, 100000, {"max_bytes": 100000}),
        ("by-ack", Retention.ACK_BASED, 0, {"retention": "interest"}),
    ]
    for name, retention, value, expected in cases:
        for storage in (Storage.DISK, Storage.MEMORY):
            for partitions in (1, 3):
                station = f"{name}-{storage.value}-{partitions}"
                for _ in range(2):
                    # A second creation is a success and changes nothing.
                    await memphis.station(
                        station, retention_type=retention, retention_value=value, storage_type=storage,
                        partitions_number=partitions, idempotency_window_ms=60000,
                    )
                for p in range(1, partitions + 1):
                    stream = f"{station}${p}"
                    wanted = {
                        "subjects": [f"{stream}.>"], "retention": "limits", "storage": storage.value, "max_age": 0.0,
                        "max_msgs": -1, "max_bytes": -1, "duplicate_window": 60.0, "discard": "old",
                        "num_replicas": 1, **expected,
                    }
                    check(f"stream {stream}", await config(js, stream), wanted)
                try:
                    await js.stream_info(f"{station}${partitions + 1}")
                    raise AssertionError(f"{station} has more than {partitions} partitions")
                except NotFoundError:
                    pass

    # Another creation with other options is a success, too, and changes nothing.
    await memphis.station("by-count-file-1", retention_type=Retention.MESSAGES, retention_value=7)
    check("unchanged", (await config(js, "by-count-file-1$1"))["max_msgs"], 50)


async def names(memphis, js):
    station = await memphis.station("My.Station", partitions_number=2)
    check("internal name", (await config(js, "my#station$2"))["subjects"], ["my#station$2.>"])
    await station.destroy()
    for p in (1, 2):
        await check_error("destroyed", js.stream_info(f"my#station${p}"), "not found", nats.js.errors.NotFoundError)
    # Destroying what is not there is a success for the SDK.
    await station.destroy()
    await check_error("odd characters", memphis.station("odd$name"), r"Only alphanumeric and the '_', '-', '\.' characters are allowed in Station")
    await check_error("odd beginning", memphis.station(".name"), "Station name can not start or end with non alphanumeric character")
    await check_error("empty name", memphis.station(""), "Station name can not be empty")
    await check_error("long name", memphis.station("x" * 129), "Station should be under 128 characters")
    await check_error("long window", memphis.station("window", idempotency_window_ms=86400001, retention_value=100000), "idempotency window can not exceed 24 hours")
    await check_error("window beyond retention", memphis.station("window", retention_value=1), "idempotency window cannot be greater than the station retention")


async def defaults(memphis, js):
    await memphis.station("defaults")
    default = await config(js, "defaults$1")
    check("defaults", [default["max_age"], default["storage"], default["duplicate_window"]], [3600.0, "file", 120.0])
    await memphis.producer("made-by-producer", "first")
    check("made by a producer", (await config(js, "made-by-producer$1"))["max_age"], 3600.0)
    await memphis.consumer("made-by-consumer", "first", consumer_group="group")
    info = await js.consumer_info("made-by-consumer$1", "group")
    check("made by a consumer", info.config.filter_subject, "made-by-consumer$1.final")


async def scenario(memphis, js):
    await logins(memphis)
    await creation(memphis, js)
    await names(memphis, js)
    await defaults(memphis, js)


assert MemphisError
run(scenario)
