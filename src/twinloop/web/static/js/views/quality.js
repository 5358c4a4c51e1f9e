/** Data quality: which tags were how good when, which are in trouble since the start, and why. */

import { rows } from "../net/api.js";
import { prefs } from "../prefs.js";
import { count, share } from "../pure/format.js";
import { Grid, reasonsIn } from "../pure/quality.js";
import { dateTime, isoTime, nearTime, parseTime, zoneName } from "../pure/time.js";
import { REASON_MEANS, reasonsOf, severityOf } from "../pure/words.js";
import { fill, h, need, refill, setText, table } from "../ui/dom.js";
import { Heatmap } from "../ui/heatmap.js";
import { errorNotice, loadingNotice, wasCalledOff } from "../ui/notice.js";
import { reasonList, statusBadge } from "../ui/status.js";

/**
 * Ranges: label, length in ms, minutes of a column, and of one where there is little room.
 * @type {[string, number, number, number][]}
 */
const RANGES = [
  ["1 h", 3_600_000, 1, 2],
  ["6 h", 6 * 3_600_000, 5, 12],
  ["24 h", 86_400_000, 20, 60],
  ["7 d", 7 * 86_400_000, 120, 360],
];
const MINUTE_MS = 60_000;
const MAP_EVERY_MS = 15_000;
const TROUBLE_EVERY_MS = 5000;
const LISTED = 50;

/**
 * @param {import("../routes.js").Context} context
 * @returns {import("../routes.js").View}
 */
export function qualityView(context) {
  const page = new QualityPage(context);
  return { element: page.element, title: "Data quality", close: () => page.close() };
}

