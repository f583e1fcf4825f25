// What runs inside the page: nats.js over WebSocket. Bundled by run.mjs, called by it.

import { wsconnect, headers } from "@nats-io/nats-core";
import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";

async function take(iterable, count) {
  const seen = [];
  for await (const value of iterable) {
    seen.push(value);
    if (seen.length === count) break;
  }
  return seen;
}

const connect = ({ servers, user, pass }) => wsconnect({ servers, user, pass });

/** Everything a page wants of a broker; returns what it saw. */
async function everything(login) {
  const seen = {};
  try {
    await connect({ ...login, pass: "wrong" });
    seen.wrongPassword = "accepted";
  } catch (error) {
    seen.wrongPassword = error.name;
  }

  const nc = await connect(login);
  const sub = nc.subscribe("page.*", { max: 3 });
  const h = headers();
  h.set("Key", "value");
  nc.publish("page.a", "hello", { headers: h });
  // Larger than one WebSocket frame, in either direction.
  nc.publish("page.b", new Uint8Array(500000).fill(7));
  nc.publish("page.c");
  const [first, large, empty] = await take(sub, 3);
  seen.subscribed = [first.subject, first.string(), first.headers.get("Key")];
  seen.large = [large.data.length, large.data.every((byte) => byte === 7)];
  seen.empty = empty.data.length;

  nc.subscribe("page-service", { callback: (_, msg) => msg.respond(`echo ${msg.string()}`) });
  seen.reply = (await nc.request("page-service", "hello", { timeout: 5000 })).string();
  seen.nobody = await nc.request("nobody", "", { timeout: 5000 }).catch((error) => error.name);

  const jsm = await jetstreamManager(nc);
  const js = jetstream(nc);
  await jsm.streams.add({ name: "PAGE", subjects: ["pages.*"] });
  const acks = await Promise.all(Array.from({ length: 200 }, (_, n) => js.publish("pages.x", `${n}`)));
  seen.acks = acks.every((ack, n) => ack.seq === n + 1);
  await jsm.consumers.add("PAGE", { durable_name: "page", ack_policy: AckPolicy.Explicit });
  const consumer = await js.consumers.get("PAGE", "page");
  const fetched = await take(await consumer.fetch({ max_messages: 50, expires: 5000 }), 50);
  for (const msg of fetched) msg.ack();
  seen.fetched = fetched.every((msg, n) => msg.string() === `${n}`);
  const consumed = await take(await consumer.consume({ max_messages: 30 }), 150);
  for (const msg of consumed) await msg.ackAck();
  seen.consumed = consumed.every((msg, n) => msg.string() === `${50 + n}`);
  seen.floor = (await consumer.info()).ack_floor.stream_seq;
  const ordered = await js.consumers.get("PAGE", { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: 191 });
  seen.ordered = (await take(await ordered.consume(), 10)).map((msg) => msg.seq);

  const kv = await new Kvm(nc).create("page");
  await kv.put("key", "1");
  const watch = await kv.watch({ key: "key" });
  seen.watched = [];
  for await (const entry of watch) {
    seen.watched.push(entry.string());
    if (seen.watched.length === 2) break;
    await kv.put("key", "2");
  }
  await nc.close();
  return seen;
}

/** Fetches messages of a durable consumer, acknowledges them; returns subject, headers, payload. */
async function consume({ login, stream, durable, count }) {
  const nc = await connect(login);
  const consumer = await jetstream(nc).consumers.get(stream, durable);
  const seen = [];
  for (const msg of await take(await consumer.fetch({ max_messages: count, expires: 10000 }), count)) {
    await msg.ackAck();
    seen.push({ subject: msg.subject, seq: msg.seq, data: msg.string(), headers: Object.fromEntries([...msg.headers]) });
  }
  await nc.close();
  return seen;
}

Object.assign(window, { everything, consume });
