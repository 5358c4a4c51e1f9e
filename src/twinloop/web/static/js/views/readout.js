/** What stands beside the pointer: time, value, unit, status, reasons, estimate, prediction. */

import { prefs } from "../prefs.js";
import { number } from "../pure/format.js";
import { clock, dateTime } from "../pure/time.js";
import { SEVERITIES } from "../pure/words.js";
import { fill, h, need, setText } from "../ui/dom.js";
import { severityIcon } from "../ui/icons.js";
import { reasonWords } from "../ui/status.js";

/** @typedef {import("../pure/trend.js").Point} Point */

const NEAR_PX = 40;

/** The readout of one panel. */
export class Readout {
  /** @param {import("./panel.js").Panel} panel */
  constructor(panel) {
    this.panel = panel;
    this.box = h("div", { class: "readout", hidden: true, "aria-hidden": "true" });
    this.spot = h("div", { class: "spot", hidden: true, "aria-hidden": "true" });
  }

  /** @param {number | null} time ms under the pointer; null hides it */
  show(time) {
    const chart = this.panel.chart;
    const lines = time === null || !chart ? null : this.#lines(time);
    this.box.hidden = !lines;
    if (!lines || !chart) {
      this.spot.hidden = true;
      return;
    }
    const { over } = chart.plot;
    if (this.box.parentNode !== over) over.append(this.spot, this.box);
    fill(this.box, lines.children);
    const x = chart.plot.valToPos(lines.time, "x");
    const right = x > over.clientWidth / 2;
    this.box.style.left = right ? "auto" : `${x + 12}px`;
    this.box.style.right = right ? `${over.clientWidth - x + 12}px` : "auto";
    this.spot.hidden = !Number.isFinite(lines.value);
    const y = Math.min(over.clientHeight, Math.max(0, chart.plot.valToPos(lines.value, "y")));
    this.spot.style.transform = `translate(${x - 5}px, ${y - 5}px)`;
  }

  /**
   * @param {number} time
   * @returns {{time: number, value: number, children: Node[]} | null}
   */
  #lines(time) {
    const { series } = this.panel.what;
    if (series?.width) return this.#window(time);
    const perPx = (this.panel.shared.span.to - this.panel.shared.span.from) / Math.max(1, this.panel.chart?.plot.over.clientWidth ?? 1);
    if (series) {
      const at = series.points.nearest(time);
      const point = series.points.all[at];
      if (point && Math.abs(point.time - time) <= NEAR_PX * perPx) return this.#point(point);
    }
    return this.#ahead(time, NEAR_PX * perPx);
  }

  /** @param {Point} point */
  #point(point) {
    const { panel } = this;
    const due = nearest(panel.what.ahead(), point.time, 2000);
    return {
      time: point.time,
      value: Number.isFinite(point.value) ? point.value : point.estimate,
      children: [
        line("muted", clock(point.time, prefs.utc, true)),
        h("div", null, h("strong", null, panel.text(point.value)), " ", severityIcon(point.severity), ` ${SEVERITIES[point.severity]}`),
        ...(point.reasons.length ? [line("", point.reasons.join(", ")), line("muted", reasonWords(point.reasons))] : []),
        line("", `estimate ${panel.text(point.estimate)}${Number.isFinite(point.std) ? ` ±${number(2 * point.std, panel.decimals)}` : ""}`),
        ...(due ? [line("", `predicted ${panel.text(due.value)}, unchanged ${panel.text(due.persistence)}`)] : []),
      ],
    };
  }

  /** @param {number} time */
  #window(time) {
    const { panel } = this;
    const { windows, width } = /** @type {import("./series.js").TagSeries} */ (panel.what.series);
    const size = width?.ms ?? 1;
    const found = windows.find((each) => time >= each.time && time < each.time + size);
    if (!found) return null;
    return {
      time: found.time + size / 2,
      value: found.mean,
      children: [
        line("muted", `${dateTime(found.time, prefs.utc)} to ${clock(found.time + size, prefs.utc)}`),
        h("div", null, "mean ", h("strong", null, panel.text(found.mean))),
        line("", `${panel.text(found.min)} to ${panel.text(found.max)}`),
        line("", `${found.count} samples, ${(100 * found.good).toFixed(0)} % Good`),
      ],
    };
  }

  /** @param {number} time @param {number} near */
  #ahead(time, near) {
    const { panel } = this;
    const now = panel.what.series ? null : nearest(panel.what.ahead(), time, near, (each) => each.time);
    const due = nearest(panel.what.ahead(), time, near);
    if (!now && !due) return null;
    return {
      time: now ? now.time : /** @type {any} */ (due).due,
      value: now ? now.now : /** @type {any} */ (due).value,
      children: [
        line("muted", clock(now ? now.time : /** @type {any} */ (due).due, prefs.utc, true)),
        ...(now ? [h("div", null, "model ", h("strong", null, panel.text(now.now)))] : []),
        ...(due ? [line("", `predicted ${panel.text(due.value)}`), line("", `if unchanged ${panel.text(due.persistence)}`)] : []),
      ],
    };
  }

  /** A point in one line, for a screen reader. @param {Point} point */
  text(point) {
    const reasons = point.reasons.length ? `, ${point.reasons.join(", ")}` : "";
    return `${this.panel.text(point.value)} ${SEVERITIES[point.severity]}${reasons}, estimate ${this.panel.text(point.estimate)}`;
  }

  /** Only where a key asked for it: the readout itself is not read aloud. @param {string} text */
  say(text) {
    setText(need("announce"), text);
  }
}

/** @param {string} kind @param {string} text */
function line(kind, text) {
  return h("div", { class: kind || null }, text);
}

/**
 * @param {import("../ui/chartdraw.js").Ahead[]} ahead
 * @param {number} time
 * @param {number} within
 * @param {(each: import("../ui/chartdraw.js").Ahead) => number} [of]
 */
function nearest(ahead, time, within, of = (each) => each.due) {
  let low = 0;
  let high = ahead.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (of(ahead[middle]) < time) low = middle + 1;
    else high = middle;
  }
  const found = [ahead[low - 1], ahead[low]].filter(Boolean).sort((a, b) => Math.abs(of(a) - time) - Math.abs(of(b) - time))[0];
  return found && Math.abs(of(found) - time) <= within ? found : null;
}
