// How fast memphis-dev produces and consumes, for scripts/benchmarks-memphis.py. Prints JSON: seconds
// of each part. Usage: rate.mjs MESSAGES BYTES, with MEMPHIS_HOST, MEMPHIS_PORT, NATS_USER and
// NATS_PASSWORD set.

import { connect } from "./scenario.mjs";

const [count, size] = process.argv.slice(2).map(Number);
const memphis = await connect();
const stationName = `rate-${Date.now()}`;
await memphis.station({ name: stationName, retentionValue: 3600 });
const producer = await memphis.producer({ stationName, producerName: "p" });
const message = Buffer.alloc(size, "x");
const seconds = {};

// One after the other: each waits for its acknowledgement.
const few = Math.max(Math.floor(count / 10), 1);
let began = performance.now();
for (let n = 0; n < few; n++) await producer.produce({ message, asyncProduce: false });
seconds["one at a time"] = (performance.now() - began) / 1000 / few;

// Many at a time.
const rounds = Math.floor(count / 100);
began = performance.now();
for (let n = 0; n < rounds; n++) {
  await Promise.all(Array.from({ length: 100 }, () => producer.produce({ message, asyncProduce: false })));
}
seconds["100 at a time"] = (performance.now() - began) / 1000 / (rounds * 100);

const total = few + rounds * 100;
const consumer = await memphis.consumer({ stationName, consumerName: "c", consumerGroup: "g", batchSize: 500, maxAckTimeMs: 60000 });
began = performance.now();
let taken = 0;
while (taken < total) {
  const messages = await consumer.fetch({ batchSize: Math.min(500, total - taken) });
  for (const one of messages) one.ack();
  taken += messages.length;
}
seconds["consume and ack"] = (performance.now() - began) / 1000 / total;
console.log(JSON.stringify(seconds));
await memphis.close();
process.exit(0);
