/** The plant as this page knows it: tags, assets, newest samples, snapshots, events, figures, and how fresh all that is. */

import { rows } from "./net/api.js";
import { Live } from "./net/live.js";
import { Alarms } from "./pure/alarms.js";
import { assetsOf } from "./pure/assets.js";
import { Columns } from "./pure/columns.js";
import { parseTime } from "./pure/time.js";
import { reasonNames, reasonsOf, severityOf } from "./pure/words.js";

/** @typedef {import("./pure/assets.js").TagInfo} TagInfo */
/** @typedef {import("./pure/assets.js").Asset} Asset */
/** @typedef {import("./pure/assets.js").Snapshot} Snapshot */
/** @typedef {{time: string, subject: string, kind: string, before: string, after: string, why: string}} Event */
/** @typedef {"starting" | "connecting" | "live" | "waiting" | "login" | "gone"} Phase */

const EVENTS_KEPT = 500;
/** Older than this, numbers are greyed out. */
export const FRESH_MS = 4000;

/**
 * Kinds: `plant` (tags were read anew), `frame`, `snapshots`, `events`, `pipeline`, `phase`, `back` (live again after it was
 * cut off: something may have been missed).
 * @typedef {"plant" | "frame" | "snapshots" | "events" | "pipeline" | "phase" | "back"} Kind
 */

/** One plant, live. */
export class Plant {
  constructor() {
    /** @type {TagInfo[]} */
    this.tags = [];
    /** @type {Map<string, TagInfo>} */
    this.byName = new Map();
    /** @type {(TagInfo | undefined)[]} */
    this.byIndex = [];
    /** @type {Map<string, Asset>} */
    this.assets = new Map();
    this.columns = new Columns(0);
    this.alarms = new Alarms();
    /** How often what changed was asked for. */
    this.turn = 0;
    /** @type {Event[]} */
    this.events = [];
    /** @type {any} */
    this.pipeline = null;
    /** @type {any} */
    this.hello = null;
    /** @type {Phase} */
    this.phase = "connecting";
    this.phaseWhy = "";
    this.retryAt = NaN;
    /** When anything was heard, by performance.now(). */
    this.heardAt = NaN;
    /** The server's clock at one moment of performance.now(). */
    this.anchor = { server: NaN, own: NaN };
    /** @type {(() => void)[] | null} what was heard and waits until the tags have been read; null when it need not wait */
    this.held = [];
    /** @type {Map<string, Set<(what?: any) => void>>} */
    this.listeners = new Map();
    /** @type {Live | null} */
    this.live = null;
    this.loaded = false;
    this.wasLost = false;
  }

  /**
   * Call `listener` at each `kind`; returns how to stop that.
   *
   * @param {Kind} kind
   * @param {(what?: any) => void} listener
   * @returns {() => void}
   */
  on(kind, listener) {
    const set = this.listeners.get(kind) ?? new Set();
    this.listeners.set(kind, set);
    set.add(listener);
    return () => set.delete(listener);
  }

  /** Resolves once there are values. @returns {Promise<void>} */
  heard() {
    if (!Number.isNaN(this.columns.began)) return Promise.resolve();
    return new Promise((done) => {
      const off = this.on("frame", () => {
        off();
        done();
      });
    });
  }

  /** @param {Kind} kind @param {any} [what] */
  tell(kind, what) {
    for (const listener of this.listeners.get(kind) ?? []) listener(what);
  }

  /** The server's clock now, ms: the browser's may go wrong. */
  now() {
    const { server, own } = this.anchor;
    return Number.isNaN(server) ? Date.now() : server + (performance.now() - own);
  }

  /** Since the newest word from the server, ms; NaN before any. */
  silence() {
    return performance.now() - this.heardAt;
  }

  /** Whether what is shown is what is. */
  get isFresh() {
    return this.phase === "live" && this.silence() < FRESH_MS;
  }

  /** The plant's name; empty before it is known. @returns {string} */
  get name() {
    return this.hello?.plant ?? "";
  }

  /** Read the tags; what was heard before is taken in then. Throws ApiError where that cannot be. */
  async load() {
    const { rows: tags } = await rows("/tags", {});
    this.tags = tags.map((tag) => ({ ...tag, name: tag.name ?? tag.tag.slice(tag.asset.length + 1) }));
    this.byName = new Map(this.tags.map((tag) => [tag.tag, tag]));
    this.byIndex = [];
    for (const tag of this.tags) this.byIndex[tag.index] = tag;
    const snapshots = new Map([...this.assets].map(([name, asset]) => [name, asset.snapshot]));
    this.assets = assetsOf(this.tags);
    for (const [name, asset] of this.assets) asset.snapshot = snapshots.get(name) ?? null;
    this.columns = new Columns(this.byIndex.length);
    this.loaded = true;
    /** @type {(() => void)[]} */
    const held = this.held ?? [];
    this.held = null;
    for (const take of held) take();
    this.tell("plant");
  }

