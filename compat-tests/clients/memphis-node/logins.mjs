// Stored users with memphis-dev: by password, by token, of another tenant; and when they are gone.

import { wsconnect } from "@nats-io/nats-core";
import { connect as natsConnect } from "@nats-io/transport-node";
import { ask, check, checkError, connect, eventually, run } from "./scenario.mjs";

const password = "Secret-1!";

run(async (memphis) => {
  const root = await natsConnect({
    servers: `${process.env.MEMPHIS_HOST}:${process.env.MEMPHIS_PORT}`,
    user: process.env.NATS_USER,
    pass: process.env.NATS_PASSWORD,
  });
  const { token } = await ask(root, "USER.CREATE", { user: "node", password, token: true });
  const { id } = await ask(root, "TENANT.CREATE", { tenant: "other" });
  await ask(root, "USER.CREATE", { user: "node", password, tenant: "other" });

  const byPassword = await connect({ username: "node", password });
  const byToken = await connect({ username: "node", password: "", connectionToken: token });
  const elsewhere = await connect({ username: "node", password, accountId: id });
  const consumerOptions = { stationName: "logins", consumerName: "c", consumerGroup: "g" };
  for (const [label, client] of [["password", byPassword], ["token", byToken], ["tenant", elsewhere]]) {
    const producer = await client.producer({ stationName: "logins", producerName: label });
    await producer.produce({ message: Buffer.from(label) });
  }
  check("stations of the default tenant", (await ask(root, "STATUS")).stations, 1);
  const consumer = await elsewhere.consumer(consumerOptions);
  const seen = [];
  await eventually("consumed", async () => {
    for (const message of await consumer.fetch({ batchSize: 10 })) {
      seen.push(message.getData().toString());
      message.ack();
    }
    return seen.length > 0;
  }, 20000);
  check("only what its tenant produced", seen, ["tenant"]);

  await checkError("wrong password", connect({ username: "node", password: "Wrong-1!" }), /Authorization Violation/);
  await checkError(
    "wrong token",
    connect({ username: "node", password: "", connectionToken: "mnt_wrong" }),
    /Authorization Violation/,
  );
  await checkError("the token of another", connect({ username: "root", password: "", connectionToken: `root::${token}` }), /Authorization Violation/);

  const overWebSocket = (options) => wsconnect({ servers: process.env.WS_URL, reconnect: false, ...options });
  const page = await overWebSocket({ user: "node", pass: password });
  await (await overWebSocket({ token })).close();
  await checkError("over WebSocket", overWebSocket({ user: "node", pass: "Wrong-1!" }), /uthorization/);

  await ask(root, "USER.DELETE", { user: "node" });
  await page.closed();
  await eventually("both connections end", async () => !byPassword.isConnected() && !byToken.isConnected(), 20000);
  check("that of the other tenant stays", elsewhere.isConnected(), true);
  await checkError("gone", connect({ username: "node", password }), /Authorization Violation/);
  await elsewhere.close();
  await root.close();
});
