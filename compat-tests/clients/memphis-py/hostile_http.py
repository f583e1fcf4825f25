"""What is sent to the management API and to the REST gateway by those who look for a gap: requests
that two servers read differently, bodies that grow, paths that lead elsewhere; and that no secret
that was ever told to the server is in what it writes and shows."""

import base64
import json
import os
import signal
import socket
import subprocess
import tempfile
import urllib.parse

import nats
from own_server import ANY_PORTS, listening
from scenario import Memphis, check, run

USER, PASSWORD = os.environ["NATS_USER"], os.environ["NATS_PASSWORD"]
FACES = {name: urllib.parse.urlparse(os.environ[f"{name}_URL"]) for name in ("MANAGEMENT", "REST")}
BASIC = "Authorization: Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def raw(face, sent):
    """The statuses that come back until the server closes, and the last of its bytes."""
    url = FACES[face]
    with socket.create_connection((url.hostname, url.port), timeout=20) as link:
        seen = b""
        try:
            link.sendall(sent if isinstance(sent, bytes) else sent.encode())
        except ConnectionError:
            # Refused before all of it was sent; the answer is there.
            pass
        try:
            while more := link.recv(65536):
                seen += more
        except ConnectionResetError:
            # Closed with bytes of ours unread.
            pass
    statuses = [int(part.split(b" ", 1)[0]) for part in seen.split(b"HTTP/1.1 ")[1:]]
    return statuses, seen


def posted(face, fields, body=b""):
    paths = {"MANAGEMENT": "/api/v1/stations?dry_run=true", "REST": "/auth/authenticate"}
    head = f"POST {paths[face]} HTTP/1.1\r\nHost: localhost\r\n{BASIC}\r\nContent-Type: application/json\r\n" + "".join(f"{field}\r\n" for field in fields)
    return raw(face, head.encode() + b"\r\n" + body)[0]


