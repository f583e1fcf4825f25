// Dead letters with memphis-dev: given up with a reason, sent again, settled.

import { connect as natsConnect } from "@nats-io/transport-node";
import { ask, check, eventually, run, texts } from "./scenario.mjs";

run(async (memphis) => {
  const nc = await natsConnect({
    servers: `${process.env.MEMPHIS_HOST}:${process.env.MEMPHIS_PORT}`,
    user: process.env.NATS_USER,
    pass: process.env.NATS_PASSWORD,
  });
  const letters = async () => (await ask(nc, "DEAD_LETTER.LIST", { station: "js.st" })).dead_letters;
  await memphis.station({ name: "js.st" });
  const producer = await memphis.producer({ stationName: "js.st", producerName: "prod" });
  for (const text of ["a", "b"]) {
    await producer.produce({ message: Buffer.from(text), asyncProduce: false });
  }
  const consumer = await memphis.consumer({ stationName: "js.st", consumerName: "c", consumerGroup: "Grp.J" });
  const messages = await consumer.fetch({ batchSize: 2 });
  check("fetched", texts(messages), ["a", "b"]);
  await messages[0].deadLetter("why");
  messages[1].ack();
  await eventually("the dead letter is there", async () => (await letters()).length === 1, 10000);
  const [letter] = await letters();
  check("with its reason", [letter.group, letter.sequence, letter.reason], ["grp.j", 1, "why"]);
  check("resent", (await ask(nc, "DEAD_LETTER.RESEND", { station: "js.st" })).resent, 1);
  let again = [];
  await eventually("it comes again", async () => (again = await consumer.fetch({ batchSize: 1 })).length === 1, 10000);
  check("the same message", texts(again), ["a"]);
  again[0].ack();
  await eventually("settled", async () => (await letters()).length === 0, 10000);
  await nc.close();
});
