/** The live socket: one that early.js opened is taken over with what it heard, once. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Live } from "../../src/twinloop/web/static/js/net/live.js";

class Socket {
  static OPEN = 1;
  static made = [];
  constructor(url) {
    this.url = url;
    this.readyState = 0;
    Socket.made.push(this);
  }
  close() {}
}

globalThis.window = { setInterval: () => 0, clearInterval() {}, setTimeout: () => 0, clearTimeout() {}, addEventListener() {} };
globalThis.WebSocket = Socket;

function listen() {
  const said = [];
  const live = new Live("ws://here/live", {
    onFrame: () => said.push("frame"),
    onMessage: (message) => said.push(message.type),
    onPhase: (phase) => said.push(phase),
  });
  return { live, said };
}

beforeEach(() => {
  Socket.made = [];
  delete globalThis.early;
});

test("without an early one a socket is opened, and an early script that comes later opens none", () => {
  const { said } = listen();
  assert.equal(Socket.made.length, 1);
  assert.deepEqual(said, ["connecting"]);
  assert.equal(globalThis.early, null, "which early.js takes as: not needed");
});

const settled = () => new Promise((done) => setTimeout(done));

test("an early one is taken over with what it heard, in order, and goes on being heard", async () => {
  const socket = new Socket("ws://here/live");
  socket.readyState = 1;
  globalThis.early = { socket, heard: ['{"type":"hello"}', '{"type":"events"}'] };
  const { said } = listen();
  await settled();
  assert.equal(Socket.made.length, 1, "no second one");
  socket.onmessage({ data: '{"type":"pipeline"}' });
  assert.deepEqual(said, ["connecting", "live", "hello", "events", "pipeline"]);
});

test("an early one that was lost meanwhile is tried again, and never taken twice", async () => {
  const socket = new Socket("ws://here/live");
  socket.readyState = 3;
  globalThis.early = { socket, heard: [] };
  const { live, said } = listen();
  await settled();
  assert.deepEqual(said, ["connecting", "waiting"]);
  live.now();
  assert.equal(Socket.made.length, 2);
  assert.deepEqual(said, ["connecting", "waiting", "connecting"]);
});
