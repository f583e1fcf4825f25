"""Object buckets: several chunks per object, digests, watching."""

import base64
import hashlib
import io
import random

from nats.js import api
from nats.js.errors import BucketNotFoundError, NotFoundError, ObjectDeletedError, ObjectNotFoundError
from scenario import check, check_error, note, run


def digest(data):
    return "SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()


async def scenario(nc):
    js = nc.jetstream()
    await check_error("missing bucket", js.object_store("none"), (BucketNotFoundError, NotFoundError))
    store = await js.create_object_store("files")
    note("stream", (await js.stream_info("OBJ_files")).config)

    large = random.Random(7).randbytes(3 * 1024 * 1024 + 17)
    info = await store.put("large.bin", large, meta=api.ObjectMeta(description="three megabytes"))
    check("put", [info.size, info.chunks, info.digest], [len(large), 25, digest(large)])
    got = await store.get("large.bin")
    check("get", [len(got.data), digest(got.data)], [len(large), digest(large)])
    into = io.BytesIO()
    await store.get("large.bin", writeinto=into)
    check("get into a file", into.getvalue() == large, True)

    small = await store.put("small.txt", b"hello")
    check("one chunk", [small.size, small.chunks], [5, 1])
    empty = await store.put("empty", b"")
    check("no chunk", [empty.size, empty.chunks], [0, 0])
    check("get of nothing", (await store.get("empty")).data, b"")

    watcher = await store.watch()
    first = [await watcher.updates(timeout=5) for _ in range(4)]
    check("watch", [entry and entry.name for entry in first], ["large.bin", "small.txt", "empty", None])

    replaced = await store.put("small.txt", b"hello again")
    check("replaced", [replaced.size, (await store.get("small.txt")).data], [11, b"hello again"])
    check("watch sees it", (await watcher.updates(timeout=5)).size, 11)
    await store.update_meta("small.txt", api.ObjectMeta(name="small.txt", description="described"))
    check("described", (await store.get_info("small.txt")).description, "described")
    check("list", sorted(entry.name for entry in await store.list()), ["empty", "large.bin", "small.txt"])

    await store.delete("large.bin")
    await check_error("deleted", store.get("large.bin"), (ObjectDeletedError, ObjectNotFoundError))
    await check_error("never there", store.get("other"), ObjectNotFoundError)
    info = await js.stream_info("OBJ_files", subjects_filter="$O.files.C.>")
    check("chunks are gone", sum((info.state.subjects or {}).values()), 1)
    await watcher.stop()

    await store.seal()
    check("sealed", (await store.status()).sealed, True)
    check("delete bucket", await js.delete_object_store("files"), True)


run(scenario)
