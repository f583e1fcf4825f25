// A page in Chromium publishes, subscribes, requests, and consumes from a stream.

import assert from "node:assert/strict";
import { inBrowser, login } from "./browser.mjs";

const seen = await inBrowser("everything", login);
for (const [label, value] of Object.entries(seen)) console.log(`${label}: ${JSON.stringify(value)}`);
assert.deepEqual(seen, {
  wrongPassword: "AuthorizationError",
  subscribed: ["page.a", "hello", "value"],
  large: [500000, true],
  empty: 0,
  reply: "echo hello",
  nobody: "RequestError",
  acks: true,
  fetched: true,
  consumed: true,
  floor: 200,
  ordered: [191, 192, 193, 194, 195, 196, 197, 198, 199, 200],
  watched: ["1", "2"],
});
