// What every memphis-dev scenario shares: connections, checks, a look behind the scenes.
//
// Behind the scenes means the same server's JetStream, through nats.js.

import assert from "node:assert/strict";
import memphisDev from "memphis-dev";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect as natsConnect } from "@nats-io/transport-node";

export function note(label, seen) {
  console.log(`${label}: ${typeof seen === "string" ? seen : JSON.stringify(seen)}`);
}

/** Prints what was seen and fails the scenario if it is not what was expected. */
export function check(label, seen, expected) {
  note(label, seen);
  assert.deepEqual(seen, expected, label);
}

/** Expects a rejection whose text matches. */
export async function checkError(label, promise, pattern) {
  let error;
  try {
    await promise;
  } catch (thrown) {
    error = thrown;
  }
  assert.ok(error, `${label}: expected an error`);
  note(label, error.message);
  assert.match(error.message, pattern, label);
}

/** Repeats a question until its answer is true. */
export async function eventually(label, probe, limit = 15000) {
  const deadline = Date.now() + limit;
  while (!(await probe())) {
    assert.ok(Date.now() < deadline, `${label}: not within ${limit} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** An SDK connection as the server's user. */
export async function connect(options = {}) {
  const memphis = memphisDev.createMemphisInstance();
  await memphis.connect({
    host: process.env.MEMPHIS_HOST,
    port: Number(process.env.MEMPHIS_PORT),
    username: process.env.NATS_USER,
    password: process.env.NATS_PASSWORD,
    suppressLogs: true,
    ...options,
  });
  return memphis;
}

/** A request to the broker's own interface. */
export async function ask(nc, what, body = {}) {
  const reply = await nc.request(`$MENES.API.${what}`, JSON.stringify(body), { timeout: 10000 });
  const answer = reply.json();
  assert.ok(!answer.error, `${what}: ${answer.error?.description}`);
  return answer;
}

/** Whether nats-server and the stand-in control plane answer, not the server under test. */
export const isReference = process.env.MENES_TEST_SERVER === "nats-server";

export const texts = (messages) => messages.map((message) => message.getData().toString());

/** Runs a scenario with an SDK connection and a look behind the scenes; ends the process. */
export async function run(scenario) {
  const memphis = await connect();
  const behind = await natsConnect({
    servers: `${process.env.MEMPHIS_HOST}:${process.env.MEMPHIS_PORT}`,
    user: process.env.NATS_USER,
    pass: process.env.NATS_PASSWORD,
  });
  await scenario(memphis, await jetstreamManager(behind));
  await behind.close();
  await memphis.close();
  // Timers of the SDK would keep the process alive.
  process.exit(0);
}
