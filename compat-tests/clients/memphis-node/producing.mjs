// Logins, stations and producing with memphis-dev.

import { check, checkError, connect, eventually, isReference, run } from "./scenario.mjs";

async function logins(memphis) {
  check("connected", memphis.isConnected(), true);
  // The account id makes the SDK ask for <user>$7 first; it then falls back to the bare name.
  const fallback = await connect({ accountId: 7 });
  check("bare name", fallback.isConnected(), true);
  await fallback.close();
  await checkError("wrong password", connect({ password: "wrong" }), /Authorization Violation/);
  await checkError("no credentials", connect({ password: "" }), /connection token \/ password/);
}

async function stations(memphis, jsm) {
  const { MAX_MESSAGE_AGE_SECONDS, MESSAGES, BYTES, ACK_BASED } = memphis.retentionTypes;
  const cases = [
    ["by-age", MAX_MESSAGE_AGE_SECONDS, 7200, { max_age: 7200e9 }],
    ["by-count", MESSAGES, 50, { max_msgs: 50 }],
    ["by-size", BYTES, 100000, { max_bytes: 100000 }],
    ["by-ack", ACK_BASED, 0, { retention: "interest" }],
  ];
  for (const [name, retentionType, retentionValue, expected] of cases) {
    for (const storageType of [memphis.storageTypes.DISK, memphis.storageTypes.MEMORY]) {
      for (const partitionsNumber of [1, 3]) {
        const station = `${name}-${storageType}-${partitionsNumber}`;
        for (let twice = 0; twice < 2; twice++) {
          await memphis.station({ name: station, retentionType, retentionValue, storageType, partitionsNumber });
        }
        for (let p = 1; p <= partitionsNumber; p++) {
          const { config } = await jsm.streams.info(`${station}$${p}`);
          const wanted = { subjects: [`${station}$${p}.>`], storage: storageType, ...expected };
          const seen = Object.fromEntries(Object.keys(wanted).map((key) => [key, config[key]]));
          check(`stream ${station}$${p}`, seen, wanted);
        }
      }
    }
  }
  const station = await memphis.station({ name: "js.station" });
  check("internal name", (await jsm.streams.info("js#station$1")).config.subjects, ["js#station$1.>"]);
  await station.destroy();
  await checkError("destroyed", jsm.streams.info("js#station$1"), /stream not found/);
  await station.destroy();
  await checkError("odd characters", memphis.station({ name: "odd$name" }), /Only alphanumeric and the '_', '-', '\.' characters are allowed in Station/);
}

async function producing(memphis, jsm) {
  await memphis.station({ name: "js-one", idempotencyWindowMs: 60000 });
  const producer = await memphis.producer({ stationName: "js-one", producerName: "Prod.J" });
  const headers = memphis.headers();
  headers.add("key", "value");
  await producer.produce({ message: Buffer.from("bytes"), headers, asyncProduce: false });
  await producer.produce({ message: { json: 1 }, asyncProduce: false });
  await producer.produce({ message: "text", asyncProduce: false });
  const stored = await jsm.streams.getMessage("js-one$1", { seq: 1 });
  check("subject and payload", [stored.subject, stored.string()], ["js-one$1.final", "bytes"]);
  check("headers", Object.fromEntries([...stored.header].map(([key, values]) => [key, values[0]])), {
    key: "value", $memphis_connectionId: memphis.connectionId, $memphis_producedBy: "prod.j",
  });
  for (let n = 0; n < 3; n++) await producer.produce({ message: "same", msgId: "id", asyncProduce: false });
  const state = async () => (await jsm.streams.info("js-one$1")).state.messages;
  const before = isReference ? 6 : 4; // nats-server does not know msg-id
  check("deduplicated", await state(), before);
  for (let n = 0; n < 200; n++) await producer.produce({ message: `async ${n}` });
  await eventually("not awaited", async () => (await state()) === before + 200);

  await memphis.station({ name: "js-three", partitionsNumber: 3 });
  const three = await memphis.producer({ stationName: "js-three", producerName: "producer" });
  for (let n = 0; n < 4; n++) await three.produce({ message: `${n}`, asyncProduce: false });
  await three.produce({ message: "by number", producerPartitionNumber: 2, asyncProduce: false });
  // This SDK takes the hash modulo the number of partitions as the number itself: 2 for this key.
  await three.produce({ message: "by key", producerPartitionKey: "some-key", asyncProduce: false });
  const counts = await Promise.all([1, 2, 3].map(async (p) => (await jsm.streams.info(`js-three$${p}`)).state.messages));
  check("partitions", counts, [2, 3, 1]);

  await memphis.produce({ stationName: "js-made", producerName: "first", message: "made", asyncProduce: false });
  check("made by a producer", (await jsm.streams.info("js-made$1")).state.messages, 1);
  await three.destroy();
  await producer.destroy();
}

await run(async (memphis, jsm) => {
  await logins(memphis);
  await stations(memphis, jsm);
  await producing(memphis, jsm);
});
