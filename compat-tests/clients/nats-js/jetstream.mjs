// JetStream with nats.js: publishing, streams, pull, push and ordered consumers.

import {
  AckPolicy, DeliverPolicy, DiscardPolicy, jetstream, jetstreamManager, RetentionPolicy, StorageType,
} from "@nats-io/jetstream";
import { nanos } from "@nats-io/nats-core";
import { check, checkError, eventually, note, run, take } from "./scenario.mjs";

const numbers = (messages) => messages.map((m) => Number(m.string()));

async function fill(jsm, js, name, count) {
  await jsm.streams.add({ name, subjects: [`${name}.*`], allow_direct: true });
  for (let n = 1; n <= count; n++) await js.publish(`${name}.${n % 2}`, `${n}`);
}

async function publishing(jsm, js) {
  await fill(jsm, js, "PUB", 0);
  const first = await js.publish("PUB.a", "1");
  check("ack", [first.stream, first.seq, first.duplicate], ["PUB", 1, false]);
  const one = await js.publish("PUB.a", "2", { msgID: "id" });
  const two = await js.publish("PUB.a", "2", { msgID: "id" });
  check("duplicate", [one.seq, two.seq, two.duplicate], [2, 2, true]);
  await checkError("wrong last sequence", js.publish("PUB.a", "3", { expect: { lastSequence: 9 } }), { name: "JetStreamApiError", code: 10071 });
  check("right last sequence", (await js.publish("PUB.a", "3", { expect: { lastSequence: 2, streamName: "PUB" } })).seq, 3);
  await checkError("wrong stream", js.publish("PUB.a", "4", { expect: { streamName: "OTHER" } }), { code: 10060 });
  await checkError("nobody listens", js.publish("elsewhere", "", { retries: 0 }), { name: "JetStreamNotEnabled" });
  const acks = await Promise.all(Array.from({ length: 500 }, (_, n) => js.publish("PUB.b", `${n}`)));
  check("five hundred acks in order", acks.every((ack, n) => ack.seq === 4 + n), true);
}

async function streams(jsm, js) {
  await fill(jsm, js, "READ", 6);
  const names = await jsm.streams.names().next();
  check("names", names.sort(), ["PUB", "READ"]);
  check("found by subject", await jsm.streams.find("READ.1"), "READ");
  const third = await jsm.streams.getMessage("READ", { seq: 3 });
  check("by sequence", [third.seq, third.subject, third.string()], [3, "READ.1", "3"]);
  check("last of a subject", (await jsm.streams.getMessage("READ", { last_by_subj: "READ.0" })).seq, 6);
  check("beyond the end", await jsm.streams.getMessage("READ", { seq: 99 }), null);
  check("direct", (await jsm.direct.getMessage("READ", { seq: 3 })).string(), "3");
  check("direct next", (await jsm.direct.getMessage("READ", { seq: 3, next_by_subj: "READ.0" })).seq, 4);
  const batch = await jsm.direct.getBatch("READ", { seq: 2, batch: 3 });
  check("direct batch", (await take(batch, 3)).map((m) => m.seq), [2, 3, 4]);
  check("delete", await jsm.streams.deleteMessage("READ", 3), true);
  const info = await jsm.streams.info("READ", { deleted_details: true, subjects_filter: ">" });
  check("deleted", [info.state.messages, info.state.deleted, info.state.subjects], [5, [3], { "READ.0": 3, "READ.1": 2 }]);
  check("purge a subject", (await jsm.streams.purge("READ", { filter: "READ.0", keep: 1 })).purged, 2);
  const updated = await jsm.streams.update("READ", { max_msgs: 2 });
  check("updated", [updated.config.max_msgs, updated.state.messages], [2, 2]);
  await checkError("missing stream", jsm.streams.info("NONE"), { name: "StreamNotFoundError", code: 10059 });
  await jsm.streams.add({ name: "NEW", subjects: ["new"], max_msgs: 1, discard: DiscardPolicy.New, storage: StorageType.Memory });
  await js.publish("new", "1");
  await checkError("discard new", js.publish("new", "2"), { code: 10077 });
  await jsm.streams.add({ name: "WORK", subjects: ["work"], retention: RetentionPolicy.Workqueue });
  await js.publish("work", "1");
  await jsm.consumers.add("WORK", { durable_name: "w", ack_policy: AckPolicy.Explicit });
  await (await (await js.consumers.get("WORK", "w")).next({ expires: 5000 })).ackAck();
  check("work queue", (await jsm.streams.info("WORK")).state.messages, 0);
  note("account", (({ streams, consumers }) => ({ streams, consumers }))(await jsm.getAccountInfo()));
  for (const name of ["READ", "NEW", "WORK"]) check(`delete ${name}`, await jsm.streams.delete(name), true);
}

