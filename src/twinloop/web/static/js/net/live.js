/** The live socket: connects, connects again with patience, and says how it stands. */

import { decodeFrame } from "../pure/frame.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5000;
/** The server says something every second; after so long the line is taken for dead. */
const SILENCE_MS = 12_000;

/**
 * @typedef {"connecting" | "live" | "waiting"} Phase
 */

/**
 * @typedef {object} LiveHandlers
 * @property {(frame: import("../pure/frame.js").Frame) => void} onFrame
 * @property {(message: any) => void} onMessage a text frame, decoded
 * @property {(phase: Phase, retryAt: number) => void} onPhase `retryAt` by performance.now()
 */

/**
 * How long to wait before the n-th attempt after a failure, ms: doubling, with a jitter of a quarter, of at most five seconds.
 *
 * @param {number} attempt 0 for the first
 * @param {number} random 0 to 1
 */
export function waitBefore(attempt, random) {
  const base = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(attempt, 10));
  return base * (0.75 + 0.5 * random);
}

/** What early.js opened, once. @returns {{socket: WebSocket, heard: (ArrayBuffer | string)[]} | null} */
function takeEarly() {
  const page = /** @type {any} */ (globalThis);
  const early = page.early ?? null;
  page.early = null;
  return early;
}

/** A connection that is kept up until `close`. */
export class Live {
  /**
   * @param {string} url ws: or wss:
   * @param {LiveHandlers} handlers
   */
  constructor(url, handlers) {
    this.url = url;
    this.handlers = handlers;
    this.attempt = 0;
    this.heardAt = NaN;
    this.openedAt = NaN;
    this.closed = false;
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {number | undefined} */
    this.timer = undefined;
    this.watch = window.setInterval(() => this.#mind(), 1000);
    window.addEventListener("online", () => this.now());
    this.#open();
  }

  /** Try at once, if it is not connected. */
  now() {
    if (this.closed || this.socket) return;
    window.clearTimeout(this.timer);
    this.#open();
  }

  /** Let go of the line and connect anew. */
  again() {
    if (this.socket) this.#drop(this.socket);
  }

  close() {
    this.closed = true;
    window.clearInterval(this.watch);
    window.clearTimeout(this.timer);
    this.socket?.close();
  }

  #open() {
    this.handlers.onPhase("connecting", NaN);
    const early = takeEarly();
    const socket = early?.socket ?? new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.openedAt = performance.now();
    this.heardAt = NaN;
    socket.onmessage = ({ data }) => {
      if (this.socket === socket) this.#take(data);
    };
    socket.onclose = () => this.#lost(socket);
    socket.onerror = () => socket.close();
    // Before anything newer, and each by itself: one that cannot be read stops no other.
    for (const data of early?.heard ?? []) queueMicrotask(() => this.socket === socket && this.#take(data));
    if (socket.readyState > WebSocket.OPEN) queueMicrotask(() => this.#lost(socket));
  }

  /** @param {ArrayBuffer | string} data */
  #take(data) {
    const first = Number.isNaN(this.heardAt);
    this.heardAt = performance.now();
    if (first) {
      this.attempt = 0;
      this.handlers.onPhase("live", NaN);
    }
    if (typeof data === "string") this.handlers.onMessage(JSON.parse(data));
    else this.handlers.onFrame(decodeFrame(data));
  }

  /** @param {WebSocket} socket */
  #lost(socket) {
    if (this.socket !== socket || this.closed) return;
    this.socket = null;
    const wait = waitBefore(this.attempt, Math.random());
    this.attempt += 1;
    this.timer = window.setTimeout(() => this.#open(), wait);
    this.handlers.onPhase("waiting", performance.now() + wait);
  }

  #mind() {
    const socket = this.socket;
    const last = Number.isNaN(this.heardAt) ? this.openedAt : this.heardAt;
    if (!socket || performance.now() - last < SILENCE_MS) return;
    this.#drop(socket);
  }

  /** A dead line may take minutes to say so: let go of it now. @param {WebSocket} socket */
  #drop(socket) {
    socket.onmessage = null;
    socket.close();
    this.#lost(socket);
  }
}