class QualityPage {
  /** @param {import("../routes.js").Context} context */
  constructor({ plant, go }) {
    this.plant = plant;
    this.go = go;
    this.range = RANGES[0];
    this.grid = new Grid(MINUTE_MS);
    this.worstFirst = true;
    this.asking = new AbortController();
    this.counting = new AbortController();
    this.all = false;
    /** @type {any[]} */
    this.trouble = [];
    this.map = new Heatmap({ chosen: (row, time, byKey) => this.#chosen(row, time, byKey), opened: (row, time) => this.#opened(row, time) });
    this.said = h("p", { class: "cell-said" }, "Point at a cell, or walk there with the arrow keys; a click or Enter opens its trend.");
    this.mapNote = h("div");
    this.reasons = h("div");
    this.list = h("div");
    this.tableBehind = h("details", { class: "small", on: { toggle: () => this.#behind() } }, h("summary", null, "The map as a table"));
    this.element = h("div", { class: "quality" }, h("h1", { tabindex: "-1" }, "Data quality"), this.#mapCard(),
      h("div", { class: "halves" },
        h("section", { class: "card", "aria-labelledby": "trouble-title" }, h("header", null, h("h2", { id: "trouble-title" }, "Tags by trouble"), (this.since = h("span", { class: "muted small" }))), this.list),
        h("section", { class: "card", "aria-labelledby": "reasons-title" }, h("header", null, h("h2", { id: "reasons-title" }, "Why")), this.reasons)));
    this.offs = [prefs.listen(() => this.#repaint())];
    this.timers = [window.setInterval(() => this.#readMap(), MAP_EVERY_MS), window.setInterval(() => this.#readTrouble(), TROUBLE_EVERY_MS)];
    fill(this.list, loadingNotice("Counting …"));
    requestAnimationFrame(() => this.#setRange(this.range)); // its width is known then
    this.#readTrouble();
  }

  #mapCard() {
    this.buttons = RANGES.map((range) => h("button", { type: "button", "aria-pressed": "false", on: { click: () => this.#setRange(range) } }, range[0]));
    this.search = h("input", { type: "search", placeholder: "Tag", "aria-label": "Search tags", on: { input: () => this.#show() } });
    const order = h("button", { type: "button", "aria-pressed": "true", on: { click: () => {
      this.worstFirst = !this.worstFirst;
      order.setAttribute("aria-pressed", String(this.worstFirst));
      this.#show();
    } } }, "Worst first");
    const key = [["good", "Good"], ["uncertain", "some Uncertain"], ["bad", "some Bad"], ["none", "no samples"]];
    return h("section", { class: "card", "aria-labelledby": "map-title" },
      h("header", null, h("h2", { id: "map-title" }, "Tags by time"), h("span", { class: "muted small" }, "the worst status of each window; the stronger the colour, the larger its share")),
      h("div", { class: "row" },
        h("div", { class: "segments", role: "group", "aria-label": "Range up to now" }, this.buttons), order, this.search,
        h("ul", { class: "legend small" }, key.map(([kind, text]) => h("li", null, h("span", { class: `cell ${kind}`, "aria-hidden": "true" }), text)))),
      this.mapNote, this.map.element, this.said, this.tableBehind);
  }

  /** @param {typeof RANGES[number]} range */
  #setRange(range) {
    this.range = range;
    this.grid = new Grid(MINUTE_MS * (this.map.isNarrow ? range[3] : range[2]));
    RANGES.forEach((each, k) => this.buttons?.[k].setAttribute("aria-pressed", String(each === range)));
    this.asking.abort();
    this.asking = new AbortController();
    fill(this.mapNote, loadingNotice("Reading the map …"));
    this.#show();
    this.#readMap();
  }

  /** The whole range once; then only its end, which is still growing. */
  async #readMap() {
    if (document.hidden) return;
    const [, length] = this.range;
    const { signal } = this.asking;
    const { grid } = this;
    const { width } = grid;
    const now = this.plant.now();
    const first = Math.floor((now - length) / width) * width + width;
    const start = Number.isNaN(grid.newest) ? first : Math.max(first, grid.newest - width);
    try {
      const { rows: found } = await rows("/quality", { start: isoTime(start), end: isoTime(now + 1000), every: `${width / MINUTE_MS}m`, limit: 100_000 }, { signal, most: 500_000 });
      if (signal.aborted) return;
      grid.take(found);
      grid.settle(first);
      fill(this.mapNote);
      if (!grid.byTag.size) fill(this.mapNote, h("p", { class: "empty" }, "No samples in this range yet: the map fills as they come."));
      this.#show();
    } catch (error) {
      if (!wasCalledOff(error)) fill(this.mapNote, errorNotice(error, () => this.#setRange(this.range)));
    }
  }

  #show() {
    const [, length] = this.range;
    const { width } = this.grid;
    const from = Math.floor((this.plant.now() - length) / width) * width + width;
    this.shown = this.grid.rows(this.plant.tags.map(({ tag }) => tag), this.search?.value ?? "", this.worstFirst);
    this.map.set(this.shown, from, width, Math.round(length / width));
    this.#behind();
  }

  /**
   * @param {import("../pure/quality.js").Row} row
   * @param {number} time
   * @param {boolean} byKey
   */
  #chosen(row, time, byKey) {
    const cell = row.cells.get(time);
    const now = this.plant.now();
    const when = `${nearTime(time, now, prefs.utc)} to ${nearTime(time + this.grid.width, now, prefs.utc)}`;
    const what = cell ? `${count(cell.count)} samples: ${share(cell.good, cell.count)} Good, ${share(cell.uncertain, cell.count)} Uncertain, ${share(cell.bad, cell.count)} Bad` : "no samples";
    const text = `${row.tag}, ${when}: ${what}`;
    setText(this.said, text);
    if (byKey) setText(need("announce"), text);
  }

  /** @param {import("../pure/quality.js").Row} row @param {number} time */
  #opened(row, time) {
    const tag = this.plant.byName.get(row.tag);
    if (!tag) return;
    const air = this.grid.width / 2;
    const query = new URLSearchParams({ tag: tag.tag, from: isoTime(time - air), to: isoTime(time + this.grid.width + air) });
    this.go(`#/asset/${encodeURIComponent(tag.asset)}?${query}`);
  }

  #behind() {
    if (!this.tableBehind.open) return;
    const cells = (this.shown ?? []).slice(0, 200).map(({ tag, sum }) => [tag, count(sum.count), share(sum.good, sum.count), share(sum.uncertain, sum.count), share(sum.bad, sum.count)]);
    const head = ["Samples", "Good", "Uncertain", "Bad"].map((label) => ({ label, numeric: true }));
    refill(this.tableBehind, this.tableBehind.firstChild, table(`Quality by tag, the last ${this.range[0]}`, [{ label: "Tag" }, ...head], cells));
  }

  async #readTrouble() {
    if (document.hidden) return;
    try {
      const { rows: found } = await rows("/trouble", { limit: 100_000 }, { signal: this.counting.signal });
      this.trouble = found;
      this.#showTrouble();
    } catch (error) {
      if (!wasCalledOff(error)) fill(this.list, errorNotice(error, () => this.#readTrouble()));
    }
  }

  #showTrouble() {
    const { trouble } = this;
    const since = parseTime(trouble[0]?.since);
    if (this.since) setText(this.since, Number.isFinite(since) ? `since the start, ${dateTime(since, prefs.utc)} ${zoneName(prefs.utc, since)}` : "");
    const troubled = trouble.filter((each) => each.uncertain + each.bad > 0 || severityOf(each.status));
    if (!troubled.length) fill(this.list, h("p", { class: "empty" }, "Every sample since the start was Good."));
    else this.#list(troubled);
    this.#why();
  }

  /** @param {any[]} troubled */
  #list(troubled) {
    const shown = this.all ? troubled : troubled.slice(0, LISTED);
    const cells = shown.map((each) => {
      const all = each.good + each.uncertain + each.bad;
      const tag = this.plant.byName.get(each.tag);
      const link = h("a", { href: `#/asset/${encodeURIComponent(each.asset)}?tag=${encodeURIComponent(tag?.tag ?? each.tag)}` }, each.tag);
      return [link, h("span", { class: "row tight" }, statusBadge(severityOf(each.status)), reasonList(reasonsOf(each.reasons))), count(each.uncertain), count(each.bad), share(each.uncertain + each.bad, all)];
    });
    refill(this.list, table("Tags by trouble since the start", [{ label: "Tag" }, { label: "Now" }, { label: "Uncertain", numeric: true }, { label: "Bad", numeric: true }, { label: "Not Good", numeric: true }], cells, { className: "trouble" }),
      shown.length < troubled.length ? h("button", { type: "button", on: { click: () => {
        this.all = true;
        this.#showTrouble();
      } } }, `All ${count(troubled.length)}`) : null);
  }

  #why() {
    const found = reasonsIn(this.trouble);
    if (!found.length) {
      fill(this.reasons, h("p", { class: "empty" }, "No check has fired since the start."));
      return;
    }
    const most = found[0].count;
    refill(this.reasons, h("ul", { class: "bars" }, found.map(({ reason, count: n, tags, worst }) => {
      const tag = this.plant.byName.get(worst);
      return h("li", null,
        h("p", { class: "row tight" }, h("strong", null, reason), h("span", { class: "muted" }, REASON_MEANS[reason] ?? ""), h("span", { class: "push nowrap" }, `${count(n)} ${n === 1 ? "sample" : "samples"}`)),
        h("div", { class: "bar", "aria-hidden": "true" }, h("span", { style: { width: `${(100 * n) / most}%` } })),
        h("p", { class: "muted small" }, `${tags === 1 ? "on" : `on ${count(tags)} tags, most on`} `, tag ? h("a", { href: `#/asset/${encodeURIComponent(tag.asset)}?tag=${encodeURIComponent(tag.tag)}` }, worst) : worst));
    })));
  }

  #repaint() {
    this.map.draw();
    this.#showTrouble();
  }

  close() {
    for (const off of this.offs) off();
    for (const timer of this.timers) window.clearInterval(timer);
    this.asking.abort();
    this.counting.abort();
    this.map.close();
  }
}

