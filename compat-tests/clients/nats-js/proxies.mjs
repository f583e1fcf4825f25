// Users who must come through a proxy that signs the nonce, and proxies that are trusted or not.

import { readFileSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { join } from "node:path";
import { fromSeed } from "@nats-io/nkeys";
import { eventually, note } from "./scenario.mjs";

const url = new URL(process.env.NATS_URL);
const config = join(process.env.SCENARIO_DIR, "server.conf");
const log = join(process.env.SCENARIO_DIR, "server.log");
const seeds = JSON.parse(process.env.PROXY_SEEDS);
const pairs = Object.fromEntries(
  Object.entries(seeds).map(([name, seed]) => [name, fromSeed(new TextEncoder().encode(seed))]),
);
const nameOf = (key) => Object.keys(pairs).find((name) => pairs[name].getPublicKey() === key);

/** A connection below any client library, as a proxy has it. */
class Raw {
  async open() {
    this.lines = [];
    this.socket = createConnection({ host: url.hostname, port: url.port });
    let rest = "";
    this.socket.on("data", (data) => {
      const parts = (rest + data).split("\r\n");
      rest = parts.pop();
      this.lines.push(...parts);
    });
    this.socket.on("close", () => this.lines.push("closed"));
    this.socket.on("error", () => {});
    this.info = JSON.parse((await this.line()).slice(5));
    return this;
  }

  /** The next line that is no INFO. */
  async line() {
    await eventually("a line", () => this.lines.length > 0);
    const line = this.lines.shift();
    return this.info && line.startsWith("INFO") ? this.line() : line;
  }

  async connect(options) {
    const document = { verbose: false, pedantic: false, protocol: 1, ...options };
    this.socket.write(`CONNECT ${JSON.stringify(document)}\r\nPING\r\n`);
    const answer = await this.line();
    return answer === "PONG" ? answer : `${answer}, ${await this.line()}`;
  }

  signedBy(proxy) {
    const nonce = new TextEncoder().encode(this.info.nonce);
    return Buffer.from(pairs[proxy].sign(nonce)).toString("base64url");
  }
}

async function monitoring(path) {
  return (await fetch(process.env.MONITORING_URL + path)).json();
}

async function attempt(label, proxy, options) {
  const raw = await new Raw().open();
  const proxied = proxy === "rubbish" ? { proxy_sig: proxy } : proxy ? { proxy_sig: raw.signedBy(proxy) } : {};
  note(`${label} through ${proxy ?? "nobody"}`, await raw.connect({ ...options, ...proxied }));
  raw.socket.destroy();
}

const bound = { user: "bound", pass: "bound" };
const { proxies } = await monitoring("/varz");
note("varz", proxies.trusted.map(({ key }) => nameOf(key)));
for (const proxy of [undefined, "first", "second", "other", "rubbish"]) {
  await attempt("free user", proxy, { user: "free", pass: "free" });
  await attempt("bound user", proxy, bound);
  await attempt("bound user, wrong password", proxy, { ...bound, pass: "wrong" });
  await attempt("nobody", proxy, {});
}
await eventually("all have gone", async () => (await monitoring("/connz")).num_connections === 0);

const kept = await new Raw().open();
note("first stays", await kept.connect({ ...bound, proxy_sig: kept.signedBy("first") }));
const lost = await new Raw().open();
note("second stays", await lost.connect({ ...bound, proxy_sig: lost.signedBy("second") }));
const { connections } = await monitoring("/connz");
note("connz", connections.map((connection) => nameOf(connection.proxy.key)).sort());

const text = readFileSync(config, "utf8");
writeFileSync(config, text.replace(pairs.second.getPublicKey(), pairs.other.getPublicKey()));
const before = readFileSync(log, "utf8").length;
process.kill(Number(process.env.SERVER_PID), "SIGHUP");
const fresh = () => readFileSync(log, "utf8").slice(before);
await eventually("reloaded", () => fresh().includes("server configuration"));
for (const line of fresh().split("\n").filter((line) => line.includes("proxies trusted"))) {
  const names = Object.entries(pairs);
  const plain = names.reduce((text, [name, pair]) => text.replace(pair.getPublicKey(), name), line);
  note("log", plain.slice(plain.indexOf("Reloaded")));
}
note("removed proxy", [await lost.line(), await lost.line()]);
kept.socket.write("PING\r\n");
note("kept proxy", await kept.line());
await attempt("bound user", "other", bound);
await attempt("bound user", "second", bound);
kept.socket.destroy();
await eventually("all have gone", async () => (await monitoring("/connz")).num_connections === 0);
const closed = (await monitoring("/connz?state=closed&limit=100")).connections;
note("closed", closed.map(({ cid, reason }) => [cid, reason]).sort((a, b) => a[0] - b[0]).map(([, reason]) => reason));
