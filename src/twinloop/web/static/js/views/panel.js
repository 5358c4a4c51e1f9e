/** One trend on the asset page: a heading that says what is now, the chart, the values as a table. */

import { prefs } from "../prefs.js";
import { decimalsFor, number, percent, plain, quantity } from "../pure/format.js";
import { valueRange, windowWords } from "../pure/scales.js";
import { dateTime } from "../pure/time.js";
import { columnsOf, extent, windowColumns, withAhead } from "../pure/trend.js";
import { reasonNames, unitText } from "../pure/words.js";
import { Chart } from "../ui/chart.js";
import { drawAhead, drawDoubtful, drawEvents, drawGood, drawLimits, drawLonely, drawNow, drawShares } from "../ui/chartdraw.js";
import { fill, h, refill, setText } from "../ui/dom.js";
import { words } from "../ui/notice.js";
import { reasonList, statusBadge } from "../ui/status.js";
import { throttled } from "../ui/visible.js";
import { Readout } from "./readout.js";
import { valuesTable } from "./valuestable.js";

/** @typedef {import("../pure/trend.js").Point} Point */
/** @typedef {import("../ui/chartdraw.js").Ahead} Ahead */

/**
 * @typedef {object} Shared what all panels of the page have in common
 * @property {import("../plant.js").Plant} plant
 * @property {{from: number, to: number}} span
 * @property {boolean} follows
 * @property {{time: number, level: number, subject: string}[]} events
 * @property {(from: number, to: number) => void} zoom
 * @property {(ms: number, done: boolean) => void} pan
 * @property {(factor: number) => void} scale zoom around the middle
 * @property {() => void} reset
 * @property {(tag: string, point: Point) => void} pick
 */

const STEP = 0.1;
/** A table that is read should not run away. */
const TABLE_EVERY_MS = 3000;

