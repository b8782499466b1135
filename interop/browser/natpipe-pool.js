// A browser as a member of a natpipe pool: it joins, asks, and answers. An ES module without dependencies or build step.
//
//     import { join } from "./natpipe-pool.js";
//     const pool = await join("wss://host/ws", async (msg) => msg, { meta: { role: "page" } });
//     console.log(await pool.ask("hello"));
//     for await (const answer of pool.answers({ stream: 3 })) console.log(answer);

const utf8 = new TextEncoder(), text = new TextDecoder("utf-8", { fatal: true });
const DEPTH = 64;

/** A value as MessagePack: null, booleans, numbers, bigints, strings, Uint8Array, arrays, plain objects. */
export function pack(value) {
  const out = [];
  const number = (marker, bytes, set) => {
    const view = new DataView(new ArrayBuffer(bytes));
    set(view);
    out.push(marker, ...new Uint8Array(view.buffer));
  };
  const length = (n, fix, max, ...markers) => {
    if (n < max) out.push(fix | n);
    else if (markers.length === 3 && n < 0x100) out.push(markers[0], n);
    else if (n < 0x10000) number(markers.at(-2), 2, (v) => v.setUint16(0, n));
    else number(markers.at(-1), 4, (v) => v.setUint32(0, n));
  };
  const put = (value, depth) => {
    if (depth > DEPTH) throw new RangeError("the value nests too deeply");
    if (value === null || value === undefined) out.push(0xc0);
    else if (value === true || value === false) out.push(value ? 0xc3 : 0xc2);
    else if (typeof value === "bigint") number(value < 0n ? 0xd3 : 0xcf, 8, (v) => v.setBigUint64(0, BigInt.asUintN(64, value)));
    else if (typeof value === "number") {
      if (!Number.isSafeInteger(value) || Object.is(value, -0)) number(0xcb, 8, (v) => v.setFloat64(0, value));
      else if (value >= 0 && value < 128) out.push(value);
      else if (value < 0 && value >= -32) out.push(value & 0xff);
      else if (value >= 0) number(0xcf, 8, (v) => v.setBigUint64(0, BigInt(value)));
      else number(0xd3, 8, (v) => v.setBigInt64(0, BigInt(value)));
    } else if (typeof value === "string") {
      const bytes = utf8.encode(value);
      length(bytes.length, 0xa0, 32, 0xd9, 0xda, 0xdb);
      for (const byte of bytes) out.push(byte);
    } else if (value instanceof Uint8Array) {
      length(value.length, 0, -1, 0xc4, 0xc5, 0xc6);
      for (const byte of value) out.push(byte);
    } else if (Array.isArray(value)) {
      length(value.length, 0x90, 16, 0xdc, 0xdd);
      value.forEach((item) => put(item, depth + 1));
    } else if (typeof value === "object") {
      const entries = Object.entries(value);
      length(entries.length, 0x80, 16, 0xde, 0xdf);
      for (const [key, item] of entries) { put(key, depth + 1); put(item, depth + 1); }
    } else throw new TypeError(`a ${typeof value} can not be sent`);
  };
  put(value, 0);
  return Uint8Array.from(out);
}

/** The value of MessagePack bytes; maps become objects. Throws when they are not one value. */
export function unpack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const take = (n) => {
    if (at + n > bytes.length) throw new RangeError("the bytes end within a value");
    at += n;
    return at - n;
  };
  const uint = (n) => (n === 1 ? view.getUint8(take(1)) : n === 2 ? view.getUint16(take(2)) : view.getUint32(take(4)));
  const plain = (big) => (big >= Number.MIN_SAFE_INTEGER && big <= Number.MAX_SAFE_INTEGER ? Number(big) : big);
  const string = (n) => text.decode(bytes.subarray(take(n), at));
  const binary = (n) => bytes.slice(take(n), at);
  const array = (n, depth) => {
    const items = [];
    for (let i = 0; i < n; i++) items.push(value(depth + 1));
    return items;
  };
  const map = (n, depth) => {
    const object = Object.create(null);
    for (let i = 0; i < n; i++) { const key = value(depth + 1); object[key] = value(depth + 1); }
    return object;
  };
  const value = (depth) => {
    if (depth > DEPTH) throw new RangeError("the value nests too deeply");
    const marker = uint(1);
    if (marker < 0x80) return marker;
    if (marker < 0x90) return map(marker & 15, depth);
    if (marker < 0xa0) return array(marker & 15, depth);
    if (marker < 0xc0) return string(marker & 31);
    if (marker >= 0xe0) return marker - 256;
    switch (marker) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return binary(uint(1 << (marker - 0xc4)));
      case 0xca: return view.getFloat32(take(4));
      case 0xcb: return view.getFloat64(take(8));
      case 0xcc: case 0xcd: case 0xce: return uint(1 << (marker - 0xcc));
      case 0xcf: return plain(view.getBigUint64(take(8)));
      case 0xd0: return view.getInt8(take(1));
      case 0xd1: return view.getInt16(take(2));
      case 0xd2: return view.getInt32(take(4));
      case 0xd3: return plain(view.getBigInt64(take(8)));
      case 0xd9: case 0xda: case 0xdb: return string(uint(1 << (marker - 0xd9)));
      case 0xdc: return array(uint(2), depth);
      case 0xdd: return array(uint(4), depth);
      case 0xde: return map(uint(2), depth);
      case 0xdf: return map(uint(4), depth);
      default: throw new TypeError(`0x${marker.toString(16)} is not taken`);
    }
  };
  const whole = value(0);
  if (at !== bytes.length) throw new RangeError("bytes follow the value");
  return whole;
}

