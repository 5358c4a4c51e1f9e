/** What happened, newest first, in sentences. */

import { prefs } from "../prefs.js";
import { nearTime, parseTime } from "../pure/time.js";
import { HEALTH_WORDS } from "../pure/words.js";
import { h, refill } from "../ui/dom.js";
import { icon } from "../ui/icons.js";

/** @typedef {import("../plant.js").Event} Event */

const GRAVE = new Set(["DIVERGED", "LINK_DOWN", "ADDRESS_LOST", "LOST"]);
const DOUBTFUL = new Set(["OVERRUN", "THINNED", "CLOCK_BACK", "CLOCK_SET"]);
/** @type {Record<string, (event: Event) => string>} */
const SENTENCES = {
  STATUS: ({ before, after }) => `${before || "first"} → ${after}`,
  HEALTH: ({ before, after }) => `${HEALTH_WORDS[before] ?? before} → ${HEALTH_WORDS[after] ?? after}`,
  REBASELINED: () => "the level has moved: statistics begin anew",
  DIVERGED: () => "its belief made no sense and begins anew",
  LINK_UP: () => "connected",
  LINK_DOWN: () => "connection lost",
  ADDRESS_LOST: () => "an address cannot be read",
  ADDRESS_FOUND: () => "an address can be read again",
  OVERRUN: () => "cycles fell out",
  THINNED: () => "a full log left samples out",
  LOST: () => "entries of a log are gone",
  CLOCK_BACK: ({ before, after }) => `source clock set back: ${before} → ${after}`,
  CLOCK_SET: ({ before, after }) => `this host's clock was set: ${before} → ${after}`,
  STARTED: () => "the twin was started",
};

/** An event in words, without its subject and time. @param {Event} event */
export function eventWords(event) {
  const sentence = SENTENCES[event.kind];
  const said = sentence ? sentence(event) : [event.before, event.after].filter(Boolean).join(" → ");
  return { said, why: event.why };
}

/** How grave an event is: 0, 1, 2. @param {Event} event */
export function eventLevel(event) {
  if (event.kind === "STATUS") return event.after.startsWith("Bad") ? 2 : event.after.startsWith("Uncertain") ? 1 : 0;
  if (event.kind === "HEALTH") return event.after === "DIVERGED" || event.after === "STALE" ? 2 : event.after === "LAGGING" ? 1 : 0;
  if (GRAVE.has(event.kind)) return 2;
  return DOUBTFUL.has(event.kind) ? 1 : 0;
}

/** The newest events of a plant. */
export class EventList {
  /**
   * @param {import("../plant.js").Plant} plant
   * @param {{most: number}} options
   */
  constructor(plant, { most }) {
    this.plant = plant;
    this.most = most;
    this.list = h("ol", { class: "events" });
    this.element = h("section", { class: "card", "aria-labelledby": "events-title" }, h("header", null, h("h2", { id: "events-title" }, "Events")), this.list);
  }

  update() {
    const events = this.plant.events.slice(-this.most).reverse();
    if (!events.length) refill(this.list, h("li", { class: "empty" }, "Nothing has happened yet."));
    else refill(this.list, events.map((event) => this.#row(event)));
  }

  /** @param {Event} event */
  #row(event) {
    const { said, why } = eventWords(event);
    const tag = this.plant.byName.get(event.subject);
    const time = parseTime(event.time);
    const link = tag
      ? `#/asset/${encodeURIComponent(tag.asset)}?tag=${encodeURIComponent(tag.tag)}&at=${encodeURIComponent(event.time)}`
      : this.plant.assets.has(event.subject) ? `#/asset/${encodeURIComponent(event.subject)}?at=${encodeURIComponent(event.time)}` : "#/pipeline";
    const level = eventLevel(event);
    return h("li", null,
      h("time", { datetime: event.time, class: "muted nowrap" }, nearTime(time, this.plant.now(), prefs.utc)),
      h("span", null, level ? icon(level > 1 ? "bad" : "uncertain") : null, level ? " " : null, h("a", { href: link }, event.subject), ` ${said}`,
        why ? h("span", { class: "muted" }, `: ${why}`) : null));
  }
}
