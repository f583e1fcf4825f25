// memphis-dev consumes what a NATS client published: station, expected text.

import assert from "node:assert/strict";
import memphisDev from "memphis-dev";

const [station, text] = process.argv.slice(2);
const memphis = memphisDev.createMemphisInstance();
await memphis.connect({
  host: process.env.MEMPHIS_HOST, port: Number(process.env.MEMPHIS_PORT),
  username: process.env.NATS_USER, password: process.env.NATS_PASSWORD, suppressLogs: true,
});
const consumer = await memphis.consumer({ stationName: station, consumerName: "c", consumerGroup: "memphis-dev" });
const messages = await consumer.fetch({ batchSize: 2 });
const seen = messages.map((message) => message.getData().toString());
console.log(JSON.stringify(seen));
assert.equal(seen.at(-1), text);
for (const message of messages) message.ack();
await memphis.close();
process.exit(0);
