/** Sensors not to be trusted, now and a moment ago, with the reason in words. */

import { age, decimalsFor, quantity } from "../pure/format.js";
import { SEVERITIES } from "../pure/words.js";
import { h, refill, setText } from "../ui/dom.js";
import { icon, severityIcon } from "../ui/icons.js";
import { reasonList, reasonWords } from "../ui/status.js";

const MOST = 10;
/** Of those that have returned, so many: what stands must not drown in what was. */
const MOST_RETURNED = 4;

/** The list; `update` shows what is now. */
export class AlarmList {
  /** @param {import("../plant.js").Plant} plant */
  constructor(plant) {
    this.plant = plant;
    this.list = h("ul", { class: "alarms" });
    this.more = h("p", { class: "muted small" });
    this.element = h("section", { class: "card", "aria-labelledby": "alarms-title" },
      h("header", null, h("h2", { id: "alarms-title" }, "Sensors in doubt"), h("span", { class: "muted small" }, "now and in the last 5 min")),
      this.list, this.more);
    this.key = "";
    /** @type {{alarm: import("../pure/alarms.js").Alarm, when: HTMLElement, value: HTMLElement}[]} */
    this.shown = [];
  }

  update() {
    const { plant } = this;
    const all = plant.alarms.list(plant.now()).filter(({ index }) => plant.byIndex[index]);
    const standing = all.filter(({ severity }) => severity).slice(0, MOST);
    const listed = [...standing, ...all.filter(({ severity }) => !severity).slice(0, MOST_RETURNED)];
    const key = listed.map((each) => `${each.index} ${each.severity} ${each.times} ${[...each.reasons].join(" ")}`).join("\n");
    if (key !== this.key || !this.list.firstChild) {
      this.key = key;
      this.shown = listed.map((alarm) => ({ alarm, when: h("span", { class: "when muted nowrap" }), value: h("span", { class: "live nowrap" }) }));
      if (listed.length) refill(this.list, this.shown.map((row) => this.#row(row)));
      else refill(this.list, h("li", { class: "quiet muted" }, icon("check"), " Every tag has been Good for 5 min."));
    }
    for (const { alarm, when, value } of this.shown) {
      setText(when, this.#when(alarm));
      setText(value, this.#value(alarm));
    }
    const rest = all.length - listed.length;
    this.more.hidden = rest <= 0;
    if (rest > 0) refill(this.more, `and ${rest} more: `, h("a", { href: "#/quality" }, "data quality"));
  }

  /** @param {{alarm: import("../pure/alarms.js").Alarm, when: HTMLElement, value: HTMLElement}} row */
  #row({ alarm, when, value }) {
    const tag = /** @type {import("../pure/assets.js").TagInfo} */ (this.plant.byIndex[alarm.index]);
    const returned = !alarm.severity;
    const word = returned ? `was ${SEVERITIES[alarm.worst]}` : SEVERITIES[alarm.severity];
    const times = alarm.times > 1 ? ` · ${alarm.times} times` : "";
    return h("li", { data: { severity: alarm.severity } },
      returned ? icon("returned") : severityIcon(alarm.severity),
      h("div", null,
        h("p", { class: "row tight" }, h("a", { href: `#/asset/${encodeURIComponent(tag.asset)}?tag=${encodeURIComponent(tag.tag)}` }, tag.tag), value, h("span", { class: "push" }, when)),
        h("p", { class: "small" }, h("strong", null, word), " ", reasonList(alarm.reasons), h("span", { class: "muted" }, ` ${reasonWords(alarm.reasons)}${times}`))));
  }

  /** @param {import("../pure/alarms.js").Alarm} alarm */
  #when(alarm) {
    const now = this.plant.now();
    if (!alarm.severity) return `back for ${age((now - alarm.returned) / 1000)}`;
    return Number.isNaN(alarm.since) ? "for a while" : `for ${age((now - alarm.since) / 1000)}`;
  }

  /** @param {import("../pure/alarms.js").Alarm} alarm */
  #value({ index }) {
    const tag = this.plant.byIndex[index];
    return tag ? quantity(this.plant.columns.value[index], tag.unit, decimalsFor(tag.noise)) : "";
  }
}
