/** Where a number comes from: the sample as received, the checks that fired, what the filter made of it, the samples before. */

import { get } from "../net/api.js";
import { prefs } from "../prefs.js";
import { decimalsFor, duration, number, quantity } from "../pure/format.js";
import { dateTime, isoTime, parseTime, zoneName } from "../pure/time.js";
import { SEVERITIES, reasonsOf, severityOf, unitText } from "../pure/words.js";
import { fill, h, table } from "../ui/dom.js";
import { errorNotice, loadingNotice, wasCalledOff } from "../ui/notice.js";
import { statusBadge } from "../ui/status.js";

/** A panel beside the trends; one at a time. */
export class Provenance {
  /** @param {import("../plant.js").Plant} plant */
  constructor(plant) {
    this.plant = plant;
    this.body = h("div", { class: "body" });
    this.heading = h("h2", { tabindex: "-1" });
    this.element = h("aside", { class: "provenance card", hidden: true, "aria-label": "Where this number comes from", on: { keydown: (/** @type {KeyboardEvent} */ event) => event.key === "Escape" && this.hide() } },
      h("header", null, this.heading, h("button", { type: "button", class: "quiet push", on: { click: () => this.hide() } }, "Close")),
      this.body);
    /** @type {AbortController | null} */
    this.asking = null;
    /** @type {HTMLElement | null} */
    this.cameFrom = null;
    /** @type {{tag: string, point: import("../pure/trend.js").Point} | null} */
    this.shown = null;
    this.body.tabIndex = 0;
  }

  /**
   * @param {string} tag
   * @param {import("../pure/trend.js").Point} point
   */
  async show(tag, point) {
    if (this.element.hidden) this.cameFrom = /** @type {HTMLElement | null} */ (document.activeElement);
    this.shown = { tag, point };
    this.element.hidden = false;
    fill(this.heading, tag);
    fill(this.body, loadingNotice("Asking where it comes from …"));
    this.heading.focus({ preventScroll: window.innerWidth > 1100 });
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    try {
      const { body } = await get("/provenance", { tag, time: point.exact ?? isoTime(point.time) }, asking.signal);
      if (!asking.signal.aborted) fill(this.body, this.#parts(tag, body));
    } catch (error) {
      if (!wasCalledOff(error)) fill(this.body, errorNotice(error, () => this.show(tag, point)));
    }
  }

  hide() {
    this.asking?.abort();
    this.element.hidden = true;
    this.shown = null;
    if (this.cameFrom?.isConnected) this.cameFrom.focus();
  }

  /** Times by another clock. */
  again() {
    if (this.shown) this.show(this.shown.tag, this.shown.point);
  }

  /**
   * @param {string} tag
   * @param {any} said
   */
  #parts(tag, said) {
    const info = this.plant.byName.get(tag);
    const decimals = decimalsFor(info?.noise);
    const fine = Number.isNaN(decimals) ? NaN : decimals + 1;
    const unit = said.unit ?? info?.unit;
    const { noise, gain, innovation, note } = said.filter ?? {};
    const why = said.why ?? [];
    return [
      h("p", { class: "number" }, h("span", { class: "value" }, quantity(said.value, unit, decimals)), " ", statusBadge(severityOf(said.status))),
      facts([
        ["Time", `${dateTime(parseTime(said.time), prefs.utc, true)} ${zoneName(prefs.utc, parseTime(said.time))}`],
        ["Exactly", said.time],
        ["Came in", lateness(said)],
        ["Status", `${said.status_code.name} (0x${said.status_code.number.toString(16).toUpperCase().padStart(8, "0")})`],
      ]),
      h("h3", null, why.length ? "Checks that fired" : "No check fired"),
      why.length ? h("ul", { class: "checks" }, why.map(check)) : h("p", { class: "muted small" }, "It passed every check that the plant file sets for its tag."),
      h("h3", null, "What the filter made of it"),
      facts([
        ["Estimate", isNumber(said.estimate) ? `${quantity(said.estimate, unit, fine)} ±${number(2 * said.estimate_std, fine)} (2 sd)` : "none"],
        ["Sensor noise", isNumber(noise) ? quantity(noise, unit) : "not in the plant file"],
        ["Innovation", isNumber(innovation) ? `${quantity(innovation, unit)} from what was expected` : `not known: ${note ?? "it did not enter the estimate"}`],
        ["Gain", isNumber(gain) ? `${number(gain)}, the share of the innovation that was taken over` : "not known"],
      ]),
      h("h3", null, "Made by"),
      facts([
        ["Model", said.model?.name || "none"],
        ["twinloop", said.model?.version],
        ["Log", said.log ? `${said.log.name}, offset ${said.log.offset}` : null],
      ]),
      before(said.before ?? [], unit, decimals),
    ];
  }
}

/** @param {any} value */
function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** How long after its own time a sample came. @param {any} said */
function lateness(said) {
  const ms = parseTime(said.arrival) - parseTime(said.time);
  return Number.isFinite(ms) ? `${duration(Math.abs(ms) / 1000)} ${ms < 0 ? "before" : "after"} its time` : null;
}

/** @param {[string, any][]} rows */
function facts(rows) {
  const known = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, known.map(([name, value]) => [h("dt", null, name), h("dd", null, String(value))]).flat());
}

/** @param {any} reason */
function check(reason) {
  return h("li", null, h("strong", null, reason.reason), reason.rule ? h("code", null, ` ${reason.rule}`) : null, h("p", { class: "small" }, reason.sentence));
}

/**
 * @param {any[]} samples
 * @param {string | null | undefined} unit
 * @param {number} decimals
 */
function before(samples, unit, decimals) {
  if (!samples.length) return h("p", { class: "muted small" }, "It is the first sample of its tag.");
  const shown = unitText(unit);
  const rows = samples.map((each) => [
    dateTime(parseTime(each.time), prefs.utc, true).slice(11), number(each.value, decimals),
    [SEVERITIES[severityOf(each.status)], ...reasonsOf(each.reasons ?? "")].join(" ")]);
  return h("details", { class: "small" }, h("summary", null, `The ${samples.length} samples before`),
    table("The samples before, newest first", [{ label: "Time" }, { label: shown ? `Value (${shown})` : "Value", numeric: true }, { label: "Status" }], rows));
}
