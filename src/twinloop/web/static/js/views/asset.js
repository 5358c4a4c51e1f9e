/** One asset: how its twin stands, and a trend for each tag and each figure only the model knows. */

import { prefs } from "../prefs.js";
import { byName } from "../pure/assets.js";
import { asked, following, rangeSize, sensible } from "../pure/span.js";
import { isoTime, parseTime } from "../pure/time.js";
import { unitText } from "../pure/words.js";
import { fill, h } from "../ui/dom.js";
import { emptyNotice } from "../ui/notice.js";
import { onFrame, Sight, throttled } from "../ui/visible.js";
import { AssetHead } from "./assethead.js";
import { AssetEvents } from "./assetevents.js";
import { Panel } from "./panel.js";
import { Provenance } from "./provenance.js";
import { Predictions, TagSeries } from "./series.js";
import { Toolbar } from "./toolbar.js";

/** @typedef {import("../pure/assets.js").Asset} Asset */

const ASK_AFTER_MS = 150;

/**
 * @param {import("../routes.js").Context} context
 * @returns {import("../routes.js").View}
 */
export function assetView(context) {
  const asset = context.plant.assets.get(context.params.asset);
  if (!asset) return unknown(context);
  const page = new AssetPage(context, asset);
  return {
    element: page.element,
    title: asset.name,
    close: () => page.close(),
    update: (next) => page.update(next),
  };
}

/** @param {import("../routes.js").Context} context */
function unknown({ plant, params }) {
  const near = [...plant.assets.keys()].sort(byName).slice(0, 40);
  return {
    element: h("div", { class: "card" },
      h("h1", { tabindex: "-1" }, `No asset ${params.asset}`),
      h("p", null, near.length ? "The plant file has these:" : "The plant file names no assets."),
      h("ul", { class: "row" }, near.map((name) => h("li", null, h("a", { href: `#/asset/${encodeURIComponent(name)}` }, name))))),
    title: "No such asset",
    close: () => {},
  };
}

/** The page of one asset. */
class AssetPage {
  /**
   * @param {import("../routes.js").Context} context
   * @param {Asset} asset
   */
  constructor(context, asset) {
    this.context = context;
    this.plant = context.plant;
    this.asset = asset;
    this.size = 0;
    /** @type {import("./panel.js").Shared} */
    this.shared = {
      plant: this.plant,
      span: { from: 0, to: 1 },
      follows: true,
      events: [],
      zoom: (from, to) => this.#stand(from, to),
      pan: (ms, done) => this.#pan(ms, done),
      scale: (factor) => this.#scale(factor),
      reset: () => this.#follow(this.size),
      pick: (tag, point) => this.provenance.show(tag, point),
    };
    this.predictions = new Predictions(this.plant, asset.name);
    this.provenance = new Provenance(this.plant);
    this.head = new AssetHead(this.plant, asset, context.go);
    this.toolbar = new Toolbar({
      follow: (size) => this.#follow(size),
      stand: (from, to) => this.#stand(from, to),
      freeze: () => this.#stand(this.shared.span.from, this.shared.span.to),
    });
    this.events = new AssetEvents(this.plant, asset);
    this.trends = h("div", { class: "trends" });
    this.element = h("div", { class: "asset" }, this.head.element, this.toolbar.element,
      h("div", { class: "with-aside" }, this.trends, this.provenance.element), this.events.element);
    /** @type {Panel[]} */
    this.panels = [];
    this.outputs = "";
    this.sight = new Sight((_, seen) => seen && this.#changed());
    this.draw = onFrame(() => this.#draw());
    this.heads = throttled(() => this.#heads(), 250);
    /** @type {number | undefined} */
    this.asking = undefined;
    this.#makePanels();
    this.#listen();
    this.#begin(context.query);
  }

  #listen() {
    const { plant } = this;
    this.offs = [
      plant.on("frame", () => this.#heard()),
      plant.on("snapshots", (/** @type {any[]} */ shots) => this.#snapshots(shots)),
      plant.on("events", (/** @type {import("../plant.js").Event[]} */ events) => {
        this.events.heard(events);
        this.#askSoon();
      }),
      plant.on("back", () => this.#mistrust()),
      prefs.listen(() => this.#repaint()),
    ];
    this.ticking = window.setInterval(() => {
      if (this.shared.follows && !document.hidden) this.#changed();
    }, 1000);
  }

  /** A panel for each tag, and for each output of the model that no tag shows. */
  #makePanels() {
    const { asset, plant } = this;
    const tagged = asset.tags.map((tag) => {
      const ahead = () => this.#aheadOf(tag);
      return new Panel(this.shared, { name: tag.name, title: tag.name.replaceAll("_", " "), unit: tag.unit ?? "", tag, series: new TagSeries(plant, tag), ahead });
    });
    const own = this.#modelOnly().map(({ output, unit }) => {
      const ahead = () => this.predictions.byOutput.get(output) ?? [];
      return new Panel(this.shared, { name: `model-${output}`, title: `${output.replaceAll("_", " ")}, by the model`, unit, tag: null, series: null, ahead });
    });
    this.outputs = own.map(({ what }) => what.name).join(" ");
    for (const panel of this.panels) {
      this.sight.remove(panel.element);
      panel.close();
    }
    this.panels = [...tagged.slice(0, 1), ...own, ...tagged.slice(1)];
    fill(this.trends, this.panels.map(({ element }) => element));
    if (!this.panels.length) fill(this.trends, emptyNotice("This asset has no tags."));
    for (const panel of this.panels) this.sight.add(panel.element);
  }

  #modelOnly() {
    return (this.asset.snapshot?.predictions ?? []).filter(({ output, unit }) => {
      const tag = this.asset.tags.find(({ name }) => name === output);
      return !tag || unitText(tag.unit) !== unitText(unit);
    });
  }

  /** @param {import("../pure/assets.js").TagInfo} tag */
  #aheadOf(tag) {
    const prediction = this.asset.snapshot?.predictions.find(({ output }) => output === tag.name);
    const same = prediction && unitText(prediction.unit) === unitText(tag.unit);
    return same && !this.predictions.tooMany ? (this.predictions.byOutput.get(tag.name) ?? []) : [];
  }

  /** @param {URLSearchParams} query */
  #begin(query) {
    const wanted = asked(query, parseTime);
    this.wanted = query.get("tag") ?? "";
    if (wanted.follows) this.#follow(wanted.size);
    else {
      this.size = this.size || rangeSize(null);
      this.#stand(wanted.span.from, wanted.span.to);
    }
    if (this.wanted) this.#scrollTo(this.wanted);
  }

