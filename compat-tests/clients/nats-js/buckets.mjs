// Key/value and object buckets with nats.js.

import { Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import { check, checkError, run, take } from "./scenario.mjs";

async function keyValue(nc) {
  const kvm = new Kvm(nc);
  const kv = await kvm.create("bucket", { history: 5 });
  check("put", await kv.put("a", "1"), 1);
  const entry = await kv.get("a");
  check("get", [entry.key, entry.string(), entry.revision, entry.operation], ["a", "1", 1, "PUT"]);
  check("unknown", await kv.get("b"), null);
  check("update", await kv.update("a", "2", 1), 2);
  await checkError("stale update", kv.update("a", "3", 1), { code: 10071 });
  check("create", await kv.create("b.c", "new"), 3);
  await checkError("create again", kv.create("b.c", "no"), {});
  check("old revision", (await kv.get("a", { revision: 1 })).string(), "1");
  const watch = await kv.watch();
  check("watch begins with the state", (await take(watch, 2)).map((e) => [e.key, e.revision]), [["a", 2], ["b.c", 3]]);
  await kv.delete("a");
  check("watch goes on", (await take(watch, 1)).map((e) => [e.key, e.operation]), [["a", "DEL"]]);
  watch.stop();
  check("deleted", (await kv.get("a")).operation, "DEL");
  check("history", (await take(await kv.history({ key: "a" }), 3)).map((e) => e.operation), ["PUT", "PUT", "DEL"]);
  const keys = [];
  for await (const key of await kv.keys()) keys.push(key);
  check("keys", keys, ["b.c"]);
  await kv.purge("b.c");
  check("purged", (await kv.get("b.c")).operation, "PURGE");
  const status = await kv.status();
  check("status", [status.bucket, status.history, status.values], ["bucket", 5, 4]);
  check("destroy", await kv.destroy(), true);
}

async function objects(nc) {
  const objm = new Objm(nc);
  const store = await objm.create("files");
  const large = new Uint8Array(3_000_017);
  for (let n = 0, state = 1; n < large.length; n++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    large[n] = state >>> 24;
  }
  const info = await store.putBlob({ name: "large", description: "three megabytes" }, large);
  check("put", [info.size, info.chunks], [large.length, 23]);
  const back = await store.getBlob("large");
  check("get", Buffer.compare(back, large), 0);
  await store.putBlob({ name: "small" }, new TextEncoder().encode("hello"));
  check("list", (await store.list()).map((i) => i.name).sort(), ["large", "small"]);
  const watch = await store.watch({ includeHistory: true });
  check("watch", (await take(watch, 2)).map((i) => i.name), ["large", "small"]);
  watch.stop();
  await store.delete("large");
  check("deleted", await store.getBlob("large"), null);
  check("never there", await store.get("other"), null);
  check("destroy", await store.destroy(), true);
}

await run(async (nc) => {
  await keyValue(nc);
  await objects(nc);
});
