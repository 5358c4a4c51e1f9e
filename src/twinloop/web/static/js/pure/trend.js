/** The points of one trend in a span of time: kept ascending, merged from history and live, made ready to draw. */

import { parseTime } from "./time.js";
import { reasonsOf, severityOf } from "./words.js";

/**
 * @typedef {object} Point
 * @property {number} time ms
 * @property {string} [exact] the time as the server wrote it
 * @property {number} value NaN where there is none
 * @property {number} estimate NaN where not known
 * @property {number} std
 * @property {number} severity 0, 1, 2
 * @property {string[]} reasons
 */

/** Times closer than this are one sample's: a float64 of ms holds no single nanosecond. */
const SAME_MS = 0.002;
/** The height a flat line leaves to predictions where nobody said what is noise, as a share of its value. */
const FLAT = 0.02;

/**
 * A row of /range as a point.
 *
 * @param {any} row
 * @returns {Point}
 */
export function pointOf(row) {
  return {
    time: parseTime(row.time),
    exact: row.time,
    value: row.value ?? NaN,
    estimate: row.estimate ?? NaN,
    std: row.estimate_std ?? NaN,
    severity: severityOf(row.status),
    reasons: reasonsOf(row.reasons),
  };
}

/** Samples of a tag, ascending. */
export class Points {
  constructor() {
    /** @type {Point[]} */
    this.all = [];
  }

  /**
   * Add a sample that was just heard; one that is there already, or is out of order, finds its place.
   *
   * @param {Point} point
   */
  add(point) {
    const last = this.all[this.all.length - 1];
    if (!last || point.time > last.time + SAME_MS) {
      this.all.push(point);
      return;
    }
    const at = this.after(point.time - SAME_MS);
    const same = at < this.all.length && Math.abs(this.all[at].time - point.time) <= SAME_MS;
    this.all.splice(at, same ? 1 : 0, same ? { ...this.all[at], ...point } : point);
  }

  /**
   * Take history of [start, end] in: it stands in the place of what was known of that span. What is newer than its last
   * row stays: it was heard live and may not have been stored when the question was asked.
   *
   * @param {Point[]} rows ascending
   * @param {number} start ms
   * @param {number} end ms
   */
  merge(rows, start, end) {
    const upto = rows.length ? rows[rows.length - 1].time : start;
    const before = this.all.slice(0, this.after(start - SAME_MS));
    const behind = this.all.slice(this.after(Math.min(end, upto) + SAME_MS));
    this.all = [...before, ...rows, ...behind];
  }

  /** Forget what lies outside. @param {number} start @param {number} end */
  trim(start, end) {
    const first = this.after(start);
    const last = this.after(end);
    if (first > 0 || last < this.all.length) this.all = this.all.slice(first, last);
  }

