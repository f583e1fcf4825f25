"""A raw client for what the load generator of the benchmarks does not do: many keys.

It writes frames made beforehand and counts what comes back, so that the servers are measured and
not the client.
"""

import json
import re
import socket

REPLY = b"_INBOX.benchmark"
PAYLOAD = b"x" * 128
CHUNK = 500
# Chunks under way.
PIPELINED = 4
TIMEOUT = 60


class Client:
    """A connection that counts messages by how they begin."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.wait_for(b"INFO ")
        self.socket.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
        self.socket.sendall(b"SUB %s 1\r\nSUB %s.api 2\r\nPING\r\n" % (REPLY, REPLY))
        self.wait_for(b"PONG\r\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def receive(self):
        received = self.socket.recv(1 << 20)
        if not received:
            raise RuntimeError("the server closed the connection")
        return received

    def wait_for(self, wanted):
        seen = b""
        while wanted not in seen:
            seen += self.receive()
        return seen

    def api(self, subject, request):
        """The answer to a request of the JetStream API."""
        body = json.dumps(request).encode()
        self.socket.sendall(b"PUB %s %s.api %d\r\n%s\r\n" % (subject.encode(), REPLY, len(body), body))
        head = b"MSG %s.api 2 " % REPLY
        seen = b""
        while True:
            seen += self.receive()
            start = seen.find(head)
            end = seen.find(b"\r\n", start)
            if start < 0 or end < 0:
                continue
            size = int(seen[start:end].split()[-1])
            if len(seen) >= end + 2 + size:
                answer = json.loads(seen[end + 2:end + 2 + size])
                if "error" in answer:
                    raise RuntimeError(f"{subject}: {answer['error']}")
                return answer

    def exchange(self, chunks, count, head):
        """Sends `count` requests in chunks, a few ahead of their answers, which begin with `head`."""
        sent = answered = 0
        tail = b""
        while answered < count:
            while sent < len(chunks) and sent * CHUNK - answered < PIPELINED * CHUNK:
                self.socket.sendall(chunks[sent])
                sent += 1
            seen = tail + self.receive()
            if b'"error"' in seen or b"NATS/1.0 4" in seen or b"NATS/1.0 5" in seen:
                raise RuntimeError(f"refused: {seen[:300]!r}")
            answered += seen.count(head)
            # Too short for a whole head, so that none is counted twice.
            tail = seen[-(len(head) - 1):]

    def follow(self, head, count):
        """Receives messages that begin with `head`, and answers what the flow control asks."""
        asked = re.compile(rb"MSG \S+ 1 (\$JS\.FC\.\S+) \d+ \d+\r\nNATS/1\.0 100 Flow|Nats-Consumer-Stalled: ?(\S+)\r\n")
        answered = set()
        longest = 400
        came = 0
        kept = b""
        while True:
            seen = kept + self.receive()
            for match in asked.finditer(seen):
                reply = match[1] or match[2]
                if reply not in answered:
                    answered.add(reply)
                    self.socket.sendall(b"PUB %s 0\r\n\r\n" % reply)
            # What begins behind the cut may be a part; it is looked at again with what follows.
            cut = max(0, len(seen) - longest)
            came += seen.count(head, 0, cut + len(head) - 1)
            kept = seen[cut:]
            if came + kept.count(head) >= count:
                return


def key(number):
    return b"$KV.bench.key%07d" % number


def chunks_of(frames):
    return [b"".join(frames[at:at + CHUNK]) for at in range(0, len(frames), CHUNK)]


def puts(keys):
    frame = b" %s %d\r\n%s\r\n" % (REPLY, len(PAYLOAD), PAYLOAD)
    return chunks_of([b"PUB " + key(number) + frame for number in range(keys)])


def gets(keys, count):
    # Spread over the keys: a number that has no factor in common with theirs.
    step = 7919
    subjects = (key(number * step % keys) for number in range(count))
    return chunks_of([b"PUB $JS.API.DIRECT.GET.KV_bench." + subject + b" %s 0\r\n\r\n" % REPLY for subject in subjects])


def create_bucket(client):
    client.api("$JS.API.STREAM.CREATE.KV_bench", {
        "name": "KV_bench", "subjects": ["$KV.bench.>"], "retention": "limits", "storage": "file",
        "num_replicas": 1, "max_msgs_per_subject": 1, "max_msgs": -1, "max_bytes": -1, "max_age": 0,
        "max_consumers": -1, "max_msg_size": -1, "discard": "new", "allow_rollup_hdrs": True,
        "deny_delete": True, "allow_direct": True,
    })


def watch(client, keys):
    """Receives the last value of every key."""
    request = json.dumps({"stream_name": "KV_bench", "config": {
        "deliver_subject": REPLY.decode(), "ack_policy": "none", "deliver_policy": "last_per_subject",
        "filter_subject": "$KV.bench.>", "replay_policy": "instant", "flow_control": True,
        "idle_heartbeat": 5_000_000_000, "mem_storage": True, "num_replicas": 1,
    }}).encode()
    client.socket.sendall(b"PUB $JS.API.CONSUMER.CREATE.KV_bench %s.api %d\r\n%s\r\n" % (REPLY, len(request), request))
    client.follow(b"MSG $KV.bench.key", keys)
