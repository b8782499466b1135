// A smart socket in a browser: messages to and from a bound natpipe (or any that speaks the protocol over WebSocket), with
// reconnection, resending and identity. An ES module without dependencies or build step.
//
//     import { SmartSocket } from "./natpipe-smart.js";
//     const socket = new SmartSocket("wss://host:port/");
//     socket.send("hello");
//     await socket.sendAcknowledged("this one for sure");
//     for await (const data of socket) console.log(data);            // Uint8Array

const HELLO = 1, HEARTBEAT = 2, DATA = 3, DATA_REQ = 4, ACK = 5, SUBSCRIBE = 0x60, UNSUBSCRIBE = 0x61;
const VERSION = 1, ID = 16;
const BEAT = 5000, PATIENCE = 15000;

const utf8 = new TextEncoder();
const bytes = (data) => (typeof data === "string" ? utf8.encode(data) : new Uint8Array(data));
const name = (id) => Array.from(id, (byte) => byte.toString(16).padStart(2, "0")).join("");
const fresh = () => crypto.getRandomValues(new Uint8Array(ID));

/** The bytes of one frame: a length of 32 bits, the type, and the parts. */
export function frame(kind, ...parts) {
  const length = parts.reduce((sum, part) => sum + part.length, 1);
  const out = new Uint8Array(4 + length);
  new DataView(out.buffer).setUint32(0, length);
  out[4] = kind;
  let at = 5;
  for (const part of parts) { out.set(part, at); at += part.length; }
  return out;
}

/** Frames out of a byte stream, however it is cut; throws on one that is longer than `limit`. */
export class Frames {
  #parts = [];
  #held = 0;
  constructor(limit) { this.limit = limit; }

