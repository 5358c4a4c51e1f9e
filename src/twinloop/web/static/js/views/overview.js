/** Overview: do plant and twin agree (two seconds), which sensor lies (ten), where to read on. */

import { grouped, healthOf, verdict } from "../pure/assets.js";
import { count, duration, rate } from "../pure/format.js";
import { HEALTH_MEANS, HEALTH_WORDS, isUp } from "../pure/words.js";
import { fill, h, refill, setText } from "../ui/dom.js";
import { healthIcon, icon } from "../ui/icons.js";
import { emptyNotice } from "../ui/notice.js";
import { onFrame, Sight, throttled } from "../ui/visible.js";
import { prefs } from "../prefs.js";
import { AlarmList } from "./alarmlist.js";
import { EventList } from "./eventlist.js";
import { Tile } from "./tile.js";

const EVERY_MS = 250;
/** So many tiles are filled without asking whether they can be seen, so that numbers are there with the page. */
const AT_ONCE = 24;
/** With no more assets than that there is room for larger tiles. */
const FEW = 12;
const ICONS = { good: "check", starting: "open", warn: "uncertain", bad: "bad", none: "open" };

/**
 * @param {import("../routes.js").Context} context
 * @returns {import("../routes.js").View}
 */
export function overviewView({ plant }) {
  const banner = h("section", { class: "verdict", "aria-labelledby": "verdict-text" });
  const figures = new Figures(plant);
  const search = h("input", { type: "search", placeholder: "Asset or tag", "aria-label": "Search assets and tags", autocomplete: "off" });
  const groups = h("div", { class: "groups" });
  const alarms = new AlarmList(plant);
  const events = new EventList(plant, { most: 12 });
  const element = h("div", { class: "overview" },
    h("h1", { tabindex: "-1", class: "hidden" }, "Overview"),
    banner,
    figures.element,
    h("div", { class: "columns" },
      h("section", { class: "assets", "aria-labelledby": "assets-title" },
        h("div", { class: "row" }, h("h2", { id: "assets-title" }, "Assets"), h("span", { class: "push" }, search)),
        groups),
      h("div", { class: "aside" }, alarms.element, events.element)));

  const sight = new Sight((place, seen) => {
    if (seen) draw();
    void place;
  });
  /** @type {Map<Element, Tile>} */
  let tiles = new Map();
  let arrangement = "";
  let isDue = true;

  const arrange = () => {
    if (!isDue) return;
    isDue = false;
    const found = grouped(plant.assets.values(), search.value);
    const key = JSON.stringify(found.map(({ health, assets }) => [health, assets.map(({ name }) => name)]));
    if (key === arrangement) return;
    arrangement = key;
    const known = new Map([...tiles.values()].map((tile) => [tile.asset, tile]));
    tiles = new Map();
    for (const tile of known.values()) sight.remove(tile.element);
    groups.classList.toggle("few", plant.assets.size <= FEW);
    refill(groups, found.map(({ health, assets }) => group(health, assets.map((asset) => {
      const tile = known.get(asset) ?? new Tile(plant, asset);
      tiles.set(tile.element, tile);
      sight.add(tile.element, tiles.size <= AT_ONCE);
      return tile.element;
    }))));
    if (!found.length) {
      const text = plant.assets.size ? `No asset or tag matches “${search.value}”.` : "The plant file names no assets.";
      fill(groups, emptyNotice(text));
    }
  };
  const paint = () => {
    arrange();
    say(banner, verdict([...plant.assets.values()], !plant.tags.some(({ index }) => plant.columns.isOfUse(index))), doubt(plant));
    figures.update();
    alarms.update();
    for (const place of sight.seen) tiles.get(place)?.update();
  };
  const draw = onFrame(paint);
  const often = throttled(draw, EVERY_MS);
  const offs = [
    plant.on("frame", often),
    plant.on("snapshots", () => {
      isDue = true;
      often();
    }),
    plant.on("pipeline", often),
    plant.on("back", () => {
      for (const tile of tiles.values()) tile.isCutOff = true;
    }),
    plant.on("events", () => events.update()),
    prefs.listen(() => {
      events.update();
      draw();
    }),
  ];
  const ageing = window.setInterval(often, 1000);
  search.addEventListener("input", () => {
    isDue = true;
    draw();
  });
  events.update();
  paint();
  return {
    element,
    title: "Overview",
    close: () => {
      for (const off of offs) off();
      window.clearInterval(ageing);
      draw.cancel();
      sight.close();
    },
  };
}

/**
 * @param {string} health
 * @param {Element[]} tiles
 */
