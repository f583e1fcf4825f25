"""Living stations and groups: what changes, what stays, what either face sees of the other."""

from nats.js.api import StreamConfig
from scenario import ask, check, connect, eventually, plain, run, texts


async def growing(memphis, nc, js):
    await memphis.station("growing", partitions_number=1)
    producer = await memphis.producer("growing", "prod")
    for n in range(3):
        await producer.produce(f"{n}")
    consumer = await memphis.consumer("growing", "c", consumer_group="g")
    check("before", texts(await consumer.fetch(batch_size=3)), ["0", "1", "2"])
    info = await ask(nc, "STATION.UPDATE", station="growing", partitions_number=3, retention_type="messages", retention_value=5)
    check("changed", [info["partitions"], info["retention"]], [3, {"type": "messages", "value": 5}])
    configs = [(await js.stream_info(f"growing${p}")).config for p in (1, 2, 3)]
    check("the streams follow", [[c.max_msgs, c.max_age] for c in configs], [[5, 0]] * 3)
    await js.publish("growing$3.final", b"on the new partition")
    other = await connect()
    member = await other.consumer("growing", "d", consumer_group="g")
    check("the group reads it", texts(await member.fetch(batch_size=1, consumer_partition_number=3)), ["on the new partition"])
    await other.close()


async def positions(memphis, nc, js):
    await memphis.station("reset", partitions_number=2)
    producer = await memphis.producer("reset", "prod")
    for n in range(1, 7):
        await producer.produce(f"{n}")
    consumer = await memphis.consumer("reset", "c", consumer_group="g")
    for partition in (1, 2):
        for message in await consumer.fetch(batch_size=3, consumer_partition_number=partition):
            await message.ack()

    async def lag():
        (group,) = (await ask(nc, "GROUP.LIST", station="reset"))["groups"]
        return [group["lag"], group["in_process"], [p["lag"] for p in group["partitions"]]]

    async def read():
        return await lag() == [0, 0, [0, 0]]

    await eventually("everything is read", read)
    answer = await ask(nc, "GROUP.RESET", station="reset", group="g", sequence=2)
    check("reset", answer["sequences"], [{"partition": 1, "sequence": 2}, {"partition": 2, "sequence": 2}])
    check("lag on each partition", await lag(), [4, 0, [2, 2]])
    check("it reads again", texts(await consumer.fetch(batch_size=3, consumer_partition_number=1)), ["3", "5"])
    await ask(nc, "GROUP.RESET", station="reset", group="g", to="end")
    check("at the end", await lag(), [0, 0, [0, 0]])
    await ask(nc, "GROUP.RESET", station="reset", group="g", time="2020-01-01T00:00:00Z", partition=2)
    check("by time, one partition", await lag(), [3, 0, [0, 3]])
    await ask(nc, "GROUP.PAUSE", station="reset", group="g", seconds=60)
    check("paused", await consumer.fetch(batch_size=1, consumer_partition_number=2), [])
    await ask(nc, "GROUP.RESUME", station="reset", group="g")
    check("resumed", texts(await consumer.fetch(batch_size=1, consumer_partition_number=2)), ["2"])


async def two_faces(memphis, nc, js):
    await js.add_stream(StreamConfig(name="foreign", subjects=["foreign.>"]))
    stations = (await ask(nc, "STATION.LIST"))["stations"]
    check("a stream of a NATS client", [s for s in stations if s["name"] == "foreign"], [{"name": "foreign", "is_native": False}])
    await memphis.station("two-faced", partitions_number=2)
    await js.delete_stream("two-faced$1")
    names = [s["name"] for s in (await ask(nc, "STATION.LIST"))["stations"]]
    check("it lives while a partition does", "two-faced" in names, True)
    await js.delete_stream("two-faced$2")

    async def gone():
        return "two-faced" not in [s["name"] for s in (await ask(nc, "STATION.LIST"))["stations"]]

    await eventually("the station goes with its last stream", gone)
    station = await memphis.station("two-faced")
    check("and can be made again", (await js.stream_info("two-faced$1")).state.messages, 0)
    await station.destroy()
    streams = [s.config.name for s in await js.streams_info()]
    check("a station takes its streams along", [s for s in streams if s.startswith("two-faced")], [])


async def scenario(memphis, js):
    nc = await plain()
    for part in (growing, positions, two_faces):
        await part(memphis, nc, js)
    await nc.close()


run(scenario)
