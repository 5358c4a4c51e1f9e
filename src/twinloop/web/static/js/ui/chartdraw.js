/** What a trend shows beyond its lines: limits, events, samples by severity, predictions. In canvas pixels. */

import { palette } from "../prefs.js";

/** @typedef {import("../pure/trend.js").Point} Point */
/** @typedef {any} UPlot */

/** Canvas pixels of a CSS pixel. @returns {number} */
function ratio() {
  return /** @type {any} */ (globalThis).uPlot.pxRatio;
}

/**
 * @typedef {object} Limit
 * @property {number} value
 * @property {string} label
 * @property {boolean} hard whether beyond it is Bad
 */

/**
 * Limits as lines with their names.
 *
 * @param {UPlot} u
 * @param {CanvasRenderingContext2D} context
 * @param {Limit[]} limits
 */
export function drawLimits(u, context, limits) {
  const r = ratio();
  const { min, max } = u.scales.y;
  context.font = `${10 * r}px system-ui, sans-serif`;
  for (const { value, label, hard } of limits) {
    if (!(value >= min && value <= max)) continue;
    const y = u.valToPos(value, "y", true);
    context.strokeStyle = hard ? palette().bad : palette().limit;
    context.fillStyle = hard ? palette().bad : palette().limit;
    context.lineWidth = r;
    context.setLineDash(hard ? [] : [8 * r, 3 * r]);
    stroke(context, u.bbox.left, y, u.bbox.left + u.bbox.width, y);
    context.setLineDash([]);
    const above = y - u.bbox.top > 16 * r;
    context.fillText(label, u.bbox.left + 4 * r, above ? y - 3 * r : y + 11 * r);
  }
}

/**
 * Events as upright lines with a foot whose shape says how grave they are.
 *
 * @param {UPlot} u
 * @param {CanvasRenderingContext2D} context
 * @param {{time: number, level: number}[]} events
 */
export function drawEvents(u, context, events) {
  const r = ratio();
  const { min, max } = u.scales.x;
  const foot = u.bbox.top + u.bbox.height;
  for (const { time, level } of events) {
    if (time < min || time > max) continue;
    const x = u.valToPos(time, "x", true);
    context.strokeStyle = palette().event;
    context.lineWidth = r;
    context.globalAlpha = 0.7;
    context.setLineDash([2 * r, 3 * r]);
    stroke(context, x, u.bbox.top, x, foot);
    context.globalAlpha = 1;
    context.setLineDash([]);
    context.fillStyle = level > 1 ? palette().bad : level ? palette().uncertain : palette().event;
    shape(context, x, foot - 5 * r, level, 4 * r);
  }
}

/**
 * Good samples: dots, under the lines.
 *
 * @param {UPlot} u
 * @param {CanvasRenderingContext2D} context
 * @param {Point[]} points
 */
export function drawGood(u, context, points) {
  const r = ratio();
  const { min: from, max: to } = u.scales.x;
  const dense = points.length / Math.max(1, u.bbox.width / r) > 0.7;
  const size = (dense ? 1 : 1.6) * r;
  context.fillStyle = palette().raw;
  context.globalAlpha = 0.75;
  context.beginPath();
  for (const point of points) {
    if (point.severity || point.time < from || point.time > to || !Number.isFinite(point.value)) continue;
    const x = u.valToPos(point.time, "x", true);
    const y = u.valToPos(point.value, "y", true);
    if (dense) context.rect(x - size, y - size, 2 * size, 2 * size);
    else {
      context.moveTo(x + size, y);
      context.arc(x, y, size, 0, 2 * Math.PI);
    }
  }
  context.fill();
  context.globalAlpha = 1;
}

/**
 * Samples that are not Good, over the lines: a triangle for Uncertain, a square for Bad. One beyond the axis is shown
 * at the edge, with an arrow; one without a value is hollow, on the estimate.
 *
 * @param {UPlot} u
 * @param {CanvasRenderingContext2D} context
 * @param {Point[]} points
 */
