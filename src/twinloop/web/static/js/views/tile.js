/** One asset on the overview: health, conversion, temperature with band, the tag that is worst. */

import { get } from "../net/api.js";
import { healthOf, predictionOf } from "../pure/assets.js";
import { decimalsFor, duration, number, percent, quantity } from "../pure/format.js";
import { pointOf, windowOf } from "../pure/trend.js";
import { HEALTH_WORDS, SEVERITIES, reasonNames, unitText } from "../pure/words.js";
import { h, setAttr, setText } from "../ui/dom.js";
import { healthIcon, severityIcon } from "../ui/icons.js";
import { drawSpark } from "../ui/spark.js";
import { painted } from "../ui/visible.js";

/** @typedef {import("../pure/assets.js").Asset} Asset */
/** @typedef {import("../plant.js").Plant} Plant */

/** Where a tag has more samples in four minutes, means are enough for a sparkline. */
const MOST_SAMPLES = 600;

/** Questions for the past of sparklines, a few at a time. */
/** @type {{now: number, most: number, waiting: (() => void)[], begins: Promise<unknown> | null}} */
const asking = { now: 0, most: 3, waiting: [], begins: null };

/** A tile; it is only as full as its place in sight asks for. */
export class Tile {
  /**
   * @param {Plant} plant
   * @param {Asset} asset
   */
  constructor(plant, asset) {
    this.plant = plant;
    this.asset = asset;
    this.health = h("span", { class: "health" });
    this.link = h("a", { href: `#/asset/${encodeURIComponent(asset.name)}` }, asset.name);
    this.element = h("li", { class: "tile" }, h("h3", null, this.link), this.health);
    this.shownHealth = "";
    this.shownWorst = "";
    this.isFull = false;
    /** Whether samples may have been missed. */
    this.isCutOff = false;
    this.setHealth();
  }

  /** The rest of it, once it can be seen. */
  #fill() {
    this.isFull = true;
    this.value = h("span", { class: "value live" });
    this.band = h("span", { class: "muted live" });
    this.ahead = h("span", { class: "muted live" });
    this.conversion = h("span", { class: "value live" });
    this.conversionAhead = h("span", { class: "muted live" });
    this.conversionRow = h("p", { class: "figure" }, h("span", { class: "name" }, "Conversion"), this.conversion, this.conversionAhead);
    this.canvas = h("canvas", { class: "live", "aria-hidden": "true" });
    this.worst = h("p", { class: "worst" });
    const name = this.asset.shown ? this.asset.shown.name.replaceAll("_", " ") : "";
    this.element.append(
      h("p", { class: "figure" }, h("span", { class: "name" }, name), this.value, this.band, this.ahead),
      this.canvas, this.conversionRow, this.worst);
    this.#fetchPast();
  }

  setHealth() {
    const health = healthOf(this.asset);
    if (health === this.shownHealth) return;
    this.shownHealth = health;
    this.health.replaceChildren(healthIcon(health), HEALTH_WORDS[health] ?? health);
    setAttr(this.element, "data-health", health);
  }

  /** Show what is now; called only while the tile can be seen. */
  update() {
    if (!this.isFull) this.#fill();
    if (this.isCutOff) this.#fetchPast(true);
    this.isCutOff = false;
    this.setHealth();
    this.#figures();
    this.#worstTag();
    const tag = this.asset.shown;
    if (tag && this.canvas) {
      drawSpark(this.canvas, this.plant.columns.sparks, tag.index, this.plant.now(), {
        low: tag.warn_low ?? NaN,
        high: tag.warn_high ?? NaN,
        least: 6 * (tag.noise ?? 0),
      });
    }
  }

  #figures() {
    const { columns } = this.plant;
    const tag = this.asset.shown;
    if (!tag || !this.value || !this.band || !this.ahead || !this.conversion || !this.conversionAhead || !this.conversionRow) return;
    const decimals = decimalsFor(tag.noise);
    const estimate = columns.estimate[tag.index];
    const std = columns.std[tag.index];
    setText(this.value, quantity(Number.isNaN(estimate) ? columns.value[tag.index] : estimate, tag.unit, decimals));
    setText(this.band, Number.isFinite(std) ? `±${number(2 * std, decimals)}` : "");
    const snapshot = this.asset.snapshot;
    const ahead = predictionOf(snapshot, "temperature");
    const same = ahead && snapshot && unitText(ahead.unit) === unitText(tag.unit);
    setText(this.ahead, same ? `${number(ahead.value, decimals)} in ${duration(snapshot.horizon_s)}` : "");
    const conversion = predictionOf(snapshot, "conversion");
    this.conversionRow.hidden = !conversion;
    if (!conversion || !snapshot) return;
    setText(this.conversion, percent(conversion.now));
    setText(this.conversionAhead, `${percent(conversion.value)} in ${duration(snapshot.horizon_s)}`);
  }

  #worstTag() {
    const { columns, hello } = this.plant;
    let worst = null;
    let severity = 0;
    for (const tag of this.asset.tags) {
      const each = Math.min(columns.status[tag.index] >>> 30, 2);
      if (each > severity) {
        severity = each;
        worst = tag;
      }
    }
    const names = worst ? reasonNames(columns.reasons[worst.index], hello?.reasons ?? {}).join(" ") : "";
    const key = `${worst?.name ?? ""} ${severity} ${names}`;
    if (key === this.shownWorst || !this.worst) return;
    this.shownWorst = key;
    const n = this.asset.tags.length;
    if (!worst) this.worst.replaceChildren(h("span", { class: "muted" }, n === 1 ? "its tag is Good" : `all ${n} tags Good`));
    else this.worst.replaceChildren(severityIcon(severity), ` ${worst.name} `, h("span", { class: "muted" }, `${SEVERITIES[severity]} ${names}`));
  }

  /** A page just opened has no past: the store has. */
  #fetchPast(anyway = false) {
    const tag = this.asset.shown;
    const { sparks } = this.plant.columns;
    if (!tag || !(anyway || sparks.isYoung(tag.index))) return;
    queue(async () => {
      try {
        sparks.backfill(tag.index, await past(tag.tag));
      } catch {
        // The line then begins now.
      }
    });
  }
}

/**
 * The last four minutes of a tag: samples, or means where there are many.
 *
 * @param {string} tag
 */
async function past(tag) {
  const { body, next } = await get("/range", { tag, start: "-4m", limit: MOST_SAMPLES });
  if (!next) {
    return body.map(pointOf).map((/** @type {import("../pure/trend.js").Point} */ { time, value, estimate, std, severity }) => (
      { time, value: Number.isFinite(estimate) ? estimate : value, std, severity }));
  }
  const { body: windows } = await get("/window", { tag, every: "2s", start: "-4m" });
  return windows.map(windowOf).map((/** @type {import("../pure/trend.js").Window} */ { time, mean, good }) => (
    { time, value: mean, std: NaN, severity: good < 1 ? 1 : 0 }));
}

/** @param {() => Promise<void>} ask */
function queue(ask) {
  const run = async () => {
    asking.now += 1;
    asking.begins ??= painted(); // what is now comes first
    try {
      await asking.begins;
      await ask();
    } finally {
      asking.now -= 1;
      asking.waiting.shift()?.();
    }
  };
  if (asking.now < asking.most) run();
  else asking.waiting.push(run);
}
