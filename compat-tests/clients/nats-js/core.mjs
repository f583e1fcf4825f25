// Core NATS with nats.js.

import { headers } from "@nats-io/nats-core";
import { check, checkError, connect, note, run, take } from "./scenario.mjs";

const text = (messages) => messages.map((m) => m.string());

async function logins() {
  await checkError("wrong password", connect({ pass: "wrong", reconnect: false }), { name: "AuthorizationError" });
  await checkError("no password", connect({ user: undefined, pass: undefined, reconnect: false }), { name: "AuthorizationError" });
}

async function subjects(nc) {
  const star = nc.subscribe("w.*.b");
  const tail = nc.subscribe("w.>", { max: 3 });
  for (const subject of ["w.a.b", "w.a", "w.x.b", "other"]) nc.publish(subject, subject);
  await nc.flush();
  check("star", text(await take(star, 2)), ["w.a.b", "w.x.b"]);
  check("tail", text(await take(tail, 3)), ["w.a.b", "w.a", "w.x.b"]);
  star.unsubscribe();
}

async function queues(nc) {
  const other = await connect();
  const counts = [0, 0, 0];
  const done = new Promise((resolve) => {
    [nc, nc, other].forEach((connection, member) => {
      const callback = () => {
        counts[member] += 1;
        if (counts[0] + counts[1] + counts[2] === 90) resolve();
      };
      connection.subscribe("work", { queue: "group", callback });
    });
  });
  await nc.flush();
  await other.flush();
  for (let n = 0; n < 90; n++) nc.publish("work");
  await done;
  check("each member of a queue group works", counts.every((count) => count > 0), true);
  await other.close();
}

async function requests(nc) {
  nc.subscribe("echo", {
    callback: (_, msg) => {
      const h = headers();
      h.set("Seen", msg.headers?.get("Key") ?? "none");
      h.append("Twice", "1");
      h.append("Twice", "2");
      msg.respond(msg.data, { headers: h });
    },
  });
  const h = headers();
  h.set("Key", "value");
  const reply = await nc.request("echo", "hello", { headers: h, timeout: 5000 });
  check("reply", [reply.string(), reply.headers.get("Seen"), reply.headers.values("Twice")], ["hello", "value", ["1", "2"]]);
  const own = await nc.request("echo", "own inbox", { noMux: true, timeout: 5000 });
  check("own inbox", own.string(), "own inbox");
  await checkError("nobody there", nc.request("nobody", "", { timeout: 5000 }), { name: "RequestError" });
  const many = await nc.requestMany("echo", "many", { strategy: "count", maxMessages: 1, maxWait: 5000 });
  check("request many", text(await take(many, 1)), ["many"]);
}

async function sizes(nc) {
  check("max payload", nc.info.max_payload, 1048576);
  const sub = nc.subscribe("large");
  const large = new Uint8Array(1048576).fill(7);
  nc.publish("large", large);
  nc.publish("large");
  const [first, second] = await take(sub, 2);
  check("largest and smallest", [first.data.length, first.data.every((byte) => byte === 7), second.data.length], [1048576, true, 0]);
  sub.unsubscribe();
  check("a round trip takes time", (await nc.rtt()) >= 0, true);
}

async function draining(nc) {
  const other = await connect({ noEcho: true });
  let seen = 0;
  other.subscribe("drain", { callback: () => (seen += 1) });
  await other.flush();
  other.publish("drain", "own");
  await other.flush();
  for (let n = 0; n < 50; n++) nc.publish("drain");
  await nc.flush();
  await other.flush();
  await other.drain();
  check("drained, without its own", seen, 50);
  note("closed", other.isClosed());
}

await run(async (nc) => {
  for (const part of [logins, subjects, queues, requests, sizes, draining]) await part(nc);
});
