"""Requests of Memphis's own management API, below `/api/`."""

import asyncio
import json
import urllib.parse

from exchanges import API, exchange
from scenario import check

_token = None


def use(token):
    """Makes this the token of every request that brings none."""
    global _token
    _token = token
    return token


def send(method, path, body=None, token=None, headers=None):
    if body is not None and method == "GET":
        path, body = f"{path}?{urllib.parse.urlencode(body)}", None
    kind = "application/json" if body is not None and not isinstance(body, str) else None
    status, text, fields = exchange(API, method, f"/api/{path}", body, headers, kind, token and f"Bearer {token}")
    return status, json.loads(text), fields


async def call(method, path, body=None, token=None, **named):
    return await asyncio.to_thread(send, method, path, body, token or _token, **named)


async def done(label, method, path, body, expected=None):
    status, answer, _ = await call(method, path, body)
    check(label, status, 200)
    if expected is not None:
        check(f"{label}: answer", answer, expected)
    return answer


async def refused(label, status, *arguments, **named):
    seen, answer, _ = await call(*arguments, **named)
    check(label, (seen, list(answer)), (status, ["message"]))
    return answer["message"]
