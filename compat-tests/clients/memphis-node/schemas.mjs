// Schemas with memphis-dev: made, given, checked by the SDK and by the server, taken away.

import { writeFileSync } from "node:fs";
import { connect as natsConnect } from "@nats-io/transport-node";
import { ask, check, checkError, eventually, run } from "./scenario.mjs";

const person = '{"type":"object","properties":{"f":{"type":"string"}},"required":["f"]}';

run(async (memphis) => {
  const nc = await natsConnect({
    servers: `${process.env.MEMPHIS_HOST}:${process.env.MEMPHIS_PORT}`,
    user: process.env.NATS_USER,
    pass: process.env.NATS_PASSWORD,
  });
  const path = `${process.env.SCENARIO_DIR}/person.json`;
  writeFileSync(path, person);
  await memphis.station({ name: "js.schema" });
  const producer = await memphis.producer({ stationName: "js.schema", producerName: "prod" });
  await memphis.createSchema({ schemaName: "js-person", schemaType: "json", schemaFilePath: path });
  await memphis.createSchema({ schemaName: "js-person", schemaType: "json", schemaFilePath: path });
  await memphis.enforceSchema({ name: "js-person", stationName: "js.schema" });
  const produce = (message) => producer.produce({ message, asyncProduce: false });
  await eventually("the SDK checks", async () => {
    try {
      await produce({ g: 1 });
      return false;
    } catch (error) {
      return /Schema validation has failed/.test(error.message);
    }
  });
  await produce({ f: "x" });
  const letters = async () => (await ask(nc, "DEAD_LETTER.LIST", { station: "js.schema" })).dead_letters;
  await eventually("kept", async () => (await letters()).length >= 1, 10000);
  const reply = await nc.request("js#schema$1.final", "no JSON", { timeout: 5000 });
  check("the server refuses", [reply.json().error.code, /^Schema validation has failed/.test(reply.json().error.description)], [400, true]);
  await checkError("unknown", memphis.enforceSchema({ name: "nothing", stationName: "js.schema" }), /does not exist/);
  await memphis.detachSchema({ stationName: "js.schema" });
  await eventually("anything goes", async () => {
    try {
      await produce({ g: 1 });
      return true;
    } catch {
      return false;
    }
  });
  await nc.close();
});
