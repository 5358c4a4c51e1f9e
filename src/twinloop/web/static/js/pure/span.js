/** The span of time a trend page shows, and how an address says it. */

/** Ranges offered, ms. @type {[string, string, number][]} */
export const RANGES = [
  ["5m", "5 min", 5 * 60_000],
  ["1h", "1 h", 3_600_000],
  ["24h", "24 h", 86_400_000],
  ["7d", "7 d", 7 * 86_400_000],
];
export const SHORTEST_MS = 2000;
export const LONGEST_MS = 366 * 86_400_000;
/** A span that follows reaches so far beyond now, at most, to show what is predicted; as a share of its length. */
const AHEAD_SHARE = 0.25;

/**
 * @typedef {object} Span
 * @property {number} from ms
 * @property {number} to ms
 */

/**
 * The span of the last `size` ms, and a little of what is to come.
 *
 * @param {number} size ms
 * @param {number} now ms
 * @param {number} horizon ms predicted ahead; 0 for nothing
 * @returns {Span}
 */
export function following(size, now, horizon) {
  const ahead = Math.min(horizon * 1.05, size * AHEAD_SHARE);
  return { from: now - size, to: now + ahead };
}

/**
 * A span of sensible length around the same middle.
 *
 * @param {number} from
 * @param {number} to
 * @returns {Span}
 */
export function sensible(from, to) {
  const middle = (from + to) / 2;
  const size = Math.min(LONGEST_MS, Math.max(SHORTEST_MS, to - from));
  return { from: middle - size / 2, to: middle + size / 2 };
}

/**
 * What the query of an address asks for: a span that follows, or one that stands.
 *
 * @param {URLSearchParams} query `range`, or `from` and `to`, or `at`
 * @param {(text: string) => number} parse a time in ms
 * @returns {{size: number, follows: true} | {span: Span, follows: false}}
 */
export function asked(query, parse) {
  const from = parse(query.get("from") ?? "");
  const to = parse(query.get("to") ?? "");
  if (to > from) return { span: sensible(from, to), follows: false };
  const at = parse(query.get("at") ?? "");
  if (Number.isFinite(at)) return { span: { from: at - 120_000, to: at + 60_000 }, follows: false };
  return { size: rangeSize(query.get("range")), follows: true };
}

/** The length of a range by its name, ms; that of the shortest for another. @param {string | null} name */
export function rangeSize(name) {
  return (RANGES.find((range) => range[0] === name) ?? RANGES[0])[2];
}
