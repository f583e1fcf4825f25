// Who may log in over WebSocket, and who over TCP, where the listener has an authorization of its own.

import { connect as tcpConnect } from "@nats-io/transport-node";
import { wsconnect } from "@nats-io/nats-core";
import { note } from "./scenario.mjs";

const LOGINS = {
  nothing: {},
  "main user": { user: "root", pass: "menes-compat" },
  "web user": { user: "web", pass: "secret" },
  "web user, wrong password": { user: "web", pass: "wrong" },
  "main token": { token: "main-token" },
  "web token": { token: "web-token" },
  guest: { user: "guest", pass: "guest" },
};
const COOKIES = {
  "user and password": "u=web; p=secret",
  "wrong password": "u=web; p=wrong",
  "user of the list": "u=root; p=menes-compat",
  token: "x=y; t=web-token",
  "wrong token": "t=main-token",
  "other names": "user=web; pass=secret; token=web-token",
};

/** What became of a login. */
async function outcome(connecting) {
  let nc;
  try {
    nc = await connecting;
  } catch (error) {
    return error.name;
  }
  const { data } = (await nc.request("$SYS.REQ.USER.INFO")).json();
  const seen = { user: data.user, account: data.account, required: nc.info.auth_required ?? false };
  await nc.close();
  return seen;
}

const plain = { reconnect: false, maxReconnectAttempts: 0, timeout: 5000 };
const withCookie = (Cookie) => (url) => ({
  socket: new WebSocket(url, { headers: { Cookie, Origin: process.env.WS_URL.replace("ws", "http") } }),
  encrypted: false,
});

const withPath = (path) => () => ({ socket: new WebSocket(process.env.WS_URL + path), encrypted: false });

for (const [label, login] of Object.entries(LOGINS)) {
  const options = { ...plain, ...login };
  note(`tcp, ${label}`, await outcome(tcpConnect({ servers: process.env.NATS_URL, ...options })));
  note(`ws, ${label}`, await outcome(wsconnect({ servers: process.env.WS_URL, ...options })));
}
for (const [label, cookie] of Object.entries(COOKIES)) {
  const options = { ...plain, servers: process.env.WS_URL, wsFactory: withCookie(cookie) };
  note(`cookies, ${label}`, await outcome(wsconnect(options)));
}
// Behind a proxy a server may be found at any path.
const web = { ...plain, user: "web", pass: "secret" };
for (const path of ["/nats", "/a/b?c=d"]) {
  note(`at ${path}`, await outcome(wsconnect({ ...web, wsFactory: withPath(path), servers: process.env.WS_URL })));
}