  /** The number of points before `time`: the place of the first at or after it. @param {number} time */
  after(time) {
    let low = 0;
    let high = this.all.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.all[middle].time < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The place of the point nearest to `time`; -1 where there is none. @param {number} time */
  nearest(time) {
    if (!this.all.length) return -1;
    const at = this.after(time);
    if (at === 0) return 0;
    if (at === this.all.length) return at - 1;
    return time - this.all[at - 1].time <= this.all[at].time - time ? at - 1 : at;
  }
}

/**
 * Columns for the plot: times, centre, lower and upper edge of the band. A silence longer than `gap` breaks the line, so that a dead
 * sensor draws none.
 *
 * @param {Point[]} points ascending
 * @param {number} gap ms
 * @returns {[number[], (number | null)[], (number | null)[], (number | null)[]]}
 */
export function columnsOf(points, gap) {
  /** @type {[number[], (number | null)[], (number | null)[], (number | null)[]]} */
  const out = [[], [], [], []];
  let last = NaN;
  for (const point of points) {
    if (point.time - last > gap) push(out, (point.time + last) / 2, null, null, null);
    last = point.time;
    if (!Number.isFinite(point.estimate)) {
      push(out, point.time, null, null, null);
    } else {
      const band = Number.isFinite(point.std) ? 2 * point.std : 0;
      push(out, point.time, point.estimate, point.estimate - band, point.estimate + band);
    }
  }
  return out;
}

/**
 * @typedef {object} Window a row of /window
 * @property {number} time ms
 * @property {number} mean
 * @property {number} min
 * @property {number} max
 * @property {number} count
 * @property {number} good share of Good samples
 */

/**
 * @param {any} row
 * @returns {Window}
 */
export function windowOf(row) {
  return {
    time: parseTime(row.time),
    mean: row.mean ?? NaN,
    min: row.min ?? NaN,
    max: row.max ?? NaN,
    count: row.count,
    good: row.good_fraction ?? NaN,
  };
}

/**
 * Columns for the plot of windows, each drawn at its middle; a missing one breaks the line.
 *
 * @param {Window[]} windows ascending
 * @param {number} width ms
 */
export function windowColumns(windows, width) {
  /** @type {[number[], (number | null)[], (number | null)[], (number | null)[]]} */
  const out = [[], [], [], []];
  let last = NaN;
  for (const each of windows) {
    if (each.time - last > width * 1.5) push(out, last + width, null, null, null);
    last = each.time;
    if (Number.isFinite(each.mean)) push(out, each.time + width / 2, each.mean, each.min, each.max);
    else push(out, each.time + width / 2, null, null, null);
  }
  return out;
}

/**
 * Low and high of what has to be in sight: Bad values are not, they are marked at the edge.
 *
 * @param {Point[]} points
 * @param {number} from ms
 * @param {number} to ms
 * @returns {[number, number]}
 */
export function extent(points, from, to) {
  let low = Infinity;
  let high = -Infinity;
  for (const point of points) {
    if (point.time < from || point.time > to) continue;
    if (point.severity < 2 && Number.isFinite(point.value)) {
      low = Math.min(low, point.value);
      high = Math.max(high, point.value);
    }
    if (Number.isFinite(point.estimate)) {
      const band = Number.isFinite(point.std) ? 2 * point.std : 0;
      low = Math.min(low, point.estimate - band);
      high = Math.max(high, point.estimate + band);
    }
  }
  return [low, high];
}

/**
 * Low and high with predictions in sight as far as they leave a third of the height to what happened: one that was far off
 * would make a flat line of the rest. The newest is in sight in any case.
 *
 * @param {[number, number]} seen
 * @param {{value: number, persistence: number}[]} ahead
 * @param {{value: number} | null} newest where it is in the span
 * @param {number} least the smallest height that makes sense
 * @returns {[number, number]}
 */
export function withAhead(seen, ahead, newest, least) {
  let [low, high] = seen;
  const room = low <= high ? Math.max(high - low, least || FLAT * Math.max(Math.abs(low), Math.abs(high))) : Infinity;
  const [floor, ceiling] = Number.isFinite(room) ? [low - room, high + room] : [-Infinity, Infinity];
  const widen = (/** @type {number} */ value) => {
    if (!Number.isFinite(value)) return;
    low = Math.min(low, value);
    high = Math.max(high, value);
  };
  for (const { value, persistence } of ahead) {
    if (!Number.isFinite(value)) continue;
    widen(Math.min(ceiling, Math.max(floor, value)));
    widen(Math.min(ceiling, Math.max(floor, persistence)));
  }
  if (newest) widen(newest.value);
  return [low, high];
}

/**
 * @param {[number[], (number | null)[], (number | null)[], (number | null)[]]} out
 * @param {number} x
 * @param {number | null} a
 * @param {number | null} b
 * @param {number | null} c
 */
function push(out, x, a, b, c) {
  out[0].push(x);
  out[1].push(a);
  out[2].push(b);
  out[3].push(c);
}
