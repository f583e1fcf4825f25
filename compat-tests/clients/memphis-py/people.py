"""What the scenarios about users share: the management API, the REST gateway, NATS connections that
note what they are refused."""

import asyncio
import base64
import http.client
import json
import os
import urllib.parse

import nats
from scenario import check, eventually, note

API = urllib.parse.urlparse(os.environ["MANAGEMENT_URL"])
REST = urllib.parse.urlparse(os.environ["REST_URL"])
ROOT = (os.environ["NATS_USER"], os.environ["NATS_PASSWORD"])
SECRET, OTHER = "Secret-1!", "Other-2?"


def send(url, method, path, body=None, authorization=None):
    headers = {"Content-Type": "application/json"}
    if authorization:
        headers["Authorization"] = authorization
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
    connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text) if text else None


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def call(method, path, body=None, as_user=ROOT):
    return await asyncio.to_thread(send, API, method, f"/api/v1{path}", body, basic(*as_user))


async def refused(label, status, code, *arguments, **named):
    answer = await call(*arguments, **named)
    check(label, (answer[0], answer[1]["code"]), (status, code))


async def rest(path, body, bearer=None):
    return await asyncio.to_thread(send, REST, "POST", path, body, bearer and f"Bearer {bearer}")


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
