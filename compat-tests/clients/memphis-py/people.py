"""What the scenarios about users share: the management API, the REST gateway, NATS connections that
note what they are refused."""

import asyncio
import json
import os

import exchanges
import nats
from exchanges import PASSWORD, REST, USER, basic, exchange
from scenario import check, eventually, note

ROOT = (USER, PASSWORD)
SECRET, OTHER = "Secret-1!", "Other-2?"


async def call(method, path, body=None, as_user=ROOT):
    return (await exchanges.call(method, path, body, authorization=basic(*as_user)))[:2]


async def refused(label, status, code, *arguments, **named):
    answer = await call(*arguments, **named)
    check(label, (answer[0], answer[1]["code"]), (status, code))


async def rest(path, body, bearer=None):
    status, text, _ = await asyncio.to_thread(exchange, REST, "POST", path, body, authorization=bearer and f"Bearer {bearer}")
    return status, json.loads(text) if text else None


class Plain:
    """A NATS connection that notes what the server complains about."""

    def __init__(self):
        self.errors, self.closed = [], asyncio.Event()

    async def __call__(self, url=None, **options):
        async def on_error(error):
            self.errors.append(str(error))

        async def on_closed():
            self.closed.set()

        url = url or f"nats://{os.environ['MEMPHIS_HOST']}:{os.environ['MEMPHIS_PORT']}"
        self.nc = await nats.connect(
            url, error_cb=on_error, closed_cb=on_closed, allow_reconnect=False, **options
        )
        return self

    async def denied(self, label, word, what):
        async def heard():
            return any(word in error.lower() and what in error.lower() for error in self.errors)

        await eventually(label, heard)
        note(label, self.errors)
        self.errors.clear()


async def is_refused(label, **options):
    try:
        nc = await nats.connect(
            f"nats://{os.environ['MEMPHIS_HOST']}:{os.environ['MEMPHIS_PORT']}",
            allow_reconnect=False,
            max_reconnect_attempts=0,
            **options,
        )
    except Exception as error:
        check(label, "uthorization" in str(error), True)
        return
    await nc.close()
    raise AssertionError(f"{label}: was let in")
