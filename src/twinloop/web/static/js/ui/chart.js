/** A time chart: uPlot for axes, lines and the cursor; what is more is drawn into its hooks. */

import { palette, prefs } from "../prefs.js";
import { number, stepDecimals } from "../pure/format.js";
import { axisLabels } from "../pure/time.js";

/** @typedef {any} UPlot */

/**
 * @typedef {object} ChartOptions
 * @property {number} height CSS pixels
 * @property {string} unit of the value axis, as it is shown
 * @property {boolean} isShare whether values are shares, shown as percent
 * @property {string} sync charts of one key share the cursor
 * @property {(u: UPlot, context: CanvasRenderingContext2D) => void} drawUnder limits and events
 * @property {(u: UPlot, context: CanvasRenderingContext2D) => void} drawOver points and predictions
 * @property {(from: number, to: number) => void} onZoom ms
 * @property {(ms: number, done: boolean) => void} onPan by how much the span is to move
 * @property {(time: number | null, own: boolean) => void} onCursor `own`: the pointer is on this chart
 * @property {(time: number) => void} onPick
 * @property {() => void} onReset
 */

/** @type {any} */
/** Set once there is a chart: the overview does not wait for the script, which comes after this one. @type {any} */
let uPlot = null;

/** Return when charts can be drawn. @returns {Promise<void>} */
export async function chartsReady() {
  if (/** @type {any} */ (globalThis).uPlot || document.readyState === "complete") return;
  await new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true }));
}
const FONT = "11px system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";
const AXIS_PX = 58;
const CLICK_PX = 4;
const DOUBLE_MS = 220;

/** One chart in a host element. */
export class Chart {
  /**
   * @param {HTMLElement} host
   * @param {ChartOptions} options
   */
  constructor(host, options) {
    this.host = host;
    this.options = options;
    this.span = { from: 0, to: 1 };
    this.range = /** @type {[number, number]} */ ([0, 1]);
    this.columns = /** @type {any[]} */ ([[0, 1], [null, null], [null, null], [null, null]]);
    this.hovered = false;
    /** @type {number | undefined} */
    this.picking = undefined;
    this.#make();
    this.resizing = new ResizeObserver(() => this.#fit());
    this.resizing.observe(host);
  }

  #make() {
    const { options } = this;
    uPlot = /** @type {any} */ (globalThis).uPlot;
    this.plot = new uPlot(
      {
        width: Math.max(200, this.host.clientWidth),
        height: options.height,
        ms: 1,
        pxAlign: false,
        legend: { show: false },
        padding: [18, 26, 0, 0],
        tzDate: (/** @type {number} */ ms) => (prefs.utc ? uPlot.tzDate(new Date(ms), "Etc/UTC") : new Date(ms)),
        cursor: {
          y: false,
          points: { show: false },
          drag: { x: true, y: false, setScale: false },
          sync: { key: options.sync, filters: { pub: (/** @type {string} */ kind) => kind === "mousemove" || kind === "mouseleave" } },
          bind: {
            mousedown: (/** @type {any} */ u, /** @type {any} */ target, /** @type {(e: MouseEvent) => void} */ handler) => (/** @type {MouseEvent} */ event) => {
              if (event.button === 0 && !event.shiftKey) handler(event);
            },
            dblclick: () => () => options.onReset(),
          },
        },
        scales: { x: { time: true, auto: false }, y: { auto: false } },
        axes: [this.#axis({ size: height, space: 72, values: labels }), this.#axis({ size: AXIS_PX, space: 30, values: options.isShare ? shares : figures })],
        series: [
          {},
          { stroke: () => palette().estimate, width: 1.6, points: { show: false } },
          { stroke: "transparent", width: 0, points: { show: false } },
          { stroke: "transparent", width: 0, points: { show: false } },
        ],
        bands: [{ series: [3, 2], fill: () => palette().band }],
        hooks: {
          drawAxes: [(/** @type {any} */ u) => this.#unit(u), (/** @type {any} */ u) => this.#clipped(u, options.drawUnder)],
          draw: [(/** @type {any} */ u) => this.#clipped(u, options.drawOver)],
          setSelect: [(/** @type {any} */ u) => this.#selected(u)],
          setCursor: [(/** @type {any} */ u) => this.#moved(u)],
        },
      },
      this.columns,
      this.host,
    );
    this.#listen(this.plot.over);
  }

  /** @param {any} more */
  #axis(more) {
    return {
      stroke: () => palette().muted,
      font: FONT,
      grid: { stroke: () => palette().grid, width: 1 },
      ticks: { show: false },
      gap: 4,
      ...more,
    };
  }

  /** @param {HTMLElement} over */
  #listen(over) {
    let from = NaN;
    let began = NaN;
    let moved = 0;
    over.addEventListener("pointerenter", () => (this.hovered = true));
    over.addEventListener("pointerleave", () => (this.hovered = false));
    over.addEventListener("pointerdown", (event) => {
      began = event.clientX;
      moved = 0;
      const pans = event.shiftKey || event.pointerType === "touch";
      from = pans ? event.clientX : NaN;
      if (pans) over.setPointerCapture(event.pointerId);
    });
    over.addEventListener("pointermove", (event) => {
      moved = Math.max(moved, Math.abs(event.clientX - began));
      if (Number.isNaN(from) || moved < CLICK_PX) return;
      const ms = ((from - event.clientX) / over.clientWidth) * (this.span.to - this.span.from);
      from = event.clientX;
      this.options.onPan(ms, false);
    });
    const end = () => {
      if (!Number.isNaN(from) && moved >= CLICK_PX) this.options.onPan(0, true);
      from = NaN;
    };
    over.addEventListener("pointerup", end);
    over.addEventListener("pointercancel", end);
    over.addEventListener("click", (event) => {
      if (moved >= CLICK_PX) return;
      const time = this.timeAt(event.clientX - over.getBoundingClientRect().left);
      window.clearTimeout(this.picking);
      // The first click of two is none by itself.
      this.picking = window.setTimeout(() => event.detail < 2 && this.options.onPick(time), DOUBLE_MS);
    });
    over.addEventListener("dblclick", () => window.clearTimeout(this.picking));
  }

  /** @param {number} left CSS pixels in the plot */
  timeAt(left) {
    return this.plot.posToVal(left, "x");
  }

  /**
   * Show columns of a span. They may reach beyond it.
   *
   * @param {any[]} columns times, centre, low, high
   * @param {{from: number, to: number}} span ms
   * @param {[number, number]} range
   */
  set(columns, span, range) {
    this.span = span;
    this.range = range;
    // uPlot scales nothing of no points: two without a value stand at the ends.
    const [times, ...rest] = columns;
    this.columns = [[span.from, ...times, Math.max(span.to, (times[times.length - 1] ?? 0) + 1)], ...rest.map((column) => [null, ...column, null])];
    if (times.length && times[0] <= span.from) this.columns[0][0] = times[0] - 1;
    this.plot.batch(() => {
      this.plot.setData(this.columns, false);
      this.plot.setScale("x", { min: span.from, max: span.to });
      this.plot.setScale("y", { min: range[0], max: range[1] });
    });
  }

  redraw() {
    this.plot.redraw(true, true);
  }

  #fit() {
    const width = this.host.clientWidth;
    if (width > 0 && Math.abs(width - this.plot.width) > 1) this.plot.setSize({ width, height: this.options.height });
  }

  /** The unit, at the head of its axis. @param {any} u */
  #unit(u) {
    const { ctx } = u;
    const ratio = uPlot.pxRatio;
    ctx.save();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.fillStyle = palette().muted;
    ctx.textAlign = "right";
    ctx.textBaseline = "top";
    ctx.fillText(this.options.isShare ? "%" : this.options.unit, u.bbox.left - 4 * ratio, 2 * ratio);
    ctx.restore();
  }

  /**
   * @param {any} u
   * @param {(u: any, context: CanvasRenderingContext2D) => void} draw
   */
  #clipped(u, draw) {
    const { ctx } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    ctx.clip();
    draw(u, ctx);
    ctx.restore();
  }

