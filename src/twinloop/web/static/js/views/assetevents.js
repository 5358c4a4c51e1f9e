/** Events of an asset, its tags and the sources, on the trends' axis and as a list. */

import { rows } from "../net/api.js";
import { prefs } from "../prefs.js";
import { dateTime, isoTime, parseTime } from "../pure/time.js";
import { h, refill } from "../ui/dom.js";
import { icon } from "../ui/icons.js";
import { eventLevel, eventWords } from "./eventlist.js";

const MOST = 2000;
const LISTED = 100;
/** Events of a span that follows are read again so often, ms. */
const RECHECK_MS = 30_000;

/** The events of a span. */
export class AssetEvents {
  /**
   * @param {import("../plant.js").Plant} plant
   * @param {import("../pure/assets.js").Asset} asset
   */
  constructor(plant, asset) {
    this.plant = plant;
    this.asset = asset;
    /** @type {import("../plant.js").Event[]} */
    this.events = [];
    this.more = false;
    this.have = { from: NaN, to: NaN };
    this.askedAt = -Infinity;
    this.list = h("ol", { class: "events" });
    this.details = h("details", { class: "card", open: true }, h("summary", null, h("h2", null, "Events in this span")), this.list);
    this.element = h("section", { "aria-label": `Events of ${asset.name}` }, this.details);
  }

  /**
   * @param {{from: number, to: number}} span
   * @param {boolean} follows
   * @returns {Promise<boolean>}
   */
  async ensure(span, follows) {
    const now = this.plant.now();
    const due = performance.now() - this.askedAt > RECHECK_MS;
    const known = this.have.from <= span.from && (this.have.to >= Math.min(span.to, now) || (follows && !due));
    if (known) return false;
    this.askedAt = performance.now();
    try {
      const query = { asset: this.asset.name, start: isoTime(span.from), end: isoTime(span.to) };
      const found = await rows("/events", { ...query, limit: MOST }, { most: MOST });
      this.events = found.rows;
      this.more = found.more;
      this.have = { from: span.from, to: Math.min(span.to, now) };
      this.show();
      return true;
    } catch {
      return false; // the trends themselves say what is wrong
    }
  }

  /** When, and how grave. */
  marks() {
    return this.events.map((event) => ({ time: parseTime(event.time), level: eventLevel(event), subject: event.subject }));
  }

  show() {
    if (!this.events.length) {
      refill(this.list, h("li", { class: "empty" }, "Nothing happened to this asset in this span."));
      return;
    }
    const listed = this.events.slice(-LISTED).reverse();
    refill(this.list, listed.map((event) => this.#row(event)));
    if (this.events.length > LISTED || this.more) this.list.append(h("li", { class: "muted" }, `The newest ${LISTED} are listed; a shorter span has all of its own.`));
  }

  /** @param {import("../plant.js").Event} event */
  #row(event) {
    const { said, why } = eventWords(event);
    const level = eventLevel(event);
    return h("li", null,
      h("time", { datetime: event.time, class: "muted nowrap" }, dateTime(parseTime(event.time), prefs.utc)),
      h("span", null, level ? icon(level > 1 ? "bad" : "uncertain") : null, " ", h("strong", null, event.subject), ` ${said}`, why ? h("span", { class: "muted" }, `: ${why}`) : null));
  }

  /** Some events were heard: those of the asset are read again. @param {import("../plant.js").Event[]} events */
  heard(events) {
    const { name } = this.asset;
    if (events.some(({ subject }) => subject === name || subject.startsWith(`${name}.`))) this.askedAt = -Infinity;
  }

  forget() {
    this.have = { from: NaN, to: NaN };
    this.askedAt = -Infinity;
  }
}
