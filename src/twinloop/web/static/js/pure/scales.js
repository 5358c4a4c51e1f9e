/** Steps, windows and ranges that read well. */

const SECOND = 1000;
/** @type {[string, number][]} */
const WIDTHS = [
  ["1s", SECOND],
  ["2s", 2 * SECOND],
  ["5s", 5 * SECOND],
  ["10s", 10 * SECOND],
  ["15s", 15 * SECOND],
  ["30s", 30 * SECOND],
  ["1m", 60 * SECOND],
  ["2m", 120 * SECOND],
  ["5m", 300 * SECOND],
  ["10m", 600 * SECOND],
  ["15m", 900 * SECOND],
  ["30m", 1800 * SECOND],
  ["1h", 3600 * SECOND],
  ["2h", 7200 * SECOND],
  ["6h", 21600 * SECOND],
  ["12h", 43200 * SECOND],
  ["1d", 86400 * SECOND],
];

/**
 * The narrowest window of at least `least` ms that cuts a span into at most so many.
 *
 * @param {number} spanMs
 * @param {number} most
 * @param {number} [least]
 * @returns {{text: string, ms: number}}
 */
export function windowFor(spanMs, most, least = 0) {
  const found = WIDTHS.find(([, ms]) => ms >= least && spanMs / ms <= most) ?? WIDTHS[WIDTHS.length - 1];
  return { text: found[0], ms: found[1] };
}

/** A window in words: `10m` is "10 min". @param {string} text */
export function windowWords(text) {
  return text.replace(/(\d+)([smhd])/, (_, n, unit) => `${n}\u202f${unit === "m" ? "min" : unit}`);
}

/**
 * Limits of a value axis around what is shown, with some air; never of no height.
 *
 * @param {number} low
 * @param {number} high
 * @param {number} least the smallest height that makes sense (a few noise deviations)
 * @returns {[number, number]}
 */
export function valueRange(low, high, least) {
  if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
  const size = Math.max(high - low, Number.isFinite(least) ? least : 0, Math.abs(high) * 1e-6, 1e-12);
  const middle = (low + high) / 2;
  return [middle - size * 0.56, middle + size * 0.56];
}

/**
 * What a cell of the quality map says: the worst severity there is, and how much of it.
 *
 * @param {{count: number, good: number, uncertain: number, bad: number} | undefined} cell
 * @returns {{kind: "none" | "good" | "uncertain" | "bad", share: number}}
 */
export function cellQuality(cell) {
  if (!cell || !cell.count) return { kind: "none", share: 0 };
  if (cell.bad > 0) return { kind: "bad", share: cell.bad / cell.count };
  if (cell.uncertain > 0) return { kind: "uncertain", share: cell.uncertain / cell.count };
  return { kind: "good", share: 1 };
}

/**
 * A share in a few steps that the eye can tell apart.
 *
 * @param {number} share 0 to 1
 */
export function strength(share) {
  if (share >= 0.5) return 1;
  if (share >= 0.2) return 0.85;
  return share >= 0.05 ? 0.7 : 0.55;
}