  /** @param {any} u */
  #selected(u) {
    const { left, width } = u.select;
    if (width < CLICK_PX) return;
    const from = u.posToVal(left, "x");
    const to = u.posToVal(left + width, "x");
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.options.onZoom(from, to);
  }

  /** @param {any} u */
  #moved(u) {
    const { left } = u.cursor;
    this.options.onCursor(left >= 0 ? u.posToVal(left, "x") : null, this.hovered);
  }

  /** Let the cursor stand at a time. @param {number} time */
  point(time) {
    const left = this.plot.valToPos(time, "x");
    this.plot.setCursor({ left, top: this.plot.over.clientHeight / 2 });
  }

  close() {
    window.clearTimeout(this.picking);
    this.resizing.disconnect();
    this.plot.destroy();
  }
}

/**
 * @param {any} _
 * @param {number[]} splits
 * @param {number} __
 * @param {number} ___
 * @param {number} step
 */
function labels(_, splits, __, ___, step) {
  return axisLabels(splits, step, prefs.utc);
}

/** Room for one line of times, or two where a date stands below. @param {any} _ @param {string[] | null} texts */
function height(_, texts) {
  return texts?.some((text) => text.includes("\n")) ? 36 : 22;
}

/** @param {any} u @param {number[]} splits @param {number} a @param {number} b @param {number} step */
function shares(u, splits, a, b, step) {
  return figures(u, splits.map((each) => 100 * each), a, b, 100 * step);
}

/**
 * @param {any} _
 * @param {number[]} splits
 * @param {number} __
 * @param {number} ___
 * @param {number} step
 */
function figures(_, splits, __, ___, step) {
  return splits.map((value) => number(value, stepDecimals(step)));
}
