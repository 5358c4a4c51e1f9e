/** The newest sample of every tag and a short memory for sparklines, in typed arrays by tag index. */

/** Bins of a sparkline, and how long one is: four minutes in all. */
export const BINS = 120;
export const BIN_MS = 2000;

/** @typedef {import("./frame.js").Frame} Frame */

/** What is known of every tag now. */
export class Columns {
  /** @param {number} size one more than the largest tag index */
  constructor(size) {
    this.size = size;
    this.time = new Float64Array(size).fill(NaN);
    this.arrival = new Float64Array(size).fill(NaN);
    this.value = new Float64Array(size).fill(NaN);
    this.estimate = new Float64Array(size).fill(NaN);
    this.std = new Float32Array(size).fill(NaN);
    this.status = new Uint32Array(size);
    this.reasons = new Uint32Array(size);
    this.sparks = new Sparks(size);
    /** Samples seen of each tag, for its rate. */
    this.seen = new Uint32Array(size);
    this.began = NaN;
    this.now = NaN;
  }

  /**
   * Take a frame in; rows of tags that are not known are passed over.
   *
   * @param {Frame} frame
   * @param {(index: number, severity: number, row: number) => void} changed called where a severity changed
   */
  apply(frame, changed) {
    if (Number.isNaN(this.began)) this.began = frame.now;
    this.now = frame.now;
    for (let row = 0; row < frame.n; row += 1) {
      const index = frame.index[row];
      if (index >= this.size) continue;
      const before = this.status[index] >>> 30;
      const after = frame.status[row] >>> 30;
      const fresh = frame.time[row] !== this.time[index] && Number.isFinite(frame.time[row]);
      this.time[index] = frame.time[row];
      this.arrival[index] = frame.arrival[row];
      this.value[index] = frame.value[row];
      this.estimate[index] = frame.estimate[row];
      this.std[index] = frame.std[row];
      this.status[index] = frame.status[row];
      this.reasons[index] = frame.reasons[row];
      if (fresh) {
        this.seen[index] += 1;
        this.sparks.add(index, frame.time[row], finite(frame.estimate[row], frame.value[row]), frame.std[row], after);
      }
      if (before !== after) changed(index, after, row);
    }
  }

  /** Whether a tag gives values that are not Bad. @param {number} index */
  isOfUse(index) {
    return Number.isFinite(this.time[index]) && this.status[index] >>> 30 < 2;
  }

  /**
   * Samples a second of a tag since the page began to listen; NaN before anything can be said.
   *
   * @param {number} index
   */
  rate(index) {
    const span = (this.now - this.began) / 1000;
    return span > 3 ? (this.seen[index] - 1) / span : NaN;
  }
}

/** A ring of bins for each tag: the last estimate, its deviation and the worst severity of each bin. */
export class Sparks {
  /** @param {number} size tags */
  constructor(size) {
    this.newest = new Float64Array(size).fill(-1);
    this.value = new Float32Array(size * BINS).fill(NaN);
    this.std = new Float32Array(size * BINS).fill(NaN);
    this.worst = new Uint8Array(size * BINS);
  }

  /**
   * @param {number} index
   * @param {number} time ms
   * @param {number} value
   * @param {number} std
   * @param {number} severity
   */
  add(index, time, value, std, severity) {
    const bin = Math.floor(time / BIN_MS);
    const newest = this.newest[index];
    if (!(bin > newest - BINS)) return;
    const base = index * BINS;
    if (bin > newest) {
      for (let each = Math.max(newest + 1, bin - BINS + 1); each <= bin; each += 1) this.#clear(base + (each % BINS));
      this.newest[index] = bin;
    }
    const slot = base + (bin % BINS);
    this.value[slot] = value;
    this.std[slot] = std;
    if (severity > this.worst[slot]) this.worst[slot] = severity;
  }

  /** @param {number} slot */
  #clear(slot) {
    this.value[slot] = NaN;
    this.std[slot] = NaN;
    this.worst[slot] = 0;
  }

  /**
   * Call `each(k, value, std, worst)` for the bins up to `now`, k from 0 (oldest) to BINS - 1; NaN where nothing is known.
   *
   * @param {number} index
   * @param {number} now ms
   * @param {(k: number, value: number, std: number, worst: number) => void} each
   */
  read(index, now, each) {
    const last = Math.floor(now / BIN_MS);
    const newest = this.newest[index];
    for (let k = 0; k < BINS; k += 1) {
      const bin = last - BINS + 1 + k;
      const known = bin >= 0 && bin <= newest && bin > newest - BINS;
      const slot = index * BINS + (((bin % BINS) + BINS) % BINS);
      if (known) each(k, this.value[slot], this.std[slot], this.worst[slot]);
      else each(k, NaN, NaN, 0);
    }
  }

  /** Whether nothing older than the newest two bins is known. @param {number} index */
  isYoung(index) {
    const newest = this.newest[index];
    if (newest < 0) return true;
    let known = 0;
    for (let k = 0; k < BINS; k += 1) if (!Number.isNaN(this.value[index * BINS + k])) known += 1;
    return known < BINS / 2;
  }

  /**
   * Put older values in where nothing was heard.
   *
   * @param {number} index
   * @param {{time: number, value: number, std: number, severity: number}[]} points ascending
   */
  backfill(index, points) {
    const heardFrom = this.#oldest(index);
    for (const { time, value, std, severity } of points) {
      const bin = Math.floor(time / BIN_MS);
      const slot = index * BINS + (bin % BINS);
      const isHole = bin > this.newest[index] - BINS && (bin < heardFrom || Number.isNaN(this.value[slot]));
      if (this.newest[index] < 0 || bin > this.newest[index] || isHole) this.add(index, time, value, std, severity);
    }
  }

  /** The oldest bin known of a tag; Infinity where there is none. @param {number} index */
  #oldest(index) {
    const newest = this.newest[index];
    if (newest < 0) return Infinity;
    for (let bin = Math.max(0, newest - BINS + 1); bin <= newest; bin += 1) {
      if (!Number.isNaN(this.value[index * BINS + (bin % BINS)])) return bin;
    }
    return Infinity;
  }
}

/**
 * The first number that is one.
 *
 * @param {number} first
 * @param {number} second
 */
function finite(first, second) {
  return Number.isFinite(first) ? first : second;
}