async function pulling(jsm, js) {
  await fill(jsm, js, "PULL", 8);
  await jsm.consumers.add("PULL", { durable_name: "d", ack_policy: AckPolicy.Explicit, ack_wait: nanos(5000) });
  const consumer = await js.consumers.get("PULL", "d");
  // All are handed out, so that only what is redelivered can come again.
  const [one, two, three, four, ...rest] = await take(await consumer.fetch({ max_messages: 8, expires: 5000 }), 8);
  check("metadata", [one.info.stream, one.info.consumer, one.seq, one.info.deliveryCount, one.info.pending], ["PULL", "d", 1, 1, 7]);
  check("acknowledged", await one.ackAck(), true);
  two.nak();
  const again = await consumer.next({ expires: 5000 });
  check("nak", [Number(again.string()), again.info.deliveryCount], [2, 2]);
  again.ack();
  const started = Date.now();
  three.nak(200);
  four.term("no use");
  for (const msg of rest) msg.ack();
  const delayed = await consumer.next({ expires: 5000 });
  check("nak with delay", [Number(delayed.string()), Date.now() - started >= 190], [3, true]);
  delayed.working();
  delayed.ack();
  await eventually("settled", async () => (await consumer.info()).ack_floor.stream_seq === 8);
  const info = await consumer.info();
  check("positions", [info.num_pending, info.num_ack_pending, info.delivered.stream_seq], [0, 0, 8]);
  check("nothing left", await consumer.next({ expires: 1000 }), null);
  await checkError("missing consumer", js.consumers.get("PULL", "none"), { code: 10014 });
}

async function consuming(jsm, js) {
  await jsm.streams.add({ name: "FLOW", subjects: ["flow"] });
  await jsm.consumers.add("FLOW", { durable_name: "d", ack_policy: AckPolicy.Explicit });
  const messages = await (await js.consumers.get("FLOW", "d")).consume({ max_messages: 50 });
  const publishing = (async () => {
    for (let n = 0; n < 1000; n++) await js.publish("flow", `${n}`);
  })();
  let next = 0;
  for await (const msg of messages) {
    if (Number(msg.string()) !== next) throw new Error(`expected ${next}, got ${msg.string()}`);
    msg.ack();
    next += 1;
    if (next === 1000) break;
  }
  await publishing;
  check("consumed in order", next, 1000);
  const ordered = await js.consumers.get("FLOW", { opt_start_seq: 901, deliver_policy: DeliverPolicy.StartSequence });
  const inOrder = await ordered.consume();
  check("ordered", numbers(await take(inOrder, 100)), Array.from({ length: 100 }, (_, n) => 900 + n));
  inOrder.stop();
}

async function pushing(nc, jsm, js) {
  await jsm.consumers.add("FLOW", {
    durable_name: "push", ack_policy: AckPolicy.Explicit, deliver_subject: "deliver.here",
    flow_control: true, idle_heartbeat: nanos(500), deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: 951,
  });
  const push = await js.consumers.getPushConsumer("FLOW", "push");
  const messages = await push.consume();
  const seen = await take(messages, 50);
  for (const msg of seen) await msg.ackAck();
  check("push", numbers(seen), Array.from({ length: 50 }, (_, n) => 950 + n));
  check("push positions", (await push.info()).ack_floor.stream_seq, 1000);
  messages.stop();
  const consumers = [];
  for await (const info of jsm.consumers.list("FLOW")) if (info.config.durable_name) consumers.push(info.name);
  check("list", consumers.sort(), ["d", "push"]);
  check("delete", await jsm.consumers.delete("FLOW", "push"), true);
}

await run(async (nc) => {
  const jsm = await jetstreamManager(nc);
  const js = jetstream(nc);
  await publishing(jsm, js);
  await streams(jsm, js);
  await pulling(jsm, js);
  await consuming(jsm, js);
  await pushing(nc, jsm, js);
});
