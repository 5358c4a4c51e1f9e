/** Which time the trends show: a range up to now, or from and to. */

import { prefs } from "../prefs.js";
import { RANGES } from "../pure/span.js";
import { fromInput, toInput, zoneName } from "../pure/time.js";
import { h, setText } from "../ui/dom.js";

/**
 * @typedef {object} Acts
 * @property {(size: number) => void} follow
 * @property {(from: number, to: number) => void} stand
 * @property {() => void} freeze
 */

/** The controls above the trends. */
export class Toolbar {
  /** @param {Acts} acts */
  constructor(acts) {
    this.acts = acts;
    this.size = RANGES[0][2];
    this.ranges = RANGES.map(([name, label, size]) => ({ name, size, button: h("button", { type: "button", "aria-pressed": "false", on: { click: () => acts.follow(size) } }, label) }));
    this.live = h("button", { type: "button", "aria-pressed": "true", class: "follow", on: { click: () => (this.follows ? acts.freeze() : acts.follow(this.size)) } }, "Following live");
    this.from = h("input", { type: "datetime-local", step: "1", on: { change: () => this.#typed() } });
    this.to = h("input", { type: "datetime-local", step: "1", on: { change: () => this.#typed() } });
    this.zone = h("span", { class: "muted small" });
    this.follows = true;
    const keys = "Drag to zoom, shift-drag or arrow keys to pan, + and − to zoom, 0 or double click to reset; shift with arrows steps from sample to sample, Enter or a click shows where a number comes from.";
    this.element = h("section", { class: "toolbar", "aria-label": "Time shown" },
      h("div", { class: "row" },
        h("div", { class: "segments", role: "group", "aria-label": "Range up to now" }, this.ranges.map(({ button }) => button)),
        this.live,
        h("label", { class: "inline" }, "from", this.from),
        h("label", { class: "inline" }, "to", this.to),
        this.zone),
      legend(),
      h("p", { class: "muted small keys", id: "trend-keys" }, keys));
  }

  /** @param {number} size */
  nameOf(size) {
    return this.ranges.find((each) => each.size === size)?.name ?? RANGES[0][0];
  }

  /**
   * @param {{from: number, to: number}} span
   * @param {boolean} follows
   * @param {number} size
   */
  show(span, follows, size) {
    this.size = size;
    this.follows = follows;
    for (const each of this.ranges) each.button.setAttribute("aria-pressed", String(follows && each.size === size));
    this.live.setAttribute("aria-pressed", String(follows));
    setText(this.live, follows ? "Following live" : "Follow live");
    for (const [input, ms] of /** @type {[HTMLInputElement, number][]} */ ([[this.from, span.from], [this.to, span.to]])) {
      if (document.activeElement !== input) input.value = toInput(ms, prefs.utc);
    }
    setText(this.zone, zoneName(prefs.utc, span.from));
  }

  #typed() {
    const from = fromInput(this.from.value, prefs.utc);
    const to = fromInput(this.to.value, prefs.utc);
    const wrong = !(to > from);
    this.to.setCustomValidity(wrong ? "“to” must be later than “from”" : "");
    if (wrong) this.to.reportValidity();
    else this.acts.stand(from, to);
  }
}

/** What the lines and shapes mean. */
function legend() {
  const items = [
    ["raw", "sample"],
    ["uncertain", "Uncertain"],
    ["bad", "Bad (at the edge where it is off scale)"],
    ["estimate", "estimate ± 2 sd"],
    ["model", "predicted by the model, at its due time"],
    ["unchanged", "if nothing changed"],
    ["limit", "warning limit"],
    ["event", "event"],
  ];
  return h("ul", { class: "legend small", "aria-label": "What the trends show" }, items.map(([kind, text]) => h("li", null, h("span", { class: `key ${kind}`, "aria-hidden": "true" }), text)));
}
