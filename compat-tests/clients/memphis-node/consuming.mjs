// Consuming with memphis-dev.

import { check, checkError, connect, eventually, run, texts } from "./scenario.mjs";

async function filled(memphis, name, count, options = {}) {
  await memphis.station({ name, ...options });
  const producer = await memphis.producer({ stationName: name, producerName: "producer" });
  for (let n = 1; n <= count; n++) await producer.produce({ message: `${n}`, asyncProduce: false });
  return producer;
}

async function settled(jsm, station, group, sequence) {
  await eventually(`${group} settled ${sequence}`, async () => {
    const info = await jsm.consumers.info(`${station}$1`, group);
    return info.num_ack_pending === 0 && info.ack_floor.stream_seq === sequence;
  });
}

async function groups(memphis, jsm) {
  const producer = await filled(memphis, "js-groups", 6);
  const first = await memphis.consumer({ stationName: "js-groups", consumerName: "a", consumerGroup: "Grp.One", maxAckTimeMs: 5000, maxMsgDeliveries: 3 });
  const second = await memphis.consumer({ stationName: "js-groups", consumerName: "b", consumerGroup: "two" });
  const { config } = await jsm.consumers.info("js-groups$1", "grp#one");
  check("durable", [config.filter_subject, config.ack_policy, config.ack_wait, config.max_deliver, config.max_ack_pending], ["js-groups$1.final", "explicit", 5e9, 3, -1]);
  for (const [consumer, group] of [[first, "grp#one"], [second, "two"]]) {
    const messages = await consumer.fetch({ batchSize: 6 });
    check(`${group} gets everything`, texts(messages), ["1", "2", "3", "4", "5", "6"]);
    check(`${group} sequences`, messages.map((m) => m.getSequenceNumber()), [1, 2, 3, 4, 5, 6]);
    check(`${group} time`, Math.abs(messages[0].getTimeSent() - Date.now()) < 60000, true);
    for (const message of messages) message.ack();
    await settled(jsm, "js-groups", group, 6);
  }

  const other = await connect();
  const third = await other.consumer({ stationName: "js-groups", consumerName: "c", consumerGroup: "two", batchMaxTimeToWaitMs: 5000 });
  const fourth = await other.consumer({ stationName: "js-groups", consumerName: "d", consumerGroup: "two", batchMaxTimeToWaitMs: 5000 });
  const fetches = [third, fourth].map((consumer) => consumer.fetch({ batchSize: 1 }));
  await eventually("both members wait", async () => (await jsm.consumers.info("js-groups$1", "two")).num_waiting === 2);
  await producer.produce({ message: "7", asyncProduce: false });
  await producer.produce({ message: "8", asyncProduce: false });
  const shared = (await Promise.all(fetches)).flat();
  check("members share", texts(shared).sort(), ["7", "8"]);
  for (const message of shared) message.ack();
  await settled(jsm, "js-groups", "two", 8);
  await third.destroy();
  await fourth.destroy();
  check("one member left", (await jsm.consumers.info("js-groups$1", "two")).name, "two");
  await second.destroy();
  await checkError("last member gone", jsm.consumers.info("js-groups$1", "two"), /consumer not found/);
  await other.close();
}

async function settling(memphis, jsm) {
  await filled(memphis, "js-settling", 5);
  const consumer = await memphis.consumer({ stationName: "js-settling", consumerName: "c", consumerGroup: "g", maxAckTimeMs: 2000, maxMsgDeliveries: 5 });
  const [one, two, three, four, five] = await consumer.fetch({ batchSize: 5 });
  one.ack();
  two.nack();
  let [again] = await consumer.fetch({ batchSize: 1 });
  check("nack", texts([again]), ["2"]);
  again.ack();
  const started = Date.now();
  three.delay(300);
  four.ack();
  five.deadLetter("no use");
  [again] = await consumer.fetch({ batchSize: 1 });
  check("delay", [...texts([again]), Date.now() - started >= 280], ["3", true]);
  again.ack();
  await settled(jsm, "js-settling", "g", 5);

  await filled(memphis, "js-deliveries", 1);
  const twice = await memphis.consumer({ stationName: "js-deliveries", consumerName: "c", consumerGroup: "g", maxAckTimeMs: 300, maxMsgDeliveries: 2 });
  const seen = [];
  for (let n = 0; n < 3; n++) seen.push(texts(await twice.fetch({ batchSize: 1 })));
  check("delivered twice and no more", seen, [["1"], ["1"], []]);
}

async function positions(memphis, jsm) {
  await filled(memphis, "js-positions", 5);
  const cases = [
    ["all", {}, ["all", ["1", "2", "3", "4", "5"]]],
    ["from", { startConsumeFromSequence: 3 }, ["by_start_sequence", ["3", "4", "5"]]],
    ["last-two", { lastMessages: 2 }, ["by_start_sequence", ["4", "5"]]],
    ["only-new", { lastMessages: 0 }, ["new", []]],
  ];
  for (const [group, options, expected] of cases) {
    const consumer = await memphis.consumer({ stationName: "js-positions", consumerName: group, consumerGroup: group, ...options });
    const { config } = await jsm.consumers.info("js-positions$1", group);
    const count = expected[1].length;
    check(group, [config.deliver_policy, count ? texts(await consumer.fetch({ batchSize: count })) : []], expected);
  }
}

async function partitionsAndCallbacks(memphis, jsm) {
  const producer = await filled(memphis, "js-parts", 6, { partitionsNumber: 3 });
  const consumer = await memphis.consumer({ stationName: "js-parts", consumerName: "c", consumerGroup: "g" });
  const seen = [];
  for (let n = 0; n < 3; n++) seen.push(texts(await consumer.fetch({ batchSize: 2 })));
  check("one partition per fetch, in turn", seen, [["1", "4"], ["2", "5"], ["3", "6"]]);

  const listener = await memphis.consumer({ stationName: "js-parts", consumerName: "d", consumerGroup: "h", pullIntervalMs: 100 });
  const heard = new Set();
  let failed;
  listener.on("error", (error) => (failed = error));
  listener.on("message", (message) => {
    heard.add(message.getData().toString());
    message.ack();
  });
  await producer.produce({ message: "7", asyncProduce: false });
  await eventually("all partitions are heard", async () => heard.size === 7, 15000);
  check("callback", [[...heard].sort(), failed?.message], [["1", "2", "3", "4", "5", "6", "7"], undefined]);
  await listener.destroy();
  await checkError("durables are gone", jsm.consumers.info("js-parts$3", "h"), /consumer not found/);
}

await run(async (memphis, jsm) => {
  for (const part of [groups, settling, positions, partitionsAndCallbacks]) await part(memphis, jsm);
});