function group(health, tiles) {
  const id = `group-${health}`;
  return h("section", { class: "group", "aria-labelledby": id },
    h("h3", { id, class: "group-title" }, healthIcon(health), ` ${HEALTH_WORDS[health] ?? health} `,
      h("span", { class: "muted" }, `${tiles.length}, ${HEALTH_MEANS[health] ?? ""}`)),
    h("ul", { class: "tiles" }, tiles));
}

/** Which sensors are in doubt now, in a few words. @param {import("../plant.js").Plant} plant */
function doubt(plant) {
  const standing = plant.alarms.list(plant.now()).filter(({ severity, index }) => severity && plant.byIndex[index]);
  if (!standing.length) return "no sensor in doubt";
  const [first] = standing;
  const named = `${plant.byIndex[first.index]?.tag} ${[...first.reasons].join(" ")}`;
  return standing.length === 1 ? `in doubt: ${named}` : `${standing.length} sensors in doubt, first ${named}`;
}

/**
 * @param {HTMLElement} banner
 * @param {ReturnType<typeof verdict>} said
 * @param {string} sensors
 */
function say(banner, said, sensors) {
  const key = JSON.stringify([said, sensors]);
  if (banner.dataset.key === key) return;
  banner.dataset.key = key;
  banner.dataset.level = said.level;
  fill(banner, icon(ICONS[said.level]), h("p", { id: "verdict-text", class: "said" }, said.text), h("p", { class: "detail" }, said.detail), h("p", { class: "detail push" }, sensors));
}

/** The plant in figures: quiet until one of them is not as it should be. */
class Figures {
  /** @param {import("../plant.js").Plant} plant */
  constructor(plant) {
    this.plant = plant;
    /** @type {Map<string, {value: HTMLElement, note: HTMLElement, box: HTMLElement}>} */
    this.boxes = new Map();
    this.element = h("dl", { class: "figures", "aria-label": "The plant in figures" });
    for (const name of ["Assets in sync", "Tags Good", "Uncertain", "Bad", "Samples", "Behind", "Cycle p99", "Sources up", "Dead letters"]) this.#box(name);
  }

  /** @param {string} name */
  #box(name) {
    const value = h("span", { class: "value live" });
    const note = h("span", { class: "muted" });
    const box = h("div", null, h("dt", null, name), h("dd", null, value, " ", note));
    this.boxes.set(name, { value, note, box });
    this.element.append(box);
  }

  update() {
    const { plant } = this;
    const counts = [0, 0, 0];
    for (const tag of plant.tags) counts[Math.min(plant.columns.status[tag.index] >>> 30, 2)] += 1;
    const assets = [...plant.assets.values()];
    const well = assets.filter((asset) => healthOf(asset) === "IN_SYNC").length;
    const { cycles, sources = [] } = plant.pipeline ?? {};
    const up = sources.filter((/** @type {any} */ each) => isUp(each.link)).length;
    const known = Boolean(plant.pipeline);
    this.#set("Assets in sync", count(well), `of ${count(assets.length)}`, well < assets.length ? "warn" : "");
    this.#set("Tags Good", count(counts[0]), `of ${count(plant.tags.length)}`, "");
    this.#set("Uncertain", count(counts[1]), "", counts[1] ? "warn" : "");
    this.#set("Bad", count(counts[2]), "", counts[2] ? "bad" : "");
    this.#set("Samples", known ? rate(cycles.samples_per_s) : "–", "/s", "");
    this.#set("Behind", known ? duration(cycles.lag_s) : "–", "", known && cycles.lag_s > 2 * cycles.period_s ? "warn" : "");
    this.#set("Cycle p99", known ? duration(cycles.p99_s) : "–", known ? `of ${duration(cycles.period_s)}` : "", known && cycles.p99_s > cycles.period_s ? "warn" : "");
    const dead = plant.pipeline?.totals?.dead_letters ?? 0;
    this.#set("Dead letters", known ? count(dead) : "–", dead ? "see Pipeline" : "", dead ? "warn" : "");
    this.#set("Sources up", known ? count(up) : "–", known ? `of ${count(sources.length)}` : "", known && up < sources.length ? "bad" : "");
  }

  /**
   * @param {string} name
   * @param {string} value
   * @param {string} note
   * @param {string} level
   */
  #set(name, value, note, level) {
    const box = this.boxes.get(name);
    if (!box) return;
    setText(box.value, value);
    setText(box.note, note);
    if (box.box.dataset.level !== level) box.box.dataset.level = level;
  }
}
