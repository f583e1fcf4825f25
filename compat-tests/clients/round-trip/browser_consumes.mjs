// A page in Chromium consumes one message: stream, expected text.

import assert from "node:assert/strict";
import { connect } from "@nats-io/transport-node";
import { AckPolicy, jetstreamManager } from "@nats-io/jetstream";
import { inBrowser, login } from "../browser/browser.mjs";

const [stream, text] = process.argv.slice(2);
const nc = await connect({ servers: process.env.NATS_URL, user: login.user, pass: login.pass });
const jsm = await jetstreamManager(nc);
await jsm.consumers.add(stream, { durable_name: "browser", ack_policy: AckPolicy.Explicit });
await nc.close();
const [seen] = await inBrowser("consume", { login, stream, durable: "browser", count: 1 });
console.log(JSON.stringify(seen));
assert.equal(seen.data, text);
assert.equal(seen.headers.trip[0], "round");
assert.equal(seen.headers.$memphis_producedBy[0], "round.trip");