  /** What changed in the last minutes, so that a page opened just now, or cut off for a while, shows what others do. */
  async recent() {
    const turn = (this.turn += 1);
    const alarms = new Alarms();
    try {
      const { rows: events } = await rows("/events", { start: "-5m", kind: "STATUS" }, { most: 5000 });
      for (const event of events) this.#judge(alarms, event);
    } catch {
      // The list then begins with what is heard from now on.
    }
    if (turn !== this.turn) return; // asked anew meanwhile
    if (!Number.isNaN(this.columns.began)) this.#standing(alarms);
    this.alarms = alarms;
  }

  /** What is now has the last word. @param {Alarms} alarms */
  #standing(alarms) {
    const names = this.hello?.reasons ?? {};
    for (const { index } of this.tags) {
      const { status, reasons, arrival } = this.columns;
      const severity = status[index] >>> 30;
      const since = severity ? NaN : arrival[index];
      alarms.change(index, severity, reasonNames(reasons[index], names), since);
    }
  }

  /** @param {Alarms} alarms @param {Event} event */
  #judge(alarms, event) {
    const tag = this.byName.get(event.subject);
    if (event.kind !== "STATUS" || !tag) return;
    alarms.change(tag.index, severityOf(event.after), reasonsOf(event.why), parseTime(event.time));
  }

  /** @param {string} url of the socket */
  listen(url) {
    this.live?.close();
    this.live = new Live(url, {
      onFrame: (frame) => this.#frame(frame),
      onMessage: (message) => this.#message(message),
      onPhase: (phase, retryAt) => this.setPhase(phase, "", retryAt),
    });
  }

  /** @param {Phase} phase @param {string} [why] @param {number} [retryAt] */
  setPhase(phase, why = "", retryAt = NaN) {
    this.phase = phase;
    this.phaseWhy = why;
    this.retryAt = retryAt;
    this.tell("phase");
    if (phase === "waiting") this.wasLost = true;
    if (phase !== "live" || !this.wasLost) return;
    this.wasLost = false;
    this.tell("back");
  }

  /** @param {import("./pure/frame.js").Frame} frame */
  #frame(frame) {
    this.heardAt = performance.now();
    this.anchor = { server: frame.now, own: this.heardAt };
    if (this.held) {
      this.held.push(() => this.#frame(frame));
      return;
    }
    const names = this.hello?.reasons ?? {};
    const first = Number.isNaN(this.columns.began);
    this.columns.apply(frame, (index, severity, row) => {
      const since = first ? NaN : frame.arrival[row];
      if (this.byIndex[index]) this.alarms.change(index, severity, reasonNames(frame.reasons[row], names), since);
    });
    this.tell("frame", frame);
  }

  /** @param {any} message */
  #message(message) {
    this.heardAt = performance.now();
    switch (message.type) {
      case "hello":
        this.#greet(message);
        break;
      case "snapshots":
        if (this.held) this.held.push(() => message.snapshots.forEach((/** @type {Snapshot} */ each) => this.#snapshot(each)));
        for (const each of message.snapshots) this.#snapshot(each);
        this.tell("snapshots", message.snapshots);
        break;
      case "events":
        this.#happened(message.events);
        break;
      case "pipeline":
        this.pipeline = message;
        this.tell("pipeline");
        break;
      default: // of a newer server: nothing this page knows to show
    }
  }

  /** @param {any} hello */
  #greet(hello) {
    const before = this.hello;
    this.hello = hello;
    this.tell("phase");
    if (before && before.run !== hello.run) this.#again(hello);
    else if (before) this.recent();
  }

  /** Another process: its tags may be others. What it sends meanwhile waits. @param {any} hello */
  async #again(hello) {
    this.held = [];
    try {
      await this.load();
      this.recent();
    } catch {
      this.held = null;
      this.hello = { ...hello, run: "" }; // the next greeting has them read
      this.live?.again();
    }
  }

  /** @param {Snapshot} snapshot */
  #snapshot(snapshot) {
    const asset = this.assets.get(snapshot.asset);
    if (asset) asset.snapshot = snapshot;
  }

  /** @param {Event[]} events */
  #happened(events) {
    const known = new Set(this.events.slice(-100).map(keyOf));
    const fresh = events.filter((event) => !known.has(keyOf(event)));
    this.events.push(...fresh);
    if (this.events.length > EVENTS_KEPT) this.events.splice(0, this.events.length - EVENTS_KEPT);
    this.tell("events", fresh);
  }
}

/** @param {Event} event */
function keyOf(event) {
  return `${event.time} ${event.subject} ${event.kind} ${event.after}`;
}
