// A member written on Node's `ws`: asks natpipe, and answers what it is asked. Prints what came back as JSON.
import { createRequire } from "node:module";
import { randomBytes } from "node:crypto";

const require = createRequire(process.env.NODE_PLACE + "/");
const WebSocket = require("ws");
const { encode, decode } = require("@msgpack/msgpack");

const ws = new WebSocket(process.argv[2]);
const tag = randomBytes(16);
ws.on("open", () => ws.send(encode({ msg: { n: [1, 2.5, null, "é"] }, done: true, stag: tag, meta: { lang: "node" } })));
ws.on("message", (data) => {
  const part = decode(data);
  if ("rtag" in part) {
    if (!tag.equals(Buffer.from(part.rtag))) throw new Error("an answer to another question");
    console.log(JSON.stringify(part.msg));
  } else {
    ws.send(encode({ msg: ["node", part.msg], done: true, rtag: part.stag, count: 1 }));
  }
});
ws.on("error", (error) => { console.error(error); process.exit(1); });
