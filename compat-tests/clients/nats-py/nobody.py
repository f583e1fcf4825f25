"""Connections that bring nothing, or little, where `no_auth_user` names a user."""

import asyncio
import json
import os

from scenario import note

HOST, PORT = os.environ["NATS_URL"].removeprefix("nats://").split(":")
NKEY = "UDRXJE7WNMBJ6WHKNZ4DSFUVRBM6CUWLNLAA5ZJV6TGWJXBBCB4GC4P3"
CONNECTS = [{}, {"user": "guest", "pass": "x"}, {"user": "guest"}, {"user": "root"}, {"nkey": NKEY}, {"auth_token": "x"},
            {"jwt": "x"}, {"sig": "x"}, {"name": "x", "lang": "y"}]


async def attempt(label, text):
    """Says this below any client library."""
    reader, writer = await asyncio.open_connection(HOST, int(PORT))
    info = json.loads((await reader.readline())[5:])
    writer.write(text.encode())
    lines = []
    while not lines or not (lines[-1].startswith("-ERR") or lines[-1] == "PONG"):
        line = (await asyncio.wait_for(reader.readline(), 5)).decode().strip()
        lines += [line] if not line.startswith("INFO") else []
    note(label, [info.get("auth_required", False), "nonce" in info, *lines])
    writer.close()


async def main():
    await attempt("no CONNECT", "PING\r\n")
    await attempt("no CONNECT but a message", "PUB a 1\r\nx\r\nPING\r\n")
    for fields in CONNECTS:
        document = json.dumps({"verbose": False, "pedantic": False, **fields})
        await attempt(json.dumps(fields), f"CONNECT {document}\r\nPING\r\n")


asyncio.run(main())