  /** @param {string} tag */
  #scrollTo(tag) {
    const panel = this.panels.find(({ what }) => what.tag?.tag === tag);
    if (!panel) return;
    requestAnimationFrame(() => {
      panel.element.scrollIntoView({ block: "start" });
      panel.frame.focus({ preventScroll: true });
    });
  }

  /** @param {import("../routes.js").Context} next */
  update(next) {
    if (next.params.asset !== this.asset.name || this.plant.assets.get(this.asset.name) !== this.asset) return false;
    this.#begin(next.query);
    return true;
  }

  /** @param {number} size ms */
  #follow(size) {
    this.size = size;
    this.shared.follows = true;
    this.#changed();
    this.#address();
  }

  /** @param {number} from @param {number} to */
  #stand(from, to) {
    this.shared.follows = false;
    this.shared.span = sensible(from, to);
    this.#changed();
    this.#address();
  }

  /** @param {number} ms @param {boolean} done */
  #pan(ms, done) {
    const { from, to } = this.shared.span;
    this.shared.follows = false;
    this.shared.span = { from: from + ms, to: to + ms };
    this.#changed();
    if (done) this.#address();
  }

  /** @param {number} factor */
  #scale(factor) {
    const { from, to } = this.shared.span;
    const half = ((to - from) / 2) * factor;
    this.#stand((from + to) / 2 - half, (from + to) / 2 + half);
  }

  /** The address says what is seen, so that it can be kept and passed on. */
  #address() {
    const { span, follows } = this.shared;
    const query = new URLSearchParams();
    if (follows) query.set("range", this.toolbar.nameOf(this.size));
    else {
      query.set("from", isoTime(Math.round(span.from)));
      query.set("to", isoTime(Math.round(span.to)));
    }
    if (this.wanted) query.set("tag", this.wanted);
    this.context.go(`#/asset/${encodeURIComponent(this.asset.name)}?${query}`, { replace: true });
  }

  /** The span or what is in sight has changed: draw what is known, ask for what is not. */
  #changed() {
    if (this.shared.follows) {
      const horizon = (this.asset.snapshot?.horizon_s ?? 0) * 1000;
      this.shared.span = following(this.size, this.plant.now(), horizon);
    }
    this.toolbar.show(this.shared.span, this.shared.follows, this.size);
    this.draw();
    this.#askSoon();
  }

  #askSoon() {
    if (this.asking !== undefined) return;
    this.asking = window.setTimeout(() => {
      this.asking = undefined;
      this.#ask();
    }, ASK_AFTER_MS);
  }

  async #ask() {
    const { span, follows } = this.shared;
    const again = (/** @type {boolean} */ changed) => changed && this.draw();
    this.predictions.ensure(span, follows).then(again);
    this.events.ensure(span, follows).then((changed) => {
      if (changed) this.shared.events = this.events.marks();
      again(changed);
    });
    for (const panel of this.panels) {
      if (this.sight.seen.has(panel.element)) panel.what.series?.ensure(span, follows).then(again);
    }
  }

  #heard() {
    let any = false;
    for (const { what } of this.panels) if (what.series?.hear()) any = true;
    this.heads();
    if (!any || !this.shared.follows) return;
    const horizon = (this.asset.snapshot?.horizon_s ?? 0) * 1000;
    this.shared.span = following(this.size, this.plant.now(), horizon);
    if (this.size <= 3_600_000) this.draw();
  }

  /** @param {any[]} shots */
  #snapshots(shots) {
    const own = shots.filter(({ asset }) => asset === this.asset.name);
    if (!own.length) return;
    for (const shot of own) this.predictions.hear(shot);
    const names = this.#modelOnly().map(({ output }) => `model-${output}`).join(" ");
    if (names !== this.outputs) {
      this.#makePanels();
      this.#changed();
    }
    this.heads();
  }

  /** After a lost connection nothing says what was missed: it is read again. */
  #mistrust() {
    for (const { what } of this.panels) what.series?.forget();
    this.predictions.forget();
    this.events.forget();
  }

  #heads() {
    this.head.update();
    for (const panel of this.panels) if (this.sight.seen.has(panel.element)) panel.now();
  }

  #draw() {
    for (const panel of this.panels) {
      if (!this.sight.seen.has(panel.element)) continue;
      panel.draw();
      panel.now();
    }
    this.head.update();
  }

  #repaint() {
    for (const panel of this.panels) panel.redraw();
    this.toolbar.show(this.shared.span, this.shared.follows, this.size);
    this.events.show();
    this.provenance.again();
    this.draw();
  }

  close() {
    for (const off of this.offs ?? []) off();
    window.clearInterval(this.ticking);
    window.clearTimeout(this.asking);
    this.draw.cancel();
    this.sight.close();
    this.predictions.close();
    for (const panel of this.panels) panel.close();
  }
}

