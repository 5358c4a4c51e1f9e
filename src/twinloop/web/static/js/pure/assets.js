/** Assets as the overview shows them: which tag stands for one, how it is grouped, found and judged. */

import { HEALTH_ORDER, healthRank } from "./words.js";

/**
 * @typedef {object} TagInfo a row of /tags
 * @property {number} index
 * @property {string} tag
 * @property {string} asset
 * @property {string} name the tag without its asset
 * @property {string | null} unit
 * @property {number | null} range_low
 * @property {number | null} range_high
 * @property {number | null} warn_low
 * @property {number | null} warn_high
 * @property {number | null} stale_s
 * @property {number | null} every_s
 * @property {number | null} noise
 * @property {boolean} analogue
 */

/**
 * @typedef {object} Prediction
 * @property {string} output
 * @property {string} unit
 * @property {number | null} now
 * @property {number | null} value
 * @property {number | null} persistence
 */

/**
 * @typedef {object} Snapshot
 * @property {string} time
 * @property {string} asset
 * @property {string} health
 * @property {string} why
 * @property {string} model
 * @property {Record<string, number | null>} state
 * @property {Record<string, number | null>} std
 * @property {number} horizon_s
 * @property {Prediction[]} predictions
 * @property {number | null} nis
 */

/**
 * @typedef {object} Asset
 * @property {string} name
 * @property {TagInfo[]} tags
 * @property {TagInfo | null} shown the tag its sparkline shows
 * @property {Snapshot | null} snapshot
 */

const natural = new Intl.Collator("en", { numeric: true });
const TEMPERATURES = new Set(["degC", "degF", "K", "°C"]);

/**
 * The tag that stands for an asset: its temperature, else any temperature, else its first analogue tag.
 *
 * @param {TagInfo[]} tags
 * @returns {TagInfo | null}
 */
export function shownTag(tags) {
  return (
    tags.find((tag) => tag.name === "temperature") ??
    tags.find((tag) => TEMPERATURES.has(tag.unit ?? "") && tag.analogue !== false) ??
    tags.find((tag) => tag.analogue !== false) ??
    tags[0] ??
    null
  );
}

/**
 * Assets by name, in the order of the plant file, with their tags.
 *
 * @param {TagInfo[]} tags
 * @returns {Map<string, Asset>}
 */
export function assetsOf(tags) {
  /** @type {Map<string, Asset>} */
  const assets = new Map();
  for (const tag of tags) {
    let asset = assets.get(tag.asset);
    if (!asset) assets.set(tag.asset, (asset = { name: tag.asset, tags: [], shown: null, snapshot: null }));
    asset.tags.push(tag);
  }
  for (const asset of assets.values()) asset.shown = shownTag(asset.tags);
  return assets;
}

/** An asset's health; STARTING before any snapshot. @param {Asset} asset */
export function healthOf(asset) {
  return asset.snapshot ? asset.snapshot.health : "STARTING";
}

/**
 * Names in their natural order: R9 before R10.
 *
 * @param {string} a
 * @param {string} b
 */
export function byName(a, b) {
  return natural.compare(a, b);
}

/**
 * The assets that match a search, in groups by health, worst first; within one by name.
 *
 * @param {Iterable<Asset>} assets
 * @param {string} search parts that must all be found in the asset's or one of its tags' names, any case
 * @returns {{health: string, assets: Asset[]}[]}
 */
export function grouped(assets, search) {
  const wanted = search.toLowerCase().split(/\s+/).filter(Boolean);
  /** @type {Map<string, Asset[]>} */
  const groups = new Map(HEALTH_ORDER.map((health) => [health, []]));
  for (const asset of assets) {
    if (!matches(asset, wanted)) continue;
    const health = healthOf(asset);
    (groups.get(health) ?? groups.get("STARTING"))?.push(asset);
  }
  return [...groups]
    .filter(([, members]) => members.length)
    .map(([health, members]) => ({ health, assets: members.sort((a, b) => byName(a.name, b.name)) }));
}

/**
 * @param {Asset} asset
 * @param {string[]} wanted
 */
function matches(asset, wanted) {
  return wanted.every(
    (part) => asset.name.toLowerCase().includes(part) || asset.tags.some((tag) => tag.tag.toLowerCase().includes(part)),
  );
}

/**
 * A prediction by its output's name.
 *
 * @param {Snapshot | null} snapshot
 * @param {string} output
 */
export function predictionOf(snapshot, output) {
  return snapshot?.predictions.find((each) => each.output === output) ?? null;
}

/**
 * The verdict over a plant: whether twin and plant agree, in one line.
 *
 * @param {Asset[]} assets
 * @param {boolean} [blind] whether no tag at all gives values of use
 * @returns {{level: "good" | "starting" | "warn" | "bad" | "none", text: string, detail: string}}
 */
export function verdict(assets, blind = false) {
  if (!assets.length) return { level: "none", text: "No assets in the plant file", detail: "" };
  const counts = new Map(HEALTH_ORDER.map((health) => [health, 0]));
  let worst = assets[0];
  for (const asset of assets) {
    const health = healthOf(asset);
    counts.set(health, (counts.get(health) ?? 0) + 1);
    if (healthRank(health) < healthRank(healthOf(worst))) worst = asset;
  }
  const health = healthOf(worst);
  const well = counts.get("IN_SYNC") ?? 0;
  const of = `${well} of ${assets.length} ${assets.length === 1 ? "asset" : "assets"} in step`;
  const why = worst.snapshot?.why ? `${worst.name}: ${worst.snapshot.why}` : "";
  const alone = assets.filter((asset) => asset.snapshot && !asset.snapshot.model).length;
  if (health === "IN_SYNC" && alone === assets.length) return { level: "good", text: "Data comes in as it should", detail: "no asset has a model to compare it with" };
  if (health === "IN_SYNC") return { level: "good", text: "Plant and twin agree", detail: join(of, alone ? `${alone} without a model` : "") };
  if (health === "STARTING") return { level: "starting", text: "The twin is getting to know the plant", detail: join(of, why) };
  if (health === "DIVERGED") return { level: "bad", text: "Plant and twin do not agree", detail: join(of, why) };
  if (blind && health === "STALE") return { level: "bad", text: "The plant gives no data of use", detail: join(of, why) };
  const text = health === "STALE" ? "The twin misses data" : "The twin lags behind the plant";
  return { level: "warn", text, detail: join(of, why) };
}

/** @param {string} a @param {string} b */
function join(a, b) {
  return b ? `${a} · ${b}` : a;
}
