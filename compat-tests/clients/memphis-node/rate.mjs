// How fast memphis-dev produces and consumes, for scripts/benchmarks-memphis.py. Prints JSON: of each
// part the seconds for a message, and those of this process's processor time. Usage: rate.mjs MESSAGES
// BYTES, with MEMPHIS_HOST, MEMPHIS_PORT, NATS_USER and NATS_PASSWORD set.

import { connect } from "./scenario.mjs";

const [count, size] = process.argv.slice(2).map(Number);
const memphis = await connect();
const stationName = `rate-${Date.now()}`;
await memphis.station({ name: stationName, retentionValue: 3600 });
const producer = await memphis.producer({ stationName, producerName: "p" });
const message = Buffer.alloc(size, "x");
const seconds = {};
const now = () => [performance.now() / 1000, process.cpuUsage()];
function note(part, [began, used], messages) {
  const cpu = process.cpuUsage(used);
  seconds[part] = [(performance.now() / 1000 - began) / messages, (cpu.user + cpu.system) / 1e6 / messages];
}

// One after the other: each waits for its acknowledgement.
const few = Math.max(Math.floor(count / 10), 1);
let began = now();
for (let n = 0; n < few; n++) await producer.produce({ message, asyncProduce: false });
note("one at a time", began, few);

// Many at a time.
const rounds = Math.floor(count / 100);
began = now();
for (let n = 0; n < rounds; n++) {
  await Promise.all(Array.from({ length: 100 }, () => producer.produce({ message, asyncProduce: false })));
}
note("100 at a time", began, rounds * 100);

const total = few + rounds * 100;
const consumer = await memphis.consumer({ stationName, consumerName: "c", consumerGroup: "g", batchSize: 500, maxAckTimeMs: 60000 });
began = now();
let taken = 0;
while (taken < total) {
  const messages = await consumer.fetch({ batchSize: Math.min(500, total - taken) });
  for (const one of messages) one.ack();
  taken += messages.length;
}
note("consume and ack", began, total);
console.log(JSON.stringify(seconds));
await memphis.close();
process.exit(0);