const name = (tag) => Array.from(tag, (byte) => byte.toString(16).padStart(2, "0")).join("");

class Member {
  #socket;
  #router;
  #asked = new Map();
  /** What is being answered, by its tag. */
  #answering = new Map();
  /** Resolves with the CloseEvent when the connection has ended. */
  closed;

  constructor(socket, router, meta) {
    this.#socket = socket;
    this.#router = router;
    this.closed = new Promise((resolve) => socket.addEventListener("close", (event) => {
      for (const asked of this.#asked.values()) asked.end(new Error(`the connection closed with ${event.code}`));
      this.#asked.clear();
      resolve(event);
    }));
    socket.addEventListener("message", (event) => this.#heard(event.data));
    if (meta) this.#send({ meta });
  }

  #send(map) { this.#socket.send(pack(map)); }

  #heard(data) {
    let map;
    try { map = unpack(new Uint8Array(data)); } catch { this.#socket.close(3007, "no MessagePack"); return; }
    if ("rtag" in map) { if (map.rtag instanceof Uint8Array) this.#asked.get(name(map.rtag))?.take(map); }
    else if (map.ctag instanceof Uint8Array) { const work = this.#answering.get(name(map.ctag)); if (work) work.wanted = false; }
    else if ("msg" in map) this.#route(map.msg, map.stag);
  }

  async #route(msg, stag) {
    const tag = stag instanceof Uint8Array ? name(stag) : undefined, work = { wanted: true };
    if (tag) this.#answering.set(tag, work);
    const reply = (part) => { if (stag !== undefined && work.wanted) this.#send({ ...part, rtag: stag }); };
    let count = 0;
    try {
      const answer = await this.#router(msg, this);
      if (answer && typeof answer[Symbol.asyncIterator] === "function") {
        for await (const item of answer) {
          // Nobody waits for the rest: leaving ends the iterable too.
          if (!work.wanted) return;
          reply({ msg: item, done: false, count: ++count });
        }
        reply({ msg: "", done: true, count: ++count, eof: true });
      } else if (answer === undefined) reply({ msg: "", done: true, count: 1, eof: true });
      else reply({ msg: answer, done: true, count: 1 });
    } catch (error) {
      if (this.#socket.readyState === 1) reply({ msg: "", done: true, count: ++count, eof: true, err: String(error) });
    } finally {
      if (this.#answering.get(tag) === work) this.#answering.delete(tag);
    }
  }

  /** The answers to a message, as they come. */
  async *answers(msg) {
    const tag = crypto.getRandomValues(new Uint8Array(16));
    const parts = [];
    let wake = () => {}, came = 0, count, failed;
    const isOver = () => failed !== undefined || (count !== undefined && came >= count);
    this.#asked.set(name(tag), {
      take(map) {
        came++;
        if (map.done !== false) count = map.count ?? came;
        if (map.err) failed = new Error(map.err);
        else if (!map.eof) parts.push(map.msg);
        wake();
      },
      end(error) { failed = error; wake(); },
    });
    try {
      this.#send({ msg, done: true, stag: tag });
      for (;;) {
        while (parts.length) yield parts.shift();
        if (failed) throw failed;
        if (isOver()) return;
        await new Promise((resolve) => { wake = resolve; });
      }
    } finally {
      this.#asked.delete(name(tag));
      // The other end need not go on; who has not agreed on this protocol does not know the word.
      if (!isOver() && this.#socket.readyState === 1 && this.#socket.protocol === "natpipe.pool") this.#send({ ctag: tag });
    }
  }

  /** The first answer; undefined when there is none. */
  async ask(msg) { for await (const answer of this.answers(msg)) return answer; }

  /** A message that wants no answer. */
  tell(msg) { this.#send({ msg, done: true }); }

  /** Says goodbye. */
  close(code = 1000, reason = "") { this.#socket.close(code, reason); }
}

/** Joins the pool at `url`. `router` gets each message and the connection; it gives a value, an async iterable, or nothing. */
export function join(url, router = async () => undefined, { meta } = {}) {
  const socket = new WebSocket(url, "natpipe.pool");
  socket.binaryType = "arraybuffer";
  return new Promise((resolve, reject) => {
    socket.addEventListener("open", () => resolve(new Member(socket, router, meta)), { once: true });
    socket.addEventListener("error", () => reject(new Error(`${url} can not be joined`)), { once: true });
  });
}
