"""What every nats-py scenario shares: the connection, the checks, and what gets printed.

A scenario is an async function of one connection. It prints what it saw, one line per thing, with
times, ids and addresses replaced by their kind, so that the lines of two servers can be compared.
"""

import asyncio
import enum
import dataclasses
import datetime
import json
import os
import re
import ssl
import sys

import nats

# Values that differ from run to run, whatever the server.
VARYING_KEYS = {
    "active": "<duration>",
    "cluster": "<cluster>",
    "created": "<time>",
    "consumer_id": "<id>",
    "domain": "<domain>",
    "first_ts": "<time>",
    "id": "<id>",
    "inflight": "<number>",
    "last_active": "<time>",
    "last_ts": "<time>",
    "lead": "<server>",
    "leader": "<server>",
    "leader_since": "<time>",
    "pause_remaining": "<duration>",
    "time": "<time>",
    "timestamp": "<time>",
    "ts": "<time>",
    "level": "<level>",
    # Each server says which version of the API it offers.
    "_nats.level": "<level>",
    "_nats.ver": "<version>",
}


def normalise(value):
    """Replaces what differs from run to run; turns objects into plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return normalise({k: v for k, v in fields.items() if v is not None})
    if isinstance(value, dict):
        return {k: VARYING_KEYS[k] if k in VARYING_KEYS else normalise(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [normalise(v) for v in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (datetime.datetime, datetime.date)):
        return "<time>"
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        value = re.sub(r"_INBOX\.[A-Za-z0-9.]+", "<inbox>", value)
        return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>", value)
    return value


def note(label, value):
    """Prints what was seen."""
    value = normalise(value)
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    print(f"{label}: {text}", flush=True)


def check(label, seen, expected):
    """Prints what was seen and fails the scenario if it is not what was expected."""
    note(label, seen)
    if seen != expected:
        raise AssertionError(f"{label}: saw {seen!r}, expected {expected!r}")


async def check_error(label, awaitable, kind, **fields):
    """Expects an error of a class, with certain attributes; prints its class and codes."""
    try:
        result = await awaitable
    except kind as error:
        seen = {"error": type(error).__name__}
        for name in ("code", "err_code", "description"):
            if getattr(error, name, None) is not None:
                seen[name] = getattr(error, name)
        note(label, seen)
        for name, expected in fields.items():
            if getattr(error, name) != expected:
                raise AssertionError(f"{label}: {name} is {getattr(error, name)!r}, not {expected!r}")
        return error
    raise AssertionError(f"{label}: expected {kind.__name__}, got {result!r}")


async def eventually(label, probe, limit=15.0):
    """Repeats a question until its answer is true."""
    deadline = asyncio.get_running_loop().time() + limit
    while not await probe():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{label}: not within {limit} s")
        await asyncio.sleep(0.01)


def tls_context():
    """Trusts the authority in NATS_CA and shows the certificate in NATS_CERT."""
    context = ssl.create_default_context(cafile=os.environ["NATS_CA"])
    if "NATS_CERT" in os.environ:
        context.load_cert_chain(os.environ["NATS_CERT"], os.environ["NATS_KEY"])
    return context


async def connect(**options):
    """Connects as the server's user."""
    options.setdefault("user", os.environ["NATS_USER"])
    options.setdefault("password", os.environ["NATS_PASSWORD"])
    if "NATS_CA" in os.environ:
        options.setdefault("tls", tls_context())
        options.setdefault("tls_handshake_first", os.environ.get("TLS_FIRST") == "1")
    return await nats.connect(os.environ["NATS_URL"], **options)


async def settle(nc):
    """Waits until the server has everything this connection sent.

    One flush is not enough: nats-py writes the PING straight to the socket, past what it still
    holds back. When the PONG is here, what was held back has left; the second PING follows it.
    """
    await nc.flush()
    await nc.flush()


def is_reference():
    """Whether nats-server answers, not the server under test."""
    return os.environ.get("MENES_TEST_SERVER") == "nats-server"


# Seconds a scenario may take.
LIMIT = float(os.environ.get("SCENARIO_LIMIT", "55"))


def run(scenario):
    """Runs a scenario on a connection of its own; fails on errors nobody awaited, too."""

    async def main():
        unexpected = []

        async def on_error(error):
            unexpected.append(error)

        nc = await connect(error_cb=on_error)
        try:
            await scenario(nc)
        finally:
            await nc.close()
        if unexpected:
            raise AssertionError(f"errors on the connection: {unexpected!r}")

    asyncio.run(asyncio.wait_for(main(), LIMIT))
    sys.stdout.flush()
