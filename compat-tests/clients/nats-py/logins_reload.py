"""Logins and limits that a reload takes away from clients that are connected."""

import asyncio
import os
import pathlib
import signal

import nats
from scenario import eventually, note

FOLDER = pathlib.Path(os.environ["SCENARIO_DIR"])
FILE = next(FOLDER / name for name in ("reference.conf", "server.conf") if (FOLDER / name).exists())
LOG = FOLDER / "server.log"


class Client:
    """A connection that does not come back, and what it heard."""

    def __init__(self, **login):
        self.login, self.heard = login, []

    async def __aenter__(self):
        async def error(error):
            self.heard.append(str(error))

        self.nc = await nats.connect(os.environ["NATS_URL"], allow_reconnect=False, error_cb=error, **self.login)
        return self

    async def __aexit__(self, *_):
        await self.nc.close()

    async def leaves(self, label):
        async def is_gone():
            return self.nc.is_closed

        await eventually(label, is_gone)
        note(label, "is gone")

    async def stays(self, label):
        await self.nc.flush(timeout=5)
        note(label, "is there")


async def reload(**changes):
    """Replaces words of the configuration and has the server read it again."""
    text = FILE.read_text()
    for old, new in changes.values():
        assert old in text, old
        text = text.replace(old, new)
    FILE.write_text(text)
    done = LOG.read_text().count("Reloaded server configuration")
    os.kill(int(os.environ["SERVER_PID"]), signal.SIGHUP)

    async def is_done():
        return LOG.read_text().count("Reloaded server configuration") > done

    await eventually("the reload", is_done)


async def tokens():
    async with Client(token="first") as client:
        await client.stays("who brought the token")
        await reload(token=("token: first", "token: second"))
        await client.leaves("who brought the old token")
    async with Client(token="second") as client:
        await reload(payload=("max_payload: 1000", "max_payload: 2000"))
        await client.stays("who brought the token, while something else changes")


async def limits():
    async with Client(user="a", password="a") as first, Client(user="a", password="a") as second:
        async with Client(user="b", password="b") as other:
            for subject in ("x", "y", "z"):
                await other.nc.subscribe(subject)
            await first.stays("first of two")
            await second.stays("second of two")
            await other.stays("who has three subscriptions")
            await reload(connections=("max_connections: 5", "max_connections: 1"),
                         subscriptions=("max_subscriptions: 5", "max_subscriptions: 2"))
            await other.leaves("who has more subscriptions than it may")
            # Which of the two has to go is the server's affair.

            async def is_one():
                return [first.nc.is_closed, second.nc.is_closed].count(True) == 1

            await eventually("one of two goes", is_one)
            note("of two", "one is left")
            note("told", sorted(other.heard + first.heard + second.heard))


asyncio.run(tokens() if "token: first" in FILE.read_text() else limits())
