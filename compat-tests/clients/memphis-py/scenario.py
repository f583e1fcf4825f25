"""What every memphis-py scenario shares: connections, checks, a look behind the scenes.

Behind the scenes means the same server's JetStream, through nats-py: a station's partition is a
stream, a consumer group a durable consumer. What an SDK cannot ask for is checked there.
"""

import asyncio
import json
import os
import re

import nats
from memphis import Headers, Memphis, MemphisError
from memphis.types import Retention, Storage

__all__ = ["Headers", "Memphis", "MemphisError", "Retention", "Storage"]


def note(label, seen):
    print(f"{label}: {seen}", flush=True)


def check(label, seen, expected):
    """Prints what was seen and fails the scenario if it is not what was expected."""
    note(label, seen)
    if seen != expected:
        raise AssertionError(f"{label}: saw {seen!r}, expected {expected!r}")


async def check_error(label, awaitable, pattern, kind=MemphisError):
    """Expects an error whose text matches a pattern."""
    try:
        result = await awaitable
    except kind as error:
        note(label, str(error))
        if not re.search(pattern, str(error)):
            raise AssertionError(f"{label}: {error!r} does not match {pattern!r}") from error
        return
    raise AssertionError(f"{label}: expected an error, got {result!r}")


async def eventually(label, probe, limit=15.0):
    """Repeats a question until its answer is true."""
    deadline = asyncio.get_running_loop().time() + limit
    while not await probe():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{label}: not within {limit} s")
        await asyncio.sleep(0.01)


async def connect(**options):
    """An SDK connection as the server's user."""
    memphis = Memphis()
    options = {"username": os.environ["NATS_USER"], "password": os.environ["NATS_PASSWORD"], **options}
    await memphis.connect(host=os.environ["MEMPHIS_HOST"], port=int(os.environ["MEMPHIS_PORT"]), **options)
    return memphis


async def plain(**options):
    """A plain NATS connection on the port of the SDKs."""
    options = {"user": os.environ["NATS_USER"], "password": os.environ["NATS_PASSWORD"], **options}
    return await nats.connect(f"nats://{os.environ['MEMPHIS_HOST']}:{os.environ['MEMPHIS_PORT']}", **options)


async def ask(nc, what, **body):
    """A request to the broker's own interface."""
    reply = await nc.request(f"$MENES.API.{what}", json.dumps(body).encode(), timeout=10)
    answer = json.loads(reply.data)
    if "error" in answer:
        raise AssertionError(f"{what}: {answer['error']['description']}")
    return answer


def is_reference():
    """Whether nats-server and the stand-in control plane answer, not the server under test."""
    return os.environ.get("MENES_TEST_SERVER") == "nats-server"


def texts(messages):
    return [message.get_data().decode() for message in messages]


def run(scenario, limit=55):
    """Runs a scenario with an SDK connection and a look behind the scenes."""

    async def main():
        memphis = await connect()
        behind = await plain()
        try:
            await scenario(memphis, behind.jetstream())
        finally:
            await behind.close()
            await memphis.close()

    asyncio.run(asyncio.wait_for(main(), limit))
