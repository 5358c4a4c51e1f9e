/** Numbers as an operator reads them: as many digits as the instrument deserves, a unit always beside them. */

import { unitText } from "./words.js";

export const NONE = "–";
const THIN = "\u202f";

/**
 * Decimals that show a change of half of `resolution` (a noise deviation, say); NaN where nothing is known of it.
 *
 * @param {number | null | undefined} resolution
 */
export function decimalsFor(resolution) {
  if (!resolution || !Number.isFinite(resolution) || resolution <= 0) return NaN;
  return Math.min(8, Math.max(0, Math.ceil(-Math.log10(resolution / 2) - 1e-9)));
}

/**
 * The decimals that a step needs to be told from the next one: 0 for 5, 1 for 2.5.
 *
 * @param {number} step
 */
export function stepDecimals(step) {
  for (let decimals = 0; decimals < 8; decimals += 1) {
    const scaled = step * 10 ** decimals;
    if (Math.abs(scaled - Math.round(scaled)) < 1e-6 * scaled) return decimals;
  }
  return 8;
}

/**
 * A number with so many decimals, or four significant digits where they are not known.
 *
 * @param {number | null | undefined} value
 * @param {number} [decimals]
 */
export function number(value, decimals = NaN) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return minus(value.toExponential(3));
  if (!Number.isNaN(decimals)) return minus(value.toFixed(decimals));
  const before = size === 0 ? 1 : Math.floor(Math.log10(size)) + 1;
  return minus(value.toFixed(Math.min(8, Math.max(0, 4 - before))));
}

/**
 * A number somebody wrote, as they wrote it: 150, 0.25.
 *
 * @param {number | null | undefined} value
 */
export function plain(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  return minus(String(Number(value.toPrecision(7))));
}

/**
 * A number and its unit.
 *
 * @param {number | null | undefined} value
 * @param {string | null | undefined} unit as the plant file writes it
 * @param {number} [decimals]
 */
export function quantity(value, unit, decimals = NaN) {
  const text = number(value, decimals);
  const after = unitText(unit);
  return text === NONE || !after ? text : `${text}${THIN}${after}`;
}

/**
 * A fraction as percent, one decimal.
 *
 * @param {number | null | undefined} fraction
 * @param {number} [decimals]
 */
export function percent(fraction, decimals = 1) {
  if (fraction === null || fraction === undefined || !Number.isFinite(fraction)) return NONE;
  return `${minus((100 * fraction).toFixed(decimals))}${THIN}%`;
}

/**
 * A share as percent that never rounds something to nothing or nearly all to all.
 *
 * @param {number} part
 * @param {number} whole
 */
export function share(part, whole) {
  if (!whole) return NONE;
  const of = (100 * part) / whole;
  if (part > 0 && of < 0.1) return `<${THIN}0.1${THIN}%`;
  if (part < whole && of > 99.9) return `>${THIN}99.9${THIN}%`;
  return `${of.toFixed(of >= 10 || of === 0 ? 0 : 1)}${THIN}%`;
}

/**
 * A count with thin spaces between thousands.
 *
 * @param {number | null | undefined} value
 */
export function count(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  return minus(String(Math.round(value)).replace(/\B(?=(\d{3})+(?!\d))/g, THIN));
}

/**
 * A rate: three significant digits below a thousand.
 *
 * @param {number | null | undefined} value
 */
export function rate(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  return size >= 100 ? count(value) : size >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/**
 * Bytes in decimal units.
 *
 * @param {number | null | undefined} value
 */
export function bytes(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  let size = value;
  while (size >= 1000 && at < units.length - 1) {
    size /= 1000;
    at += 1;
  }
  return `${at === 0 ? size : size.toPrecision(3)}${THIN}${units[at]}`;
}

/**
 * Seconds as people say them: 3.2 ms, 0.45 s, 12 s, 3 min 20 s, 2 h 5 min, 4 d 3 h.
 *
 * @param {number | null | undefined} seconds
 * @returns {string}
 */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NONE;
  if (seconds < 0) return `−${duration(-seconds)}`;
  if (seconds < 0.1) return `${(seconds * 1000).toPrecision(2).replace(/\.0$/, "")}${THIN}ms`;
  if (seconds < 10) return `${seconds.toFixed(seconds < 1 ? 2 : 1)}${THIN}s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}${THIN}s`;
  const steps = [
    [86400, "d", 3600, "h"],
    [3600, "h", 60, "min"],
    [60, "min", 1, "s"],
  ];
  for (const [size, word, below, small] of /** @type {[number, string, number, string][]} */ (steps)) {
    if (whole >= size) {
      const rest = Math.floor((whole % size) / below);
      return rest ? `${Math.floor(whole / size)}${THIN}${word} ${rest}${THIN}${small}` : `${Math.floor(whole / size)}${THIN}${word}`;
    }
  }
  return `${whole}${THIN}s`;
}

/**
 * An age, in whole seconds: it ticks and does not flicker.
 *
 * @param {number} seconds
 */
export function age(seconds) {
  if (!Number.isFinite(seconds)) return NONE;
  return seconds < 10 ? `${Math.max(0, Math.floor(seconds))}${THIN}s` : duration(seconds);
}

/** @param {string} text */
function minus(text) {
  return text.replace(/-/g, "−");
}
