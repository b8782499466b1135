// Node's `ws`: prints microseconds for each message.
//
//     bench_ws.mjs echo BYTES COUNT IN_FLIGHT     an echo server in one process, a client in this one
//     bench_ws.mjs publish BYTES MEMBERS ROUNDS   a server that sends to all its clients, which live in a process of their own
import { createRequire } from "node:module";
import { fork } from "node:child_process";

const require = createRequire(process.env.NODE_PLACE + "/");
const WebSocket = require("ws");
const [what, ...rest] = process.argv.slice(2);
const [a, b, c] = rest.map(Number);

if (what === "serve-echo") {
  const server = new WebSocket.WebSocketServer({ port: 0, host: "127.0.0.1" });
  server.on("connection", (ws) => ws.on("message", (data) => ws.send(data)));
  server.on("listening", () => process.send(server.address().port));
} else if (what === "members") {
  let heard = 0, open = 0;
  for (let n = 0; n < b; n++) {
    const ws = new WebSocket(`ws://127.0.0.1:${a}/`);
    ws.on("open", () => { if (++open === b) process.send("open"); });
    ws.on("message", () => { if (++heard % b === 0) process.send("heard"); });
  }
} else if (what === "echo") {
  const child = fork(process.argv[1], ["serve-echo"]);
  child.on("message", (port) => {
    const ws = new WebSocket(`ws://127.0.0.1:${port}/`), message = Buffer.alloc(a);
    let begun, came = 0, sent = 0;
    ws.on("open", () => { begun = process.hrtime.bigint(); for (; sent < c; sent++) ws.send(message); });
    ws.on("message", () => {
      if (++came === b) { console.log(Number(process.hrtime.bigint() - begun) / 1e3 / b); child.kill(); process.exit(); }
      if (sent < b) { sent++; ws.send(message); }
    });
  });
} else if (what === "publish") {
  const server = new WebSocket.WebSocketServer({ port: 0, host: "127.0.0.1" });
  server.on("listening", () => {
    const child = fork(process.argv[1], ["members", server.address().port, b]), message = Buffer.alloc(a);
    let begun, rounds = 0;
    const publish = () => server.clients.forEach((ws) => ws.send(message));
    child.on("message", (said) => {
      if (said === "open") { begun = process.hrtime.bigint(); publish(); return; }
      if (++rounds === c) { console.log(Number(process.hrtime.bigint() - begun) / 1e3 / c / b); child.kill(); process.exit(); }
      publish();
    });
  });
}
