/** A sparkline: the last four minutes of a tag's estimate with its band, and marks where samples were not Good. */

import { palette } from "../prefs.js";
import { BINS } from "../pure/columns.js";
import { sharp } from "./visible.js";

/**
 * @typedef {object} SparkLimits
 * @property {number} low warning limits; NaN for none
 * @property {number} high
 * @property {number} least the smallest height worth showing
 */

const values = new Float64Array(BINS);
const deviations = new Float64Array(BINS);
const marks = new Uint8Array(BINS);

/**
 * Draw a tag's sparkline.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {import("../pure/columns.js").Sparks} sparks
 * @param {number} index
 * @param {number} now ms
 * @param {SparkLimits} limits
 */
export function drawSpark(canvas, sparks, index, now, limits) {
  const { width, height } = sizeOf(canvas);
  if (!width || !height) return;
  const context = sharp(canvas, width, height);
  const colours = palette();
  const [low, high] = read(sparks, index, now, limits.least);
  if (!(high > low)) return;
  const x = (/** @type {number} */ k) => (k / (BINS - 1)) * (width - 4) + 1;
  const y = (/** @type {number} */ value) => 7 + (1 - (value - low) / (high - low)) * (height - 10);

  for (const limit of [limits.low, limits.high]) {
    if (limit > low && limit < high) dashed(context, width, y(limit), colours.limit);
  }
  band(context, x, y, colours.band);
  line(context, x, y, colours.estimate);
  for (let k = 0; k < BINS; k += 1) {
    if (marks[k]) mark(context, x(k), marks[k], marks[k] > 1 ? colours.bad : colours.uncertain);
  }
  const last = lastKnown();
  if (last >= 0) {
    context.fillStyle = colours.estimate;
    context.beginPath();
    context.arc(x(last), y(values[last]), 2.2, 0, 2 * Math.PI);
    context.fill();
  }
}

/** Sizes as the browser told them: to ask for one would have it lay the page out at once, for each canvas. */
const sizes = new WeakMap();
const resizing = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) sizes.set(target, { width: contentRect.width, height: contentRect.height });
});

/**
 * @param {HTMLCanvasElement} canvas
 * @returns {{width: number, height: number}} nothing until it has been laid out
 */
function sizeOf(canvas) {
  const known = sizes.get(canvas);
  if (known) return known;
  sizes.set(canvas, { width: 0, height: 0 });
  resizing.observe(canvas);
  return { width: 0, height: 0 };
}

/**
 * @param {import("../pure/columns.js").Sparks} sparks
 * @param {number} index
 * @param {number} now
 * @param {number} least
 * @returns {[number, number]}
 */
function read(sparks, index, now, least) {
  let low = Infinity;
  let high = -Infinity;
  sparks.read(index, now, (k, value, std, worst) => {
    values[k] = value;
    deviations[k] = Number.isNaN(std) ? 0 : 2 * std;
    marks[k] = worst;
    if (!Number.isNaN(value)) {
      low = Math.min(low, value - deviations[k]);
      high = Math.max(high, value + deviations[k]);
    }
  });
  const size = Math.max(high - low, least, Math.abs(high) * 1e-6) || 1;
  const middle = (low + high) / 2;
  return [middle - size * 0.55, middle + size * 0.55];
}

function lastKnown() {
  for (let k = BINS - 1; k >= 0; k -= 1) if (!Number.isNaN(values[k])) return k;
  return -1;
}

/**
 * A bin or two without a sample is no gap: slow tags have them.
 *
 * @param {(from: number, to: number) => void} run called with each stretch that holds together
 */
function stretches(run) {
  let from = -1;
  let last = -1;
  for (let k = 0; k < BINS; k += 1) {
    if (Number.isNaN(values[k])) continue;
    if (from < 0) from = k;
    else if (k - last > 3) {
      run(from, last);
      from = k;
    }
    last = k;
  }
  if (from >= 0) run(from, last);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {(k: number) => number} x
 * @param {(value: number) => number} y
 * @param {string} colour
 */
function band(context, x, y, colour) {
  context.fillStyle = colour;
  stretches((from, to) => {
    context.beginPath();
    for (let k = from; k <= to; k += 1) if (!Number.isNaN(values[k])) context.lineTo(x(k), y(values[k] + deviations[k]));
    for (let k = to; k >= from; k -= 1) if (!Number.isNaN(values[k])) context.lineTo(x(k), y(values[k] - deviations[k]));
    context.fill();
  });
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {(k: number) => number} x
 * @param {(value: number) => number} y
 * @param {string} colour
 */
function line(context, x, y, colour) {
  context.strokeStyle = colour;
  context.lineWidth = 1.4;
  context.lineJoin = "round";
  stretches((from, to) => {
    context.beginPath();
    for (let k = from; k <= to; k += 1) if (!Number.isNaN(values[k])) context.lineTo(x(k), y(values[k]));
    context.stroke();
  });
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} x
 * @param {number} severity
 * @param {string} colour
 */
function mark(context, x, severity, colour) {
  context.fillStyle = colour;
  context.beginPath();
  if (severity > 1) context.rect(x - 2, 0.5, 4, 4);
  else {
    context.moveTo(x, 0);
    context.lineTo(x + 2.8, 5);
    context.lineTo(x - 2.8, 5);
  }
  context.fill();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} y
 * @param {string} colour
 */
function dashed(context, width, y, colour) {
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.setLineDash([4, 3]);
  context.beginPath();
  context.moveTo(0, y);
  context.lineTo(width, y);
  context.stroke();
  context.setLineDash([]);
}
