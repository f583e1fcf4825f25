// Opens a page in a real, headless Chromium: nats.js bundled for browsers, served from a local port.

import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";

/** Calls a function of page.mjs inside the browser and returns its result. */
export async function inBrowser(name, argument) {
  const bundle = await build({
    entryPoints: [fileURLToPath(new URL("page.mjs", import.meta.url))],
    bundle: true, write: false, format: "esm", target: "es2022", logLevel: "error",
  });
  const files = {
    "/": ["text/html", '<!doctype html><title>nats.js</title><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>'],
    "/page.js": ["text/javascript", bundle.outputFiles[0].text],
  };
  const server = createServer((request, response) => {
    const [type, body] = files[request.url] ?? ["text/plain", ""];
    response.writeHead(request.url in files ? 200 : 404, { "content-type": type }).end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
  try {
    const page = await browser.newPage();
    page.on("console", (message) => console.error(`page: ${message.text()}`));
    page.on("pageerror", (error) => console.error(`page: ${error.stack}`));
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.waitForFunction((wanted) => typeof window[wanted] === "function", name);
    return await page.evaluate(([wanted, value]) => window[wanted](value), [name, argument]);
  } finally {
    await browser.close();
    server.close();
  }
}

/** Where the page connects to, and as whom. */
export const login = {
  servers: process.env.WS_URL, user: process.env.NATS_USER, pass: process.env.NATS_PASSWORD,
};