/** A trend: of a tag, or of a model's output that no tag shows. */
export class Panel {
  /**
   * @param {Shared} shared
   * @param {{name: string, title: string, unit: string, tag: import("../pure/assets.js").TagInfo | null,
   *   series: import("./series.js").TagSeries | null, ahead: () => Ahead[]}} what
   */
  constructor(shared, what) {
    this.shared = shared;
    this.what = what;
    this.decimals = what.tag ? decimalsFor(what.tag.noise) : NaN;
    this.isShare = unitText(what.unit) === "" && what.tag === null;
    this.value = h("span", { class: "value live" });
    this.band = h("span", { class: "muted live" });
    this.state = h("span", { class: "row tight live" });
    this.note = h("p", { class: "muted small note" });
    this.host = h("div", { class: "chart" });
    this.details = h("details", { class: "small" }, h("summary", null, "Values as a table"));
    this.details.addEventListener("toggle", () => this.#fillTable());
    this.tabled = throttled(() => this.#fillTable(), TABLE_EVERY_MS);
    const id = `panel-${what.name.replace(/[^\w-]/g, "_")}`;
    this.frame = h("div", {
      class: "chart-frame", tabindex: "0", role: "group", "aria-roledescription": "trend", "aria-labelledby": id, "aria-describedby": "trend-keys",
      on: { keydown: (/** @type {KeyboardEvent} */ event) => this.#key(event), blur: () => this.#leave() },
    }, this.host);
    this.element = h("section", { class: "card panel", "aria-labelledby": id, id: `trend-${what.name}` },
      h("header", null, h("h3", { id }, what.title), this.value, this.band, this.state, h("span", { class: "muted small limits push" }, limitWords(what.tag))), this.frame, this.note, this.details);
    this.readout = new Readout(this);
    /** @type {Chart | null} */
    this.chart = null;
    /** The time of the sample that keys have gone to; NaN for none. */
    this.at = NaN;
    this.key = "";
  }

  /** The points seen in the span. @returns {Point[]} */
  get points() {
    const { series } = this.what;
    if (!series || series.width) return [];
    const all = series.points;
    return all.all.slice(all.after(this.shared.span.from), all.after(this.shared.span.to));
  }

  /** Draw what is known, now. */
  draw() {
    if (!this.chart) this.chart = this.#makeChart();
    const { span } = this.shared;
    const { series } = this.what;
    const columns = series
      ? series.width ? windowColumns(series.windows, series.width.ms) : columnsOf(this.#near(), series.gap)
      : this.#outputColumns();
    this.chart.set(columns, span, this.#range(columns));
    this.#says();
  }

  /** The points of the span and a little beyond, so that lines lead out of it. */
  #near() {
    const points = /** @type {import("./series.js").TagSeries} */ (this.what.series).points;
    const { from, to } = this.shared.span;
    return points.all.slice(Math.max(0, points.after(from) - 1), points.after(to) + 1);
  }

  #outputColumns() {
    const ahead = this.what.ahead();
    /** @type {any} */
    const columns = [[], [], [], []];
    let last = NaN;
    for (const each of ahead) {
      if (each.time - last > 10_000) {
        columns[0].push((each.time + last) / 2);
        columns[1].push(null);
      }
      columns[0].push(each.time);
      columns[1].push(Number.isFinite(each.now) ? each.now : null);
      last = each.time;
    }
    columns[2] = columns[3] = columns[0].map(() => null);
    return columns;
  }

  /**
   * @param {any[]} columns
   * @returns {[number, number]}
   */
  #range(columns) {
    const { from, to } = this.shared.span;
    let [low, high] = this.what.series && !this.what.series.width ? extent(this.points, from, to) : [Infinity, -Infinity];
    const times = columns[0];
    for (const column of columns.slice(1)) {
      for (let k = 0; k < times.length; k += 1) {
        const value = column[k];
        if (value === null || times[k] < from || times[k] > to) continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
    const least = this.what.tag ? 8 * (this.what.tag.noise ?? 0) : 1e-3;
    const ahead = this.what.ahead();
    const newest = ahead[ahead.length - 1];
    const within = ahead.filter(({ due }) => due >= from && due <= to);
    return valueRange(...withAhead([low, high], within, newest === within[within.length - 1] ? newest ?? null : null, least), least);
  }

  #makeChart() {
    const { shared } = this;
    const height = window.innerWidth < 640 ? 170 : 190;
    return new Chart(this.host, {
      height,
      unit: unitText(this.what.unit),
      isShare: this.isShare,
      sync: "asset",
      drawUnder: (u, context) => {
        drawNow(u, context, shared.plant.now());
        drawLimits(u, context, this.#limits());
        drawEvents(u, context, this.#events());
        drawGood(u, context, this.points);
      },
      drawOver: (u, context) => this.#drawOver(u, context),
      onZoom: shared.zoom,
      onPan: shared.pan,
      onReset: shared.reset,
      onCursor: (time, own) => this.readout.show(own ? time : Number.isNaN(this.at) ? null : this.at),
      onPick: (time) => this.#pickAt(time),
    });
  }

  /** @param {any} u @param {CanvasRenderingContext2D} context */
  #drawOver(u, context) {
    const { series } = this.what;
    if (series?.width) {
      drawShares(u, context, series.windows, series.width.ms);
      drawLonely(u, context, series.windows, series.width.ms);
    }
    if (series && !series.width) drawDoubtful(u, context, this.points);
    drawAhead(u, context, this.what.ahead(), this.shared.plant.now());
  }

  /** Those of its own tag and of the asset as a whole. */
  #events() {
    const own = this.what.tag?.tag;
    return this.shared.events.filter(({ subject }) => subject === own || !this.shared.plant.byName.has(subject));
  }

  #limits() {
    const { tag } = this.what;
    if (!tag) return [];
    /** @type {import("../ui/chartdraw.js").Limit[]} */
    const limits = [];
    const push = (/** @type {number | null} */ value, /** @type {string} */ word, /** @type {boolean} */ hard) => {
      if (value !== null && Number.isFinite(value)) limits.push({ value, label: `${word} ${plain(value)} ${unitText(tag.unit)}`, hard });
    };
    push(tag.warn_low, "warn below", false);
    push(tag.warn_high, "warn above", false);
    push(tag.range_low, "range from", true);
    push(tag.range_high, "range to", true);
    return limits;
  }

  /** A value in the panel's unit. @param {number} value */
  text(value) {
    return this.isShare ? percent(value, 2) : quantity(value, this.what.unit, this.decimals);
  }

  /** The heading: what is now, whatever span is shown. */
  now() {
    const { plant } = this.shared;
    const { tag } = this.what;
    if (!tag) {
      const ahead = this.what.ahead();
      setText(this.value, this.text(ahead.length ? ahead[ahead.length - 1].now : NaN));
      return;
    }
    const { columns } = plant;
    const estimate = columns.estimate[tag.index];
    setText(this.value, this.text(Number.isNaN(estimate) ? columns.value[tag.index] : estimate));
    const std = columns.std[tag.index];
    setText(this.band, Number.isFinite(std) ? `±${number(2 * std, this.decimals)}` : "");
    const severity = Math.min(columns.status[tag.index] >>> 30, 2);
    const names = reasonNames(columns.reasons[tag.index], plant.hello?.reasons ?? {});
    const heard = Number.isFinite(columns.time[tag.index]) || columns.status[tag.index] !== 0;
    const key = `${heard} ${severity} ${names}`;
    if (key === this.key) return;
    this.key = key;
    if (heard) fill(this.state, statusBadge(severity), reasonList(names));
    else fill(this.state, h("span", { class: "muted" }, "no sample yet"));
  }

  /** What the chart says of itself: windows, errors, nothing. */
  #says() {
    const { series } = this.what;
    const text = this.#noteText();
    setText(this.note, text);
    this.note.hidden = !text;
    this.note.classList.toggle("failed", Boolean(series?.error));
    this.element.setAttribute("aria-busy", String(Boolean(series?.loading)));
    if (this.details.open) this.tabled();
  }

  #noteText() {
    const { series } = this.what;
    if (!series) return this.what.ahead().length ? "" : "No predictions in this span.";
    if (series.error) {
      const { title, detail } = words(series.error);
      return `${title}. ${detail} It is asked again by itself.`;
    }
    if (series.width) return `Too many samples to draw one by one: means over ${windowWords(series.width.text)} with their minimum and maximum; bars at the foot: share not Good. Zoom in for single samples.`;
    if (series.loading && !this.points.length) return "Reading history …";
    return this.points.length ? "" : "No samples in this span.";
  }