export function drawDoubtful(u, context, points) {
  const r = ratio();
  const { min: from, max: to } = u.scales.x;
  const top = u.bbox.top + 6 * r;
  const bottom = u.bbox.top + u.bbox.height - 6 * r;
  const colours = palette();
  for (const point of points) {
    if (!point.severity || point.time < from || point.time > to) continue;
    const has = Number.isFinite(point.value);
    const x = u.valToPos(point.time, "x", true);
    const y = u.valToPos(has ? point.value : Number.isFinite(point.estimate) ? point.estimate : u.scales.y.min, "y", true);
    const shown = Math.min(bottom, Math.max(top, y));
    const colour = point.severity > 1 ? colours.bad : colours.uncertain;
    context.fillStyle = has ? colour : colours.surface;
    context.strokeStyle = has ? colours.surface : colour;
    context.lineWidth = has ? r : 1.6 * r;
    shape(context, x, shown, point.severity, 4.2 * r);
    context.stroke();
    context.fillStyle = colour;
    if (has && shown !== y) arrow(context, x, shown, y < shown ? -1 : 1, r);
  }
}

/**
 * @typedef {object} Ahead a prediction
 * @property {number} time ms at which it was made
 * @property {number} due ms for which it was made
 * @property {number} now
 * @property {number} value
 * @property {number} persistence
 */

/**
 * Predictions at their due time, dashed, and persistence beside them, dotted; beyond now they are faint, as a newer one has
 * taken their place: that leads from now to its due time.
 *
 * @param {UPlot} u
 * @param {CanvasRenderingContext2D} context
 * @param {Ahead[]} ahead ascending
 * @param {number} now ms
 */
export function drawAhead(u, context, ahead, now) {
  if (!ahead.length) return;
  const { left, width } = u.bbox;
  const edge = Math.min(left + width, Math.max(left, u.valToPos(now, "x", true)));
  between(u, context, left, edge, () => drawMade(u, context, ahead));
  context.globalAlpha = 0.3;
  between(u, context, edge, left + width, () => drawMade(u, context, ahead));
  context.globalAlpha = 1;
  const last = ahead[ahead.length - 1];
  if (last.due > now) drawFan(u, context, last);
}

/** @param {UPlot} u @param {CanvasRenderingContext2D} context @param {Ahead[]} ahead */
function drawMade(u, context, ahead) {
  const r = ratio();
  path(u, context, ahead, (each) => each.persistence, palette().unchanged, [1.5 * r, 3 * r], 1.3 * r);
  path(u, context, ahead, (each) => each.value, palette().model, [6 * r, 3 * r], 1.7 * r);
}

/** The newest prediction, from now to its due time. @param {UPlot} u @param {CanvasRenderingContext2D} context @param {Ahead} last */
function drawFan(u, context, last) {
  const r = ratio();
  const colours = palette();
  const x = u.valToPos(last.due, "x", true);
  const x0 = u.valToPos(last.time, "x", true);
  const y0 = u.valToPos(last.now, "y", true);
  const unchanged = u.valToPos(last.persistence, "y", true);
  const predicted = u.valToPos(last.value, "y", true);
  context.strokeStyle = colours.unchanged;
  context.lineWidth = 1.3 * r;
  context.setLineDash([1.5 * r, 3 * r]);
  stroke(context, x0, y0, x, unchanged);
  context.setLineDash([]);
  context.strokeStyle = colours.model;
  context.lineWidth = 2 * r;
  stroke(context, x0, y0, x, predicted);
  ring(context, x, unchanged, 3 * r, colours.unchanged, r);
  context.fillStyle = colours.model;
  context.beginPath();
  context.arc(x, predicted, 3.6 * r, 0, 2 * Math.PI);
  context.fill();
}

/**
 * Draw what lies between two places alone.
 *
 * @param {UPlot} u
 * @param {CanvasRenderingContext2D} context
 * @param {number} from canvas pixels
 * @param {number} to
 * @param {() => void} draw
 */
function between(u, context, from, to, draw) {
  context.save();
  context.beginPath();
  context.rect(from, u.bbox.top, to - from, u.bbox.height);
  context.clip();
  draw();
  context.restore();
}

/**
 * How much of each window was not Good, as a bar at the foot.
 *
 * @param {UPlot} u
 * @param {CanvasRenderingContext2D} context
 * @param {import("../pure/trend.js").Window[]} windows
 * @param {number} width ms
 */
export function drawShares(u, context, windows, width) {
  const r = ratio();
  const foot = u.bbox.top + u.bbox.height;
  context.fillStyle = palette().uncertain;
  for (const each of windows) {
    const share = 1 - each.good;
    if (!(share > 0)) continue;
    const x = u.valToPos(each.time, "x", true);
    const w = Math.max(r, u.valToPos(each.time + width, "x", true) - x - r);
    const height = (3 + 13 * share) * r;
    context.fillRect(x, foot - height, w, height);
  }
}

