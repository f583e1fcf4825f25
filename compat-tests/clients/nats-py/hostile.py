"""Clients that mean no good, or are broken: each is refused or closed for the right reason, and the
others are served all the while.

Started with `max_pending: 1MB`, `write_deadline: "1s"` and `authorization.timeout: 1`. Speaks to bare
sockets, because no client library misbehaves enough.
"""

import asyncio
import json
import os
import resource
import socket
import time
import urllib.parse
import urllib.request

from scenario import check, note, run

URL = urllib.parse.urlparse(os.environ["NATS_URL"])
ADDRESS = (URL.hostname, URL.port)
LOGIN = json.dumps({"user": os.environ["NATS_USER"], "pass": os.environ["NATS_PASSWORD"], "verbose": False,
                    "pedantic": False, "headers": True, "no_responders": True, "name": "NAME"})
PID = int(os.environ["SERVER_PID"])


def dial():
    peer = socket.create_connection(ADDRESS, timeout=10)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def until(peer, wanted, limit=10.0):
    """Reads until `wanted` was read or the server closed; returns all of it."""
    peer.settimeout(limit)
    seen = b""
    try:
        while wanted is None or wanted not in seen:
            chunk = peer.recv(65536)
            if not chunk:
                break
            seen += chunk
    except ConnectionResetError:
        pass
    return seen


def login(name):
    peer = dial()
    until(peer, b"\r\n")
    peer.sendall(f"CONNECT {LOGIN.replace('NAME', name)}\r\nPING\r\n".encode())
    until(peer, b"PONG\r\n")
    return peer


def connz(query):
    with urllib.request.urlopen(f"{os.environ['MONITORING_URL']}/connz?{query}") as answer:
        return json.load(answer)["connections"]


