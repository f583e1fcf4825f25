"""What anyone who reaches a port may take up over HTTP, and what pages of strangers may ask of a
server that lets anyone in (`menes dev`)."""

import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import urllib.parse

from own_server import ANY_PORTS, listening
from scenario import check, run

FACES = {name: urllib.parse.urlparse(os.environ[f"{name}_URL"]) for name in ("MANAGEMENT", "REST")}


def unsent(face, path, length):
    """The status of a POST whose body is announced and never comes."""
    url = FACES[face]
    with socket.create_connection((url.hostname, url.port), timeout=20) as link:
        link.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode())
        return int(link.makefile("rb").readline().split()[1])


def posted(face, path, body):
    url = FACES[face]
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((url.hostname, url.port), timeout=20) as link:
        try:
            link.sendall((head + body).encode())
        except ConnectionError:
            # Refused before all of it was sent; the answer is there.
            pass
        return int(link.makefile("rb").readline().split()[1])


async def bodies():
    # Bodies are waited for half a minute, which is longer than this waits for an answer.
    for path in ("/api/stations/createstation", "/api/schemas/createnewschema", "/api/v1/stations"):
        check(f"not read: {path}", unsent("MANAGEMENT", path, 2_000_000), 401)
    check("not read: REST", unsent("REST", "/stations/st/produce/batch", 4_000_000), 401)
    long = json.dumps({"username": "x", "password": "x" * 140_000})
    for face, path in (("MANAGEMENT", "/api/usermgmt/login"), ("MANAGEMENT", "/api/v1/sessions"), ("REST", "/auth/authenticate"), ("REST", "/auth/refreshtoken")):
        check(f"too long for a login: {path}", posted(face, path, long), 413)
    short = json.dumps({"username": "x", "password": "x" * 1_000})
    for face, path in (("MANAGEMENT", "/api/usermgmt/login"), ("MANAGEMENT", "/api/v1/sessions"), ("REST", "/auth/authenticate")):
        check(f"a login: {path}", posted(face, path, short), 401)


def got(port, path, **headers):
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    link.putrequest("GET", path, skip_host=True)
    for name, value in headers.items():
        link.putheader(name, value)
    link.endheaders()
    answer = link.getresponse()
    text = answer.read()
    link.close()
    return answer.status, text


async def pages():
    with tempfile.TemporaryDirectory(prefix="menes-dev-") as folder:
        with open(os.path.join(folder, "log"), "wb") as log:
            process = subprocess.Popen([os.environ["MENES"], "dev", *ANY_PORTS, "-sd", os.path.join(folder, "data"), "--ports_file_dir", folder], stdout=log, stderr=log)
        try:
            ports = {face: urllib.parse.urlparse(url).port for face, url in (await listening(folder)).items()}
            upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
            asked = {"management": ("/api/v1/stations", {}, 200), "rest": ("/monitoring/status", {}, 200), "monitoring": ("/varz", {}, 200), "metrics": ("/metrics", {}, 200), "websocket": ("/", upgrade, 101)}
            for face, (path, headers, good) in asked.items():
                port = ports[face]
                own = [{"Host": f"localhost:{port}"}, {"Host": f"127.0.0.1:{port}", "Origin": "http://localhost:3000"}]
                strange = [{"Host": f"evil.example:{port}"}, {"Host": f"localhost:{port}", "Origin": "https://evil.example"}, {"Host": f"localhost:{port}", "Origin": "null"}]
                for more in own:
                    check(f"{face}, a page of this machine: {more}", got(port, path, **headers, **more)[0], good)
                for more in strange:
                    check(f"{face}, a page of a stranger: {more}", got(port, path, **headers, **more)[0], 403)
            check("told why", json.loads(got(ports["management"], "/api/v1/stations", Host="evil.example")[1])["code"], "E-API-HOST")
            # Tools that name no host are no browsers.
            check("no host", got(ports["monitoring"], "/healthz")[0] in (200, 400), True)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


async def scenario(memphis, js):
    await bodies()
    await pages()


run(scenario)
