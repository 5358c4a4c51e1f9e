/** The head of an asset's page: health and why, what the model says comes next, how far to trust it. */

import { byName, healthOf } from "../pure/assets.js";
import { decimalsFor, duration, number } from "../pure/format.js";
import { HEALTH_MEANS, stateName, unitText } from "../pure/words.js";
import { fill, h, refill, setText, table } from "../ui/dom.js";
import { healthBadge } from "../ui/status.js";

/** The head; `update` shows what is now. */
export class AssetHead {
  /**
   * @param {import("../plant.js").Plant} plant
   * @param {import("../pure/assets.js").Asset} asset
   * @param {(hash: string) => void} go
   */
  constructor(plant, asset, go) {
    this.plant = plant;
    this.asset = asset;
    this.badge = h("span", { class: "live" });
    this.why = h("p", { class: "why" });
    this.twin = h("div", { class: "twin live" });
    this.shown = "";
    this.time = "";
    const names = [...plant.assets.keys()].sort(byName);
    const select = h("select", { "aria-label": "Asset", on: { change: (/** @type {Event} */ event) => go(`#/asset/${encodeURIComponent(/** @type {HTMLSelectElement} */ (event.target).value)}`) } },
      names.map((name) => h("option", { value: name, selected: name === asset.name }, name)));
    this.element = h("section", { class: "card asset-head", "aria-labelledby": "asset-title" },
      h("header", null, h("h1", { tabindex: "-1", id: "asset-title" }, asset.name), this.badge, h("span", { class: "push" }, names.length > 1 ? select : null)),
      this.why, this.twin);
    this.update();
  }

  update() {
    const { asset } = this;
    const health = healthOf(asset);
    const { snapshot } = asset;
    if (health !== this.shown) {
      this.shown = health;
      fill(this.badge, healthBadge(health));
    }
    const isAlone = health === "IN_SYNC" && snapshot && !snapshot.model;
    setText(this.why, [isAlone ? "data comes in as it should" : HEALTH_MEANS[health], snapshot?.why].filter(Boolean).join(": "));
    if (!snapshot || snapshot.time === this.time) return;
    this.time = snapshot.time;
    refill(this.twin, ...this.#parts(snapshot));
  }

  /** @param {import("../pure/assets.js").Snapshot} snapshot */
  #parts(snapshot) {
    const nis = snapshot.nis === null ? null : h("p", { class: "muted small" }, "Surprise (NIS) ", h("strong", null, number(snapshot.nis, 2)), ": 1 is expected, above 4 for a while the twin counts as diverged.");
    if (!snapshot.model) return [h("p", { class: "muted small" }, "No model: its tags are judged and estimated, nothing is predicted.")];
    const rows = snapshot.predictions.map((each) => [outputName(each), ...[each.now, each.value, each.persistence].map((value) => this.#value(each, value))]);
    const ahead = `In ${duration(snapshot.horizon_s)}, by the model`;
    const outputs = new Set(snapshot.predictions.map(({ output }) => output));
    const states = Object.entries(snapshot.state).filter(([name]) => !outputs.has(name));
    return [
      table(`What ${this.asset.name} will do by ${snapshot.model}`, [{ label: snapshot.model.replaceAll("_", " ") }, { label: "Now", numeric: true }, { label: ahead, numeric: true }, { label: "If nothing changed", numeric: true }], rows, { className: "predictions" }),
      h("div", { class: "stack" },
        h("p", { class: "muted small" }, "State of the model"),
        h("dl", { class: "facts" }, states.map(([name, value]) => [h("dt", null, stateName(name).label), h("dd", null, stateText(name, value, snapshot.std[name]))]).flat()),
        nis),
    ];
  }

  /**
   * @param {import("../pure/assets.js").Prediction} prediction
   * @param {number | null} value
   */
  #value(prediction, value) {
    if (isShare(prediction)) return number(value === null ? null : 100 * value, 2);
    const tag = this.asset.tags.find(({ name }) => name === prediction.output);
    return number(value, decimalsFor(tag?.noise));
  }
}

/** Whether a figure without a unit is shown as percent. @param {import("../pure/assets.js").Prediction} prediction */
function isShare(prediction) {
  return unitText(prediction.unit) === "";
}

/** @param {import("../pure/assets.js").Prediction} prediction */
function outputName(prediction) {
  return h("span", null, `${prediction.output.replaceAll("_", " ")} `, h("span", { class: "muted" }, isShare(prediction) ? "%" : unitText(prediction.unit)));
}

/**
 * @param {string} name
 * @param {number | null} value
 * @param {number | null | undefined} std
 */
function stateText(name, value, std) {
  const { unit } = stateName(name);
  const spread = std ? ` ±${number(2 * std, 2)} (2 sd)` : "";
  return `${number(value)}${unit ? `\u202f${unit}` : ""}${spread}`;
}
