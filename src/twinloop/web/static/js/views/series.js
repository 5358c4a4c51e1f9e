/** The data of one trend: history asked for by span, samples heard live, means of windows where there are too many. */

import { get, rows } from "../net/api.js";
import { isoTime, parseTime } from "../pure/time.js";
import { Points, pointOf, windowOf } from "../pure/trend.js";
import { windowFor } from "../pure/scales.js";
import { reasonNames } from "../pure/words.js";

/** Beyond so many samples in a span, means of windows are shown in their place. */
export const MOST_POINTS = 5000;
const WINDOWS = 750;
/** History is asked for again when the live samples alone have made a trend this much longer, ms. */
const RECHECK_MS = 20_000;
/** After a failure, so long is waited before history is asked for again, ms. */
const AGAIN_MS = 3000;

/** Snapshots no further apart follow each other, ms. */
const LIVE_MS = 5000;

/** @typedef {{from: number, to: number}} Span */

/** A tag's trend. */
export class TagSeries {
  /**
   * @param {import("../plant.js").Plant} plant
   * @param {import("../pure/assets.js").TagInfo} tag
   */
  constructor(plant, tag) {
    this.plant = plant;
    this.tag = tag;
    this.points = new Points();
    /** @type {import("../pure/trend.js").Window[]} */
    this.windows = [];
    /** @type {{text: string, ms: number} | null} null: single samples are shown */
    this.width = null;
    /** Spans that begin then or later have few samples, however long they are. */
    this.few = Infinity;
    /** @type {Span} what history has been read of */
    this.have = { from: NaN, to: NaN };
    /** Whether it had been read up to the moment it was asked for, so that what is heard goes on from there. */
    this.reachesNow = false;
    /** @type {AbortController | null} */
    this.asking = null;
    this.askedAt = -Infinity;
    /** @type {unknown} */
    this.error = null;
    this.loading = false;
    /** The newest sample taken in, ms. */
    this.heard = NaN;
  }

  /** A longer silence than this breaks the line, ms. */
  get gap() {
    const every = (this.tag.every_s ?? 1) * 1000;
    const stale = this.tag.stale_s ? this.tag.stale_s * 1000 : Infinity;
    return Math.max(2.5 * every, Math.min(stale, 10 * every));
  }

  /** How many samples a span is likely to hold. @param {Span} span */
  #likely(span) {
    const seen = this.plant.columns.rate(this.tag.index);
    const perS = Number.isFinite(seen) && seen > 0 ? seen : 1 / (this.tag.every_s || 1);
    return ((Math.min(span.to, this.plant.now()) - span.from) / 1000) * perS;
  }

  /**
   * Read what is not known of a span. Resolves true where something changed.
   *
   * @param {Span} span
   * @param {boolean} follows whether its end is now, fed live
   * @returns {Promise<boolean>}
   */
  async ensure(span, follows) {
    const wide = span.from < this.few && this.#likely(span) > MOST_POINTS;
    const width = wide ? windowFor(span.to - span.from, WINDOWS) : null;
    if (this.#has(span, width, follows)) return false;
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    this.loading = true;
    this.askedAt = performance.now();
    try {
      await this.#read(span, width, asking.signal);
      this.error = null;
      return true;
    } catch (error) {
      if (asking.signal.aborted) return false;
      this.error = error;
      return true;
    } finally {
      if (this.asking === asking) this.loading = false;
    }
  }

  /**
   * @param {Span} span
   * @param {{ms: number} | null} width
   * @param {boolean} follows
   */
  #has(span, width, follows) {
    const since = performance.now() - this.askedAt;
    if (this.error) return since < AGAIN_MS;
    if (width?.ms !== this.width?.ms) return false;
    const recheck = width ? Math.max(width.ms, 2000) : RECHECK_MS;
    const young = follows && since < recheck && this.reachesNow;
    const now = this.plant.now();
    return this.have.from <= span.from + 1 && (young || this.have.to >= Math.min(span.to, now) - 1);
  }

  /**
   * @param {Span} span
   * @param {{text: string, ms: number} | null} width
   * @param {AbortSignal} signal
   * @returns {Promise<number>} how many samples there are, as far as that is known
   */
  async #read(span, width, signal) {
    if (!width) {
      const from = this.#missingFrom(span);
      const query = { tag: this.tag.tag, start: isoTime(from), end: isoTime(span.to), limit: MOST_POINTS + 1 };
      const { body, next } = await get("/range", query, signal);
      if (!next && body.length <= MOST_POINTS) {
        this.points.merge(body.map(pointOf), from, span.to);
        this.width = null;
        this.points.trim(span.from - (span.to - span.from), Infinity);
        this.#known(span);
        return body.length;
      }
      width = windowFor(span.to - span.from, WINDOWS);
      this.few = Infinity;
      return this.#readWindows(span, width, signal);
    }
    const total = await this.#readWindows(span, width, signal);
    if (total > MOST_POINTS) return total;
    this.few = span.from; // a young plant, or one that was away: they can be drawn one by one
    return this.#read(span, null, signal);
  }

  /**
   * Means of windows; resolves how many samples they are of.
   *
   * @param {Span} span
   * @param {{text: string, ms: number}} width
   * @param {AbortSignal} signal
   * @returns {Promise<number>}
   */
  async #readWindows(span, width, signal) {
    const first = Math.floor(span.from / width.ms) * width.ms;
    const kept = this.#keptWindows(first, width.ms);
    const start = kept.length ? kept[kept.length - 1].time + width.ms : first;
    const query = { tag: this.tag.tag, every: width.text, start: isoTime(start), end: isoTime(span.to) };
    const { rows: windows } = await rows("/window", query, { signal });
    this.windows = [...kept, ...windows.map(windowOf)];
    this.width = width;
    this.#known(span);
    return this.windows.reduce((total, { count }) => total + count, 0);
  }

  /** Windows from `first` on that are over and need not be read again. @param {number} first @param {number} width */
  #keptWindows(first, width) {
    const { have } = this;
    if (this.width?.ms !== width || !(have.from <= first + width) || !(have.to > first)) return [];
    return this.windows.filter(({ time }) => time >= first && time + 2 * width < have.to);
  }

  /** @param {Span} span */
  #known(span) {
    const now = this.plant.now();
    this.have = { from: span.from, to: Math.min(span.to, now) };
    this.reachesNow = span.to >= now - 1;
  }

  /** From when on history has to be read: a live trend needs only its end. @param {Span} span */
  #missingFrom(span) {
    const known = this.width === null && this.have.from <= span.from + 1 && this.have.to > span.from;
    return known ? Math.max(span.from, this.have.to - 2000) : span.from;
  }

  /** Take the newest sample in, where it is new. Returns whether it was. */
  hear() {
    const { columns, hello } = this.plant;
    const { index } = this.tag;
    const time = columns.time[index];
    // A trend nobody has looked at keeps nothing: its history is read when somebody does.
    if (!Number.isFinite(time) || time === this.heard || Number.isNaN(this.have.from)) return false;
    this.heard = time;
    if (this.points.all.length > 4 * MOST_POINTS) this.points.all.splice(0, 2 * MOST_POINTS);
    const status = columns.status[index];
    const names = hello?.reasons ?? {};
    this.points.add({
      time,
      value: columns.value[index],
      estimate: columns.estimate[index],
      std: columns.std[index],
      severity: Math.min(status >>> 30, 2),
      reasons: reasonNames(columns.reasons[index], names),
    });
    return true;
  }

  /** Forget what was read: the server may have other rows now. */
  forget() {
    this.have = { from: NaN, to: NaN };
    this.askedAt = -Infinity;
  }

  close() {
    this.asking?.abort();
  }
}

