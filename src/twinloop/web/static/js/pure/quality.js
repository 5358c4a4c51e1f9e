/** The quality map: who was how good when, in a grid of tags by time. */

import { parseTime } from "./time.js";

/**
 * @typedef {object} Cell
 * @property {number} count
 * @property {number} good
 * @property {number} uncertain
 * @property {number} bad
 */

/**
 * @typedef {object} Row
 * @property {string} tag
 * @property {Map<number, Cell>} cells by window start, ms
 * @property {Cell} sum
 */

/** A map that grows with what is read. */
export class Grid {
  /** @param {number} width of a window, ms */
  constructor(width) {
    this.width = width;
    /** @type {Map<string, Row>} */
    this.byTag = new Map();
    /** The start of the newest window known, ms. */
    this.newest = NaN;
  }

  /**
   * Take rows of /quality in; a window that is known already is replaced.
   *
   * @param {{tag: string, time: string, count: number, good: number, uncertain: number, bad: number}[]} rows
   */
  take(rows) {
    for (const { tag, time, count, good, uncertain, bad } of rows) {
      let row = this.byTag.get(tag);
      if (!row) this.byTag.set(tag, (row = { tag, cells: new Map(), sum: nothing() }));
      const at = parseTime(time);
      row.cells.set(at, { count, good, uncertain, bad });
      if (!(at <= this.newest)) this.newest = at;
    }
  }

  /**
   * Forget windows before `from`, and add up the rest.
   *
   * @param {number} from ms
   */
  settle(from) {
    for (const row of this.byTag.values()) {
      row.sum = nothing();
      for (const [at, cell] of row.cells) {
        if (at < from) row.cells.delete(at);
        else {
          row.sum.count += cell.count;
          row.sum.good += cell.good;
          row.sum.uncertain += cell.uncertain;
          row.sum.bad += cell.bad;
        }
      }
    }
  }

  /**
   * Rows of the tags that match, the worst first or by name; a tag without any sample is among them.
   *
   * @param {string[]} tags all there are, in the order of the plant file
   * @param {string} search
   * @param {boolean} worstFirst
   * @returns {Row[]}
   */
  rows(tags, search, worstFirst) {
    const wanted = search.toLowerCase().split(/\s+/).filter(Boolean);
    const found = tags
      .filter((tag) => wanted.every((part) => tag.toLowerCase().includes(part)))
      .map((tag) => this.byTag.get(tag) ?? { tag, cells: new Map(), sum: nothing() });
    return worstFirst ? found.map((row, at) => ({ row, at })).sort((a, b) => worse(a.row, b.row) || a.at - b.at).map(({ row }) => row) : found;
  }
}

/** @returns {Cell} */
function nothing() {
  return { count: 0, good: 0, uncertain: 0, bad: 0 };
}

/** @param {Row} a @param {Row} b */
function worse(a, b) {
  return shareOf(b.sum, "bad") - shareOf(a.sum, "bad") || shareOf(b.sum, "uncertain") - shareOf(a.sum, "uncertain");
}

/** @param {Cell} sum @param {"bad" | "uncertain"} kind */
function shareOf(sum, kind) {
  return sum.count ? sum[kind] / sum.count : 0;
}

/**
 * The reasons of all tags added up, the most frequent first, each with the tag that has it most.
 *
 * @param {{tag: string, by_reason: Record<string, number>}[]} trouble rows of /trouble
 * @returns {{reason: string, count: number, tags: number, worst: string}[]}
 */
export function reasonsIn(trouble) {
  /** @type {Map<string, {reason: string, count: number, tags: number, worst: string, most: number}>} */
  const found = new Map();
  for (const { tag, by_reason: reasons } of trouble) {
    for (const [reason, count] of Object.entries(reasons ?? {})) {
      const known = found.get(reason) ?? { reason, count: 0, tags: 0, worst: "", most: 0 };
      found.set(reason, known);
      known.count += count;
      known.tags += 1;
      if (count > known.most) [known.most, known.worst] = [count, tag];
    }
  }
  return [...found.values()].sort((a, b) => b.count - a.count).map(({ most: _, ...rest }) => rest);
}