  push(part) { if (part.length) { this.#parts.push(part); this.#held += part.length; } }

  /** The next frame without its length, or undefined. */
  next() {
    if (this.#held < 4) return undefined;
    if (this.#parts[0].length < 4) this.#join();
    const head = this.#parts[0];
    const length = new DataView(head.buffer, head.byteOffset).getUint32(0);
    if (length > this.limit) throw new RangeError(`a frame of ${length} bytes; ${this.limit} are the most`);
    if (this.#held < 4 + length) return undefined;
    if (head.length < 4 + length) this.#join();
    const all = this.#parts[0], rest = all.subarray(4 + length);
    if (rest.length) this.#parts[0] = rest; else this.#parts.shift();
    this.#held -= 4 + length;
    return all.slice(4, 4 + length);
  }

  #join() {
    const all = new Uint8Array(this.#held);
    let at = 0;
    for (const part of this.#parts) { all.set(part, at); at += part.length; }
    this.#parts = [all];
  }
}

/**
 * Connects, and again when the connection ends, until it is closed.
 *
 * Options: `identity` (16 bytes), `maxMessage` and `maxQueue` (bytes, 16 MiB; each: to send, to be acknowledged, received), `first` and `most` (ms, the waits between tries),
 * `resend` (ms) and `tries` of messages that are to be acknowledged.
 */
export class SmartSocket extends EventTarget {
  #url;
  #options;
  #socket;
  #frames;
  #peer;
  #queue = [];
  #queued = 0;
  #sure = new Map();
  #unsure = 0;
  #topics = new Map();
  #inbox = [];
  #held = 0;
  #waiting = [];
  #failed = 0;
  #closed = false;
  #lastIn = 0;
  #lastOut = 0;
  #timer;

  constructor(url, options = {}) {
    super();
    this.#url = url;
    this.#options = { identity: fresh(), maxMessage: 16 << 20, maxQueue: 16 << 20, first: 100, most: 10000, resend: 5000, tries: 5, ...options };
    if (this.#options.identity.length !== ID) throw new RangeError("an identity is 16 bytes");
    this.#timer = setInterval(() => this.#tick(), 200);
    this.#connect();
  }

  get identity() { return this.#options.identity; }
  /** Messages that came while nobody took those before, and that their sender does not send again. */
  dropped = 0;
  /** The identity of the other end; undefined while there is none. */
  get peer() { return this.#peer; }

  /** Sends a message; while nobody is connected it waits for its turn. Throws when the queue is full. */
  send(data) { this.#put(frame(DATA, bytes(data))); }

  /** Sends a message again until the other end has acknowledged it; rejects when it does not in time. It may come twice. */
  sendAcknowledged(data) {
    const id = fresh(), sent = frame(DATA_REQ, id, bytes(data));
    return new Promise((resolve, reject) => {
      if (this.#closed) throw new Error("the socket is closed");
      if (this.#unsure && this.#unsure + sent.length > this.#options.maxQueue) throw new RangeError("the queue is full");
      const one = { sent, tries: 0, due: 0, resolve, reject };
      this.#sure.set(name(id), one);
      this.#unsure += sent.length;
      if (this.#peer) this.#again(name(id), one);
    });
  }

  /** From now on only published messages that begin with one of the topics come; others' ends ignore it. */
  subscribe(topic) { this.#topics.set(topic, bytes(topic)); if (this.#peer) this.#write(frame(SUBSCRIBE, bytes(topic))); }
  unsubscribe(topic) { if (this.#topics.delete(topic) && this.#peer) this.#write(frame(UNSUBSCRIBE, bytes(topic))); }

  /** The next message; undefined when the socket is closed. */
  async recv() {
    while (!this.#inbox.length) {
      if (this.#closed) return undefined;
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
    const data = this.#inbox.shift();
    this.#held -= data.length;
    return data;
  }

  async *[Symbol.asyncIterator]() { for (let data; (data = await this.recv()) !== undefined;) yield data; }

  /** Closes it; what is not acknowledged by now fails. */
  close() {
    this.#closed = true;
    clearInterval(this.#timer);
    this.#socket?.close(1000);
    for (const id of [...this.#sure.keys()]) this.#settle(id)?.reject(new Error("the socket was closed"));
    this.#wake();
  }

  #connect() {
    if (this.#closed) return;
    const socket = this.#socket = new WebSocket(this.#url);
    socket.binaryType = "arraybuffer";
    this.#frames = new Frames(this.#options.maxMessage + 1 + ID);
    this.#lastIn = Date.now();
    socket.addEventListener("open", () => this.#write(frame(HELLO, Uint8Array.of(VERSION), this.#options.identity)));
    socket.addEventListener("message", (event) => { if (socket === this.#socket) this.#heard(event.data); });
    socket.addEventListener("close", (event) => { if (socket === this.#socket) this.#lost(event.reason || `code ${event.code}`); });
  }

  #lost(why) {
    const greeted = this.#peer !== undefined;
    this.#peer = undefined;
    this.#socket = undefined;
    this.dispatchEvent(new CustomEvent("disconnected", { detail: why }));
    if (this.#closed) return;
    this.#failed = greeted ? 1 : this.#failed + 1;
    const wait = Math.min(this.#options.most, this.#options.first * 2 ** (this.#failed - 1));
    setTimeout(() => this.#connect(), wait * (0.5 + Math.random() / 2));
  }

  #drop(why) {
    const socket = this.#socket;
    if (!socket) return;
    this.#lost(why);
    socket.close(4000, why.slice(0, 100));
  }

  #heard(data) {
    // Text is nothing of this protocol.
    if (typeof data === "string") return this.#drop("a text message");
    this.#frames.push(new Uint8Array(data));
    try {
      for (let frame; this.#socket && (frame = this.#frames.next()) !== undefined;) this.#take(frame);
    } catch (error) { this.#drop(String(error.message)); }
  }

  #take(frame) {
    const kind = frame[0], body = frame.subarray(1);
    this.#lastIn = Date.now();
    if (this.#peer === undefined) {
      if (kind !== HELLO || body.length !== 1 + ID || body[0] !== VERSION) return this.#drop("no HELLO of this version");
      return this.#greeted(body.slice(1));
    }
    if (kind === DATA) { if (this.#isFull(body.length)) this.dropped++; else this.#deliver(body); }
    else if (kind === DATA_REQ && body.length >= ID) {
      // What finds no room is not acknowledged: its sender sends it again.
      if (this.#isFull(body.length - ID)) return;
      this.#write(frameOfAck(body));
      this.#deliver(body.subarray(ID));
    } else if (kind === ACK && body.length === ID) this.#settle(name(body))?.resolve();
    else if (kind === HELLO) this.#drop("it greeted twice");
  }

  #greeted(peer) {
    this.#peer = peer;
    for (const topic of this.#topics.values()) this.#write(frame(SUBSCRIBE, topic));
    for (const sent of this.#queue.splice(0)) this.#write(sent);
    this.#queued = 0;
    for (const [id, one] of this.#sure) this.#again(id, one);
    this.dispatchEvent(new CustomEvent("connected", { detail: peer }));
  }

  #isFull(more) { return this.#inbox.length > 0 && this.#held + more > this.#options.maxQueue; }

  #deliver(data) { this.#inbox.push(data); this.#held += data.length; this.#wake(); }

  /** All who wait look again; those who find nothing wait on. */
  #wake() { for (const resolve of this.#waiting.splice(0)) resolve(); }

  /** Forgets a message that was to be acknowledged. */
  #settle(id) {
    const one = this.#sure.get(id);
    if (this.#sure.delete(id)) this.#unsure -= one.sent.length;
    return one;
  }

  #put(sent) {
    if (this.#closed) throw new Error("the socket is closed");
    const waiting = this.#peer ? this.#socket.bufferedAmount : this.#queued;
    if (waiting + sent.length > this.#options.maxQueue) throw new RangeError("the queue is full");
    if (this.#peer) return this.#write(sent);
    this.#queue.push(sent);
    this.#queued += sent.length;
  }

  #again(id, one) {
    if (one.tries++ >= this.#options.tries) {
      this.#settle(id);
      return one.reject(new Error(`not acknowledged after ${this.#options.tries} tries`));
    }
    one.due = Date.now() + this.#options.resend;
    this.#write(one.sent);
  }

  #write(sent) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(sent);
    this.#lastOut = Date.now();
  }

  #tick() {
    if (!this.#socket) return;
    const now = Date.now();
    if (now - this.#lastIn > PATIENCE) return this.#drop(`nothing came for ${PATIENCE / 1000} s`);
    if (!this.#peer) return;
    for (const [id, one] of this.#sure) if (now >= one.due) this.#again(id, one);
    if (now - this.#lastOut >= BEAT) this.#write(frame(HEARTBEAT));
  }
}

const frameOfAck = (body) => frame(ACK, body.subarray(0, ID));
