// What every nats.js scenario shares: the connection, the checks, and what gets printed.

import assert from "node:assert/strict";
import { connect as tcpConnect } from "@nats-io/transport-node";
import { wsconnect } from "@nats-io/nats-core";

/** Prints what was seen. */
export function note(label, value) {
  console.log(`${label}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
}

/** Prints what was seen and fails the scenario if it is not what was expected. */
export function check(label, seen, expected) {
  note(label, seen);
  assert.deepEqual(seen, expected, label);
}

/** Expects a rejection; prints its class and codes, and compares the given ones. */
export async function checkError(label, promise, expected) {
  let error;
  try {
    await promise;
  } catch (thrown) {
    error = thrown;
  }
  assert.ok(error, `${label}: expected an error`);
  const seen = { name: error.name };
  for (const key of ["code", "status"]) if (error[key] !== undefined) seen[key] = error[key];
  note(label, seen);
  for (const [key, value] of Object.entries(expected)) {
    assert.deepEqual(error[key], value, `${label}: ${key} of ${error.stack}`);
  }
}

/** Repeats a question until its answer is true. */
export async function eventually(label, probe, limit = 15000) {
  const deadline = Date.now() + limit;
  while (!(await probe())) {
    assert.ok(Date.now() < deadline, `${label}: not within ${limit} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// An iterable of nats.js can be iterated once; later takes go on where earlier ones stopped.
const iterators = new WeakMap();

/** The next `count` elements of an async iterable; fails if they take too long. */
export async function take(iterable, count, limit = 15000) {
  const seen = [];
  if (!iterators.has(iterable)) iterators.set(iterable, iterable[Symbol.asyncIterator]());
  const iterator = iterators.get(iterable);
  while (seen.length < count) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`only ${seen.length} of ${count} came`)), limit);
    });
    const { value, done } = await Promise.race([iterator.next(), late]);
    clearTimeout(timer);
    if (done) break;
    seen.push(value);
  }
  return seen;
}

/** Connects as the server's user: over TCP, or over WebSocket if TRANSPORT is ws. */
export function connect(options = {}) {
  const overWebSocket = process.env.TRANSPORT === "ws";
  const tls = !overWebSocket && process.env.NATS_CA ? {
    tls: {
      caFile: process.env.NATS_CA, certFile: process.env.NATS_CERT, keyFile: process.env.NATS_KEY,
      handshakeFirst: process.env.TLS_FIRST === "1",
    },
  } : {};
  return (overWebSocket ? wsconnect : tcpConnect)({
    ...tls,
    servers: overWebSocket ? process.env.WS_URL : process.env.NATS_URL,
    user: process.env.NATS_USER,
    pass: process.env.NATS_PASSWORD,
    ...options,
  });
}

/** Runs a scenario on a connection of its own. */
export async function run(scenario) {
  const nc = await connect();
  try {
    await scenario(nc);
  } finally {
    await nc.close();
  }
}