def framing():
    body = b'{"name":"h"}'
    chunked = b"c\r\n" + body + b"\r\n0\r\n\r\n"
    for face in FACES:
        for label, fields, sent in (
            ("two lengths", ["Content-Length: 12", "Content-Length: 13"], body),
            ("a list of lengths", ["Content-Length: 12, 13"], body),
            ("a length below nothing", ["Content-Length: -1"], body),
            ("chunks that are not last", ["Transfer-Encoding: chunked, identity"], chunked),
            ("an odd encoding", ["Transfer-Encoding: xchunked"], chunked),
            ("a folded field", ["X-A: a\r\n b", "Content-Length: 12"], body),
            ("a bare return", ["X-A: a\rb", "Content-Length: 12"], body),
            ("a space before the colon", ["Content-Length : 12"], body),
        ):
            check(f"{face}: {label}", posted(face, fields, sent), [400])
        # Chunks count, as the standard says, and nothing behind them is read as another request.
        statuses = posted(face, ["Content-Length: 12", "Transfer-Encoding: chunked"], chunked + b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        check(f"{face}: a length and chunks are one request, and the last", len(statuses), 1)
        check(f"{face}: long fields", raw(face, f"GET / HTTP/1.1\r\nHost: x\r\nX-A: {'a' * 200_000}\r\n\r\n")[0], [431])
        many = "".join(f"X-{n}: a\r\n" for n in range(2000))
        check(f"{face}: many fields", raw(face, f"GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n")[0], [431])
        check(f"{face}: another protocol", raw(face, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[0], [])


def bodies():
    close = "Connection: close"

    def sent(body, *fields):
        return posted("MANAGEMENT", [f"Content-Length: {len(body)}", close, *fields], body)

    check("deep", sent(b"[" * 200_000), [400])
    check("deep in a field", sent(b'{"name":' + b"[" * 10_000 + b"]" * 10_000 + b"}"), [400])
    check("many keys", sent(json.dumps({f"k{n}": 1 for n in range(100_000)}).encode()), [400])
    check("a huge number", sent(b'{"name":"h","partitions":1' + b"0" * 5_000 + b"}"), [400])
    check("twice the same key is one of them", sent(b'{"name":"a","name":"b"}')[0] in (200, 400), True)
    for encoding in ("gzip", "br", "deflate"):
        check(encoding, sent(b'{"name":"h"}', f"Content-Encoding: {encoding}"), [415])
    check("as it is", sent(b'{"name":"h"}', "Content-Encoding: identity"), [200])


def paths():
    def got(path, method="GET", *fields):
        more = "".join(f"{field}\r\n" for field in fields)
        statuses, answer = raw("MANAGEMENT", f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{BASIC}\r\nConnection: close\r\n{more}\r\n")
        for secret in (b"panicked", b"/src/", b".rs:", PASSWORD.encode()):
            if secret in answer:
                raise AssertionError(f"{path} shows {secret}")
        return statuses

    for path in ("/../config", "/api/v1/../../etc/passwd", "//api/v1/stations", "/debug", "/debug/pprof", "/varz", "/connz", "/metrics", "/.git/config"):
        check(f"nothing at {path}", got(path), [404])
    for path in ("/api/v1/stations/%2e%2e%2f", "/api/v1/stations/%00", "/api/v1/stations/a.", "/api/v1/stations/-"):
        check(f"no name: {path}", got(path)[0] in (400, 404, 422), True)
    json_type = ("Content-Type: application/json", "Content-Length: 2")
    check("made for this", posted("MANAGEMENT", ["Content-Length: 13", "Connection: close"], b'{"name":"ab"}'), [200])
    check("another method in a field", got("/api/v1/stations/none", "POST", *json_type, "X-HTTP-Method-Override: DELETE")[0] in (400, 405), True)
    check("a token in the path is none", raw("MANAGEMENT", "GET /api/v1/stations?authorization=x&token=y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")[0], [401])
    statuses, answer = raw("MANAGEMENT", "OPTIONS /api/v1/stations HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n")
    check("no page of another site may ask", (statuses[0] >= 400, b"access-control" in answer.lower()), (True, False))


CANARY = "Canary-9!x"


async def secrets():
    """Each secret is told in every way there is, rightly and wrongly, to a server that writes down
    everything it can."""
    with tempfile.TemporaryDirectory(prefix="menes-canary-") as folder:
        config = os.path.join(folder, "menes.conf")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'authorization {{ users: [{{user: root, password: "{CANARY}root"}}] }}\n')
        os.chmod(config, 0o644)
        log = os.path.join(folder, "log")
        command = [os.environ["MENES"], "serve", "-a", "127.0.0.1", "-c", config, *ANY_PORTS, "-DV", "-sd", os.path.join(folder, "data"), "--ports_file_dir", folder]
        with open(log, "wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            ports = await listening(folder)
            shown = await told(ports)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        with open(log, encoding="utf-8", errors="replace") as file:
            written = file.read()
        check("it wrote down what was said", "$MENES.API.USER.CREATE" in written, True)
        check("others can read the configuration", "Others on this machine can read" in written, True)
        for where, text in [("log", written), *shown.items()]:
            at = text.find("Canary")
            if at >= 0:
                raise AssertionError(f"a secret is in {where}: …{text[max(0, at - 200):at + 40]}…")
            if "\x1b" in text or "\nforged" in text:
                raise AssertionError(f"a name is written into {where} as it came")
        check("and nowhere a secret", sorted(shown), sorted(["varz", "connz", "jsz", "metrics", "users", "overview", "problem"]))


async def told(ports):
    host = urllib.parse.urlparse(ports["nats"])
    api, rest, monitoring, metrics = (ports[face] for face in ("management", "rest", "monitoring", "metrics"))

    def curl(url, *more):
        return subprocess.run(["curl", "-sS", "-m", "20", url, *more], check=True, capture_output=True, timeout=30).stdout.decode(errors="replace")

    def sent(url, body, *more):
        return curl(url, "-H", "Content-Type: application/json", "-d", json.dumps(body), *more)

    root = f"{CANARY}root"
    nc = await nats.connect(ports["nats"], user="root", password=root)
    user = {"user": "canary-bird", "password": f"{CANARY}1", "type": "application"}
    await nc.request("$MENES.API.USER.CREATE", json.dumps(user).encode(), timeout=20)
    await nc.request("$MENES.API.USER.CREATE", json.dumps({**user, "user": "x\r\nforged \x1b[31m"}).encode(), timeout=20)
    token = json.loads((await nc.request("$MENES.API.TOKEN.CREATE", json.dumps({"user": "canary-bird"}).encode(), timeout=20)).data)["token"]
    for login in ({"user": "root", "password": f"{CANARY}wrong"}, {"user": "no\r\nforged \x1b[31m", "password": f"{CANARY}x"}, {"token": f"{CANARY}token"}, {"user": "canary-bird", "password": f"{CANARY}1"}):
        try:
            other = await nats.connect(ports["nats"], allow_reconnect=False, max_reconnect_attempts=1, name="n\r\nforged \x1b[31m", **login)
            await other.close()
        except Exception:  # a wrong one
            pass
    sdk = Memphis()
    await sdk.connect(host=host.hostname, port=int(ports["memphis"].rsplit(":", 1)[1]), username="canary-bird", password=f"{CANARY}1")
    await sdk.close()
    for password in (root, f"{CANARY}wrong"):
        sent(f"{api}/api/v1/sessions", {"username": "root", "password": password})
        sent(f"{api}/api/usermgmt/login", {"username": "root", "password": password})
        sent(f"{rest}/auth/authenticate", {"username": "root", "password": password})
        sent(f"{rest}/auth/authenticate", {"username": "root", "connection_token": password})
        curl(f"{api}/api/v1/me", "-u", f"root:{password}")
        curl(f"{api}/api/v1/me?token={password}", "-H", f"Authorization: Bearer {password}")
    sent(f"{api}/api/v1/users", {"name": "made", "password": f"{CANARY}2"}, "-u", f"root:{root}")
    sent(f"{api}/api/v1/users/made/password", {"password": f"{CANARY}3"}, "-X", "PUT", "-u", f"root:{root}")
    shown = {
        "varz": curl(f"{monitoring}/varz"),
        "connz": curl(f"{monitoring}/connz?subs=1&auth=1&state=any"),
        "jsz": curl(f"{monitoring}/jsz?streams=1&consumers=1&config=1"),
        "metrics": curl(f"{metrics}/metrics"),
        "users": curl(f"{api}/api/v1/users", "-u", f"root:{root}"),
        "overview": curl(f"{api}/api/v1/overview", "-u", f"root:{root}"),
        "problem": sent(f"{api}/api/v1/users", {"name": "made", "password": f"{CANARY}-is-much-too-long"}, "-u", f"root:{root}"),
    }
    await nc.close()
    for where, text in shown.items():
        if token in text:
            raise AssertionError(f"a token is in {where}")
    return shown


async def scenario(_memphis, _js):
    framing()
    bodies()
    paths()
    await secrets()


run(scenario)
