"""Requests over HTTP, as every scenario of the REST gateway and of the management API makes them."""

import asyncio
import base64
import functools
import http.client
import json
import os
import urllib.parse

from described import BASE, Document

API = urllib.parse.urlparse(os.environ["MANAGEMENT_URL"])
REST = urllib.parse.urlparse(os.environ["REST_URL"])
USER, PASSWORD = os.environ["NATS_USER"], os.environ["NATS_PASSWORD"]


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


BASIC = basic(USER, PASSWORD)


def opened(url):
    return http.client.HTTPConnection(url.hostname, url.port, timeout=30)


def exchange(url, method, path, body=None, headers=None, kind=None, authorization=None):
    """One request on a connection of its own: status, bytes, and fields in lower case. What is no
    text is sent as JSON."""
    headers = dict(headers or {})
    if authorization:
        headers["Authorization"] = authorization
    if body is not None and not isinstance(body, (str, bytes)):
        body, kind = json.dumps(body), kind or "application/json"
    if kind:
        headers.setdefault("Content-Type", kind)
    connection = opened(url)
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    text = response.read()
    fields = {name.lower(): value for name, value in response.getheaders()}
    connection.close()
    return response.status, text, fields


@functools.cache
def document():
    """The document of the management API, a valid one."""
    return Document(exchange(API, "GET", f"{BASE}/openapi.json")[1])


def send(method, path, body=None, headers=None, kind="application/json", authorization=BASIC):
    """A request of the management API, answered as its document says."""
    kind = kind if body is not None or method == "POST" else None
    answer = exchange(API, method, BASE + path, body, headers, kind, authorization)
    document().hold(method, BASE + path, body, kind, *answer)
    return answer


async def call(*arguments, **named):
    """As `send`; the answer is JSON, or nothing."""
    status, text, fields = await asyncio.to_thread(send, *arguments, **named)
    return status, json.loads(text) if text else None, fields