  #fillTable() {
    if (this.details.open) refill(this.details, this.details.firstChild, valuesTable(this));
  }

  /** @param {number} time */
  #pickAt(time) {
    const { series } = this.what;
    if (!series || !this.what.tag) return;
    if (series.width) {
      const half = (this.shared.span.to - this.shared.span.from) / 8;
      this.shared.zoom(time - half, time + half);
      return;
    }
    const at = series.points.nearest(time);
    if (at >= 0) this.shared.pick(this.what.tag.tag, series.points.all[at]);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const { shared } = this;
    const size = shared.span.to - shared.span.from;
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => (event.shiftKey ? this.#step(-1) : shared.pan(-STEP * size, true)),
      ArrowRight: () => (event.shiftKey ? this.#step(1) : shared.pan(STEP * size, true)),
      "+": () => shared.scale(0.5),
      "=": () => shared.scale(0.5),
      "-": () => shared.scale(2),
      0: () => shared.reset(),
      Enter: () => this.#pickCurrent(),
    };
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }

  /** Go to the next or the last sample, and say it. @param {number} by */
  #step(by) {
    const points = this.points;
    if (!points.length || !this.chart) return;
    const place = Number.isNaN(this.at) ? points.length - 1 : this.#place(points) + by;
    const point = points[Math.min(points.length - 1, Math.max(0, place))];
    this.at = point.time;
    this.chart.point(point.time);
    this.readout.show(point.time);
    this.readout.say(`${dateTime(point.time, prefs.utc, true)}: ${this.readout.text(point)}`);
  }

  /** Where the sample that keys have gone to is now. @param {Point[]} points */
  #place(points) {
    const found = points.findIndex(({ time }) => time >= this.at - 0.01);
    return found < 0 ? points.length - 1 : found;
  }

  #pickCurrent() {
    const { span } = this.shared;
    if (this.what.series?.width) this.#pickAt((span.from + span.to) / 2);
    const points = this.points;
    if (!this.what.tag || !points.length) return;
    this.shared.pick(this.what.tag.tag, points[this.#place(points)]);
  }

  #leave() {
    this.at = NaN;
    this.readout.show(null);
  }

  redraw() {
    this.chart?.redraw();
  }

  close() {
    this.what.series?.close();
    this.chart?.close();
  }
}

/** The limits of a tag in words; most of the time they lie beyond the axis. @param {import("../pure/assets.js").TagInfo | null} tag */
function limitWords(tag) {
  if (!tag) return "";
  const pair = (/** @type {string} */ word, /** @type {number | null} */ low, /** @type {number | null} */ high) =>
    low === null && high === null ? "" : `${word} ${low === null ? "" : plain(low)} … ${high === null ? "" : plain(high)}`.trim();
  return [pair("warn", tag.warn_low, tag.warn_high), pair("range", tag.range_low, tag.range_high)].filter(Boolean).join(", ");
}