/** The predictions of an asset's outputs. */
export class Predictions {
  /**
   * @param {import("../plant.js").Plant} plant
   * @param {string} asset
   */
  constructor(plant, asset) {
    this.plant = plant;
    this.asset = asset;
    /** @type {Map<string, import("../ui/chartdraw.js").Ahead[]>} ascending, by output */
    this.byOutput = new Map();
    /** @type {Span} */
    this.have = { from: NaN, to: NaN };
    /** Whether the span holds too many to show them. */
    this.tooMany = false;
    /** @type {AbortController | null} */
    this.asking = null;
  }

  /**
   * @param {Span} span
   * @param {boolean} follows
   * @returns {Promise<boolean>}
   */
  async ensure(span, follows) {
    const snapshot = this.plant.assets.get(this.asset)?.snapshot;
    if (!snapshot?.predictions.length) return false;
    const horizon = (snapshot.horizon_s || 0) * 1000;
    const perS = 1 / (this.plant.hello?.period_s || 1);
    const now = this.plant.now();
    const tooMany = ((Math.min(span.to, now) - span.from) / 1000) * perS > MOST_POINTS;
    const changed = tooMany !== this.tooMany;
    this.tooMany = tooMany;
    if (tooMany) return changed;
    const enough = follows ? this.have.to > now - 60_000 : this.have.to >= Math.min(span.to, now) - 2000;
    if (this.have.from <= span.from && enough) return changed;
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    try {
      const query = { asset: this.asset, start: isoTime(span.from - horizon), end: isoTime(span.to), limit: 60_000 };
      const found = await rows("/predictions", query, { signal: asking.signal, most: 60_000 });
      this.#take(found.rows, now);
      this.have = { from: span.from, to: Math.min(span.to, now) };
      return true;
    } catch {
      return changed; // the newest ones come live; the next span asks again
    }
  }

  /** @param {any[]} found @param {number} now */
  #take(found, now) {
    const live = this.byOutput;
    this.byOutput = new Map();
    for (const row of found) this.#push(row.output, aheadOf(row));
    for (const [output, known] of live) {
      const list = this.byOutput.get(output) ?? [];
      const last = list[list.length - 1]?.time ?? -Infinity;
      this.byOutput.set(output, [...list, ...known.filter((each) => each.time > last && each.time > now - 60_000)]);
    }
  }

  /** @param {string} output @param {import("../ui/chartdraw.js").Ahead} ahead */
  #push(output, ahead) {
    const list = this.byOutput.get(output) ?? [];
    this.byOutput.set(output, list);
    if (!list.length || list[list.length - 1].time < ahead.time) list.push(ahead);
  }

  /** @param {import("../pure/assets.js").Snapshot} snapshot */
  hear(snapshot) {
    const time = parseTime(snapshot.time);
    if (time - this.have.to < LIVE_MS) this.have.to = Math.max(this.have.to, time); // nothing lies between
    for (const each of snapshot.predictions) {
      this.#push(each.output, {
        time,
        due: time + snapshot.horizon_s * 1000,
        now: each.now ?? NaN,
        value: each.value ?? NaN,
        persistence: each.persistence ?? NaN,
      });
    }
    for (const list of this.byOutput.values()) if (list.length > 40_000) list.splice(0, list.length - 30_000);
  }

  forget() {
    this.have = { from: NaN, to: NaN };
  }

  close() {
    this.asking?.abort();
  }
}

/** @param {any} row */
function aheadOf(row) {
  return { time: parseTime(row.time), due: parseTime(row.due), now: row.now ?? NaN, value: row.value ?? NaN, persistence: row.persistence ?? NaN };
}
