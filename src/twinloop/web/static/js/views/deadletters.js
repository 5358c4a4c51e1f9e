/** What could not become a sample: counted by origin and reason, the newest with their bytes. */

import { rows } from "../net/api.js";
import { prefs } from "../prefs.js";
import { hexDump, rawBytes } from "../pure/bytes.js";
import { bytes as sizeText, count } from "../pure/format.js";
import { dateTime, isoTime, parseTime } from "../pure/time.js";
import { DEAD_MEANS } from "../pure/words.js";
import { fill, h, refill, table } from "../ui/dom.js";
import { errorNotice, loadingNotice, wasCalledOff } from "../ui/notice.js";

const NEWEST = 30;
/** The newest are looked for in so long before the last one. */
const LOOK_BACK_MS = 600_000;
const TEXT_SHOWN = 4000;

/** The dead letters of a plant; read anew when there are more. */
export class DeadLetters {
  /** @param {import("../plant.js").Plant} plant */
  constructor(plant) {
    this.plant = plant;
    this.body = h("div", { class: "stack" });
    this.hex = false;
    this.known = NaN;
    this.asking = new AbortController();
    /** @type {{summary: any[], letters: any[]} | null} */
    this.found = null;
    this.toggle = h("button", { type: "button", class: "quiet push", "aria-pressed": "false", on: { click: () => this.#turn() } }, "Bytes as hex");
    this.element = h("section", { class: "card", "aria-labelledby": "dead-title" },
      h("header", null, h("h2", { id: "dead-title" }, "Dead letters"), h("span", { class: "muted small" }, "payloads that became no sample, kept with their bytes"), this.toggle), this.body);
    this.toggle.hidden = true;
    fill(this.body, loadingNotice("Asking …"));
    this.#read();
  }

  /** How many there are since the start: where it grew, they are read again. @param {number} total */
  notice(total) {
    if (total === this.known) return;
    const first = Number.isNaN(this.known);
    this.known = total;
    if (!first) this.#read();
  }

  async #read() {
    const { signal } = this.asking;
    try {
      const { rows: summary } = await rows("/dead/summary", {}, { signal, most: 1000 });
      const last = Math.max(...summary.map((each) => parseTime(each.last)));
      const letters = summary.length ? (await rows("/dead", { start: isoTime(last - LOOK_BACK_MS), end: isoTime(last + 1), limit: 2000 }, { signal, most: 10_000 })).rows : [];
      this.found = { summary, letters: letters.slice(-NEWEST).reverse() };
      this.show();
    } catch (error) {
      if (!wasCalledOff(error)) fill(this.body, errorNotice(error, () => this.#read()));
    }
  }

  #turn() {
    this.hex = !this.hex;
    this.toggle.setAttribute("aria-pressed", String(this.hex));
    this.show();
  }

  show() {
    if (!this.found) return;
    const { summary, letters } = this.found;
    this.toggle.hidden = !letters.length;
    if (!summary.length) {
      fill(this.body, h("p", { class: "empty" }, "None: everything received became a sample."));
      return;
    }
    const cells = summary.slice(0, 50).map((each) => [
      h("span", null, each.reason, h("span", { class: "muted" }, ` ${DEAD_MEANS[each.reason] ?? ""}`)), each.source, each.origin, count(each.count), dateTime(parseTime(each.last), prefs.utc)]);
    refill(this.body,
      table("Dead letters by reason and origin", [{ label: "Reason" }, { label: "Source" }, { label: "Origin" }, { label: "Letters", numeric: true }, { label: "Last" }], cells),
      h("p", { class: "muted small" }, "Mend the plant file, then ", h("code", null, "twinloop refeed"), " feeds them again."),
      h("h3", null, `The newest ${letters.length}`),
      h("ul", { class: "letters" }, letters.map((each) => this.#letter(each))));
  }

  /** @param {any} letter */
  #letter(letter) {
    const { bytes, isText } = rawBytes(letter.raw ?? "");
    const shown = this.hex || !isText ? hexDump(bytes) : letter.raw.slice(0, TEXT_SHOWN);
    return h("li", null,
      h("p", { class: "row tight" }, h("strong", null, letter.reason), h("span", null, letter.origin), h("span", { class: "muted" }, `${letter.source}, ${sizeText(bytes.length)}`), h("time", { class: "muted push nowrap", datetime: letter.time }, dateTime(parseTime(letter.time), prefs.utc, true))),
      h("p", { class: "small" }, letter.detail),
      h("pre", { tabindex: "0", "aria-label": `Bytes of the letter, ${this.hex || !isText ? "hexadecimal" : "as text"}` }, shown));
  }

  close() {
    this.asking.abort();
  }
}