/**
 * Windows that stand alone: no line leads to them, so they are a dot with its extent.
 *
 * @param {UPlot} u
 * @param {CanvasRenderingContext2D} context
 * @param {import("../pure/trend.js").Window[]} windows
 * @param {number} width ms
 */
export function drawLonely(u, context, windows, width) {
  const r = ratio();
  const { min, max } = u.scales.x;
  context.strokeStyle = context.fillStyle = palette().estimate;
  context.lineWidth = 1.5 * r;
  windows.forEach(({ time, mean, min: low, max: high }, k) => {
    const before = windows[k - 1];
    const after = windows[k + 1];
    const isAlone = !(before && time - before.time < 1.5 * width) && !(after && after.time - time < 1.5 * width);
    if (!isAlone || !Number.isFinite(mean) || time + width < min || time > max) return;
    const x = u.valToPos(time + width / 2, "x", true);
    stroke(context, x, u.valToPos(low, "y", true), x, u.valToPos(high, "y", true));
    shape(context, x, u.valToPos(mean, "y", true), 0, 4 * r);
  });
}

/** Where now is, for a span that reaches beyond. @param {UPlot} u @param {CanvasRenderingContext2D} context @param {number} now */
export function drawNow(u, context, now) {
  const { min, max } = u.scales.x;
  if (now <= min || now >= max) return;
  const r = ratio();
  const x = u.valToPos(now, "x", true);
  context.fillStyle = palette().grid;
  context.globalAlpha = 0.45;
  context.fillRect(x, u.bbox.top, u.bbox.left + u.bbox.width - x, u.bbox.height);
  context.globalAlpha = 1;
  context.strokeStyle = palette().muted;
  context.lineWidth = r;
  stroke(context, x, u.bbox.top, x, u.bbox.top + u.bbox.height);
}

/**
 * @param {UPlot} u
 * @param {CanvasRenderingContext2D} context
 * @param {Ahead[]} ahead
 * @param {(each: Ahead) => number} value
 * @param {string} colour
 * @param {number[]} dash
 * @param {number} width
 */
function path(u, context, ahead, value, colour, dash, width) {
  const { min, max } = u.scales.x;
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.beginPath();
  let last = -Infinity;
  let step = Infinity;
  for (const each of ahead) {
    const seen = each.due >= min - 120000 && each.due <= max + 120000 && Number.isFinite(value(each));
    if (seen) {
      const x = u.valToPos(each.due, "x", true);
      const y = u.valToPos(value(each), "y", true);
      if (each.due - last > 5 * Math.min(step, 60000)) context.moveTo(x, y);
      else context.lineTo(x, y);
    }
    if (each.due > last && Number.isFinite(last)) step = Math.min(step, each.due - last);
    last = each.due;
  }
  context.stroke();
  context.setLineDash([]);
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} x
 * @param {number} y
 * @param {number} level 0 circle, 1 triangle, 2 square
 * @param {number} size
 */
function shape(context, x, y, level, size) {
  context.beginPath();
  if (level > 1) context.rect(x - size * 0.85, y - size * 0.85, size * 1.7, size * 1.7);
  else if (level) {
    context.moveTo(x, y - size);
    context.lineTo(x + size, y + size * 0.8);
    context.lineTo(x - size, y + size * 0.8);
    context.closePath();
  } else context.arc(x, y, size * 0.7, 0, 2 * Math.PI);
  context.fill();
}

/** @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {number} way @param {number} r */
function arrow(context, x, y, way, r) {
  context.beginPath();
  context.moveTo(x, y + way * 10 * r);
  context.lineTo(x + 3.5 * r, y + way * 5.5 * r);
  context.lineTo(x - 3.5 * r, y + way * 5.5 * r);
  context.fill();
}

/** @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {number} size @param {string} colour @param {number} r */
function ring(context, x, y, size, colour, r) {
  context.strokeStyle = colour;
  context.lineWidth = 1.5 * r;
  context.beginPath();
  context.arc(x, y, size, 0, 2 * Math.PI);
  context.stroke();
}

/** @param {CanvasRenderingContext2D} context @param {number} x0 @param {number} y0 @param {number} x1 @param {number} y1 */
function stroke(context, x0, y0, x1, y1) {
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}