def reason(name, limit=15.0):
    """Why the connection of this name was closed."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        for connection in connz("state=closed&limit=100000"):
            if connection.get("name", "") == name:
                return connection["reason"]
        time.sleep(0.05)
    return "still there"


def told(answer):
    """The -ERR in what a server said."""
    at = answer.find(b"-ERR")
    return answer[at:].decode().strip() if at >= 0 else "nothing"


def cpu_seconds():
    with open(f"/proc/{PID}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib():
    with open(f"/proc/{PID}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20


async def scenario(nc):
    async def answered(message):
        await message.respond(b"yes")

    await nc.subscribe("alive", cb=answered)

    async def others_are_served(when):
        answer = await nc.request("alive", b"", timeout=10)
        check(f"others are served {when}", answer.data, b"yes")

    # Nothing but one byte now and then: the deadline of the login holds.
    start = time.monotonic()
    slow = dial()
    until(slow, b"\r\n")
    for byte in b"CONN":
        slow.send(bytes([byte]))
        await asyncio.sleep(0.1)
    check("a login that trickles", told(until(slow, None)), "-ERR 'Authentication Timeout'")
    check("it took about the timeout", 0.8 < time.monotonic() - start < 5, True)

    # What comes before a login is bounded.
    early = dial()
    until(early, b"\r\n")
    try:
        for _ in range(64):
            early.sendall(b"C" * 65536)
    except OSError:
        pass
    note("four MiB before a login", told(until(early, None)) in (
        "-ERR 'Unknown Protocol Operation'", "-ERR 'maximum control line exceeded'", "nothing",
        "-ERR 'Authorization Violation'"))
    await others_are_served("after early bytes")

    # A whole session, one byte at a time.
    small = login("bytes")
    for byte in b"SUB drip 1\r\nPUB drip 5\r\nhello\r\nPING\r\n":
        small.send(bytes([byte]))
    check("one byte at a time", until(small, b"PONG\r\n"), b"MSG drip 1 5\r\nhello\r\nPONG\r\n")
    small.close()

    # Never reads: closed by size, and the publisher is not held up for long.
    lazy = login("lazy")
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lazy.sendall(b"SUB flood 1\r\n")
    await asyncio.sleep(0.2)
    loud = login("loud")
    message = b"PUB flood 65536\r\n" + b"x" * 65536 + b"\r\n"
    start = time.monotonic()
    for _ in range(300):
        loud.sendall(message)
    loud.sendall(b"PING\r\n")
    until(loud, b"PONG\r\n")
    check("the publisher goes on", time.monotonic() - start < 20, True)
    check("never reads", reason("lazy") in ("Slow Consumer (Pending Bytes)", "Slow Consumer (Write Deadline)"), True)
    lazy.close()
    loud.close()
    await others_are_served("after a slow reader")

    # Reads nothing of the little there is to read: closed by time.
    stuck = login("stuck")
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.sendall(b"SUB trickle 1\r\n")
    await asyncio.sleep(0.2)
    steady = login("steady")
    message = b"PUB trickle 4096\r\n" + b"x" * 4096 + b"\r\n"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(c.get("name") == "stuck" for c in connz("limit=100000")):
        pending = next((c["pending_bytes"] for c in connz("limit=100000") if c.get("name") == "stuck"), 0)
        if pending < 300_000:
            for _ in range(16):
                steady.sendall(message)
        await asyncio.sleep(0.05)
    check("takes nothing for a second", reason("stuck"), "Slow Consumer (Write Deadline)")
    stuck.close()
    steady.close()
    await others_are_served("after a stuck reader")

    # A flood of subscriptions; all of them go when the connection does.
    before = resident_mib()
    many = login("many")
    for start in range(0, 50_000, 1000):
        many.sendall(b"".join(b"SUB many.%d.*.> %d\r\n" % (n, n) for n in range(start, start + 1000)))
    many.sendall(b"PING\r\n")
    until(many, b"PONG\r\n", limit=30)
    check("a flood of subscriptions", next(c["subscriptions"] for c in connz("limit=100000") if c.get("name") == "many"), 50_000)
    await others_are_served("with many subscriptions")
    many.close()
    check("its end", reason("many"), "Client Closed")
    note("memory stayed within bounds", resident_mib() - before < 300)

    # Headers that are too many, too long, or none.
    for name, header in (
        ("ten thousand headers", b"NATS/1.0\r\n" + b"".join(b"K%d: v\r\n" % n for n in range(10_000)) + b"\r\n"),
        ("a header of half a MiB", b"NATS/1.0\r\nK: " + b"v" * 500_000 + b"\r\n\r\n"),
        ("no header at all", b"\x00\xff\r\n:::\r\n\n\n"),
        ("a trace with ten thousand headers",
         b"NATS/1.0\r\nNats-Trace-Dest: t\r\n" + b"".join(b"K%d: v\r\n" % n for n in range(10_000)) + b"\r\n"),
        ("a trace to nowhere", b"NATS/1.0\r\nNats-Trace-Dest: \xff*.>\r\nNats-Trace-Only: 1\r\n\r\n"),
    ):
        bomb = login("bomb")
        bomb.sendall(b"SUB bomb 1\r\nHPUB bomb %d %d\r\n" % (len(header), len(header)) + header + b"\r\nPING\r\n")
        seen = until(bomb, b"PONG\r\n")
        note(name, "delivered" if header in seen else "not delivered")
        bomb.close()
    await others_are_served("after header bombs")

    # Everybody comes back at once, again and again.
    for _ in range(3):
        storm = [dial() for _ in range(300)]
        for n, peer in enumerate(storm):
            peer.sendall(f"CONNECT {LOGIN.replace('NAME', f'storm-{n}')}\r\nPING\r\n".encode())
        served = sum(b"PONG" in until(peer, b"PONG\r\n", limit=30) for peer in storm)
        check("a reconnect storm", served, len(storm))
        for peer in storm:
            peer.close()
    await others_are_served("after a storm")

    # No descriptors left: those who are there are served, nobody spins, and it ends.
    limits = resource.prlimit(PID, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{PID}/fd"))
    resource.prlimit(PID, resource.RLIMIT_NOFILE, (used + 10, limits[1]))
    crowd = [dial() for _ in range(60)]
    await asyncio.sleep(0.5)
    await others_are_served("without descriptors")
    busy = cpu_seconds()
    await asyncio.sleep(1.5)
    check("nobody spins", cpu_seconds() - busy < 0.75, True)
    resource.prlimit(PID, resource.RLIMIT_NOFILE, limits)
    for peer in crowd:
        peer.close()
    back = await asyncio.to_thread(login, "back")
    check("and it accepts again", bool(back.fileno() > 0), True)
    back.close()
    await others_are_served("at the end")


run(scenario)
