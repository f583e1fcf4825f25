"""Requests over HTTP, as every scenario of the REST gateway and of the management API makes them."""

import asyncio
import base64
import http.client
import json
import os
import urllib.parse

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


def send(method, path, body=None, headers=None, kind="application/json", authorization=BASIC):
    """A request of the management API."""
    kind = kind if body is not None or method == "POST" else None
    return exchange(API, method, f"/api/v1{path}", body, headers, kind, authorization)


async def call(*arguments, **named):
    """As `send`; the answer is JSON, or nothing."""
    status, text, fields = await asyncio.to_thread(send, *arguments, **named)
    return status, json.loads(text) if text else None, fields
