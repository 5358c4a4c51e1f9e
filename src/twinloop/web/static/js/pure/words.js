/** What codes mean, in words a person reads: severities, reasons, health, dead letters, events. */

export const SEVERITIES = ["Good", "Uncertain", "Bad", "Bad"];

/** @type {Record<string, string>} */
export const REASON_MEANS = {
  NON_FINITE: "no number came: not-a-number, infinite or empty",
  RANGE: "outside what the instrument can show",
  WARN_RANGE: "outside the warning limits",
  RATE: "changed faster than the plant can",
  SPIKE: "one reading far from the last good one",
  ZSCORE: "far from the scatter of the last good readings",
  STUCK: "has not moved for too long",
  STALE: "nothing has come for too long",
  LATE: "came after newer samples; its status is not lowered",
  SAME_TIME: "a second value for the same time, moved by nanoseconds",
  SOURCE_STATUS: "the source itself does not call it good",
  CLOCK: "its own time made no sense; the time of arrival is used",
  RETAINED: "a retained message of unknown age",
  OVERFLOW: "the server's queue ran over: samples before it were lost there",
  INNOVATION: "the filter kept it out of the estimate; its status is not lowered",
  CLOCK_BACK: "the source's clock was set back; the tag goes by the new one",
};

/** @type {Record<string, string>} */
export const DEAD_MEANS = {
  UNDECODABLE: "not the format the plant file names",
  UNKNOWN_TAG: "the address leads to no tag of the plant file",
  WRONG_UNIT: "the unit is unknown or cannot become the tag's",
  NOT_NUMERIC: "a text, or no value at all",
  BAD_TIMESTAMP: "the timestamp cannot be read",
  BAD_QUALITY: "the quality is no known word or code",
  TOO_LARGE: "longer than max_payload; only its head is kept",
  REFUSED: "a sample the store's server will never take",
};

/** @type {Record<string, string>} */
export const HEALTH_MEANS = {
  IN_SYNC: "twin and plant agree",
  LAGGING: "the twin is behind: cycles fell out",
  STARTING: "not every tag has been heard yet",
  STALE: "a tag is silent or Bad, so the twin runs on without it",
  DIVERGED: "plant and twin do not agree",
};

/** @type {Record<string, string>} */
export const HEALTH_WORDS = {
  IN_SYNC: "In sync",
  LAGGING: "Lagging",
  STARTING: "Starting",
  STALE: "Stale",
  DIVERGED: "Diverged",
};

/** Health, worst first. */
export const HEALTH_ORDER = ["DIVERGED", "STALE", "LAGGING", "STARTING", "IN_SYNC"];

/**
 * How bad a health is: 0 for the worst.
 *
 * @param {string} health
 */
export function healthRank(health) {
  const rank = HEALTH_ORDER.indexOf(health);
  return rank < 0 ? HEALTH_ORDER.indexOf("STARTING") : rank;
}

/**
 * The names of the bits set, lowest first.
 *
 * @param {number} bits
 * @param {Record<string, string>} names by bit value, as the hello frame has them
 * @returns {string[]}
 */
export function reasonNames(bits, names) {
  const found = [];
  for (let k = 0; k < 32; k += 1) {
    const bit = 2 ** k;
    if ((bits >>> k) & 1) found.push(names[String(bit)] ?? `bit ${k}`);
  }
  return found;
}

/**
 * The names in a text of reasons joined by `|`.
 *
 * @param {string} text
 */
export function reasonsOf(text) {
  return text ? text.split("|").filter(Boolean) : [];
}

/**
 * A severity from its word.
 *
 * @param {string} word
 * @returns {0 | 1 | 2}
 */
export function severityOf(word) {
  if (word.startsWith("Bad")) return 2;
  return word.startsWith("Uncertain") ? 1 : 0;
}

/** @type {Record<string, string>} */
const UNITS = { degC: "°C", degF: "°F", degK: "K", 1: "", percent: "%", "delta_degC": "K" };

/**
 * A unit as people write it.
 *
 * @param {string | null | undefined} unit
 */
export function unitText(unit) {
  if (!unit) return "";
  if (unit in UNITS) return UNITS[unit];
  return unit
    .replace(/\^?\*?\*?3\b/g, (power) => (power.length > 1 ? "³" : power))
    .replace(/\^2|\*\*2/g, "²")
    .replace(/ohm/g, "Ω")
    .replace(/\bu(?=[a-zA-Z])/g, "µ");
}

/**
 * The tag's own name, without its asset's.
 *
 * @param {string} tag
 * @param {string} asset
 */
export function shortName(tag, asset) {
  return tag.startsWith(`${asset}.`) ? tag.slice(asset.length + 1) : tag;
}

/** @type {Record<string, string>} */
const SUFFIXES = { k: "K", mol: "mol", m3: "m³", kg: "kg", pa: "Pa", s: "s", j: "J", w: "W" };
const SUFFIX = /_(k|mol|m3|kg|pa|s|j|w)(?:_per_(k|mol|m3|kg|pa|s))?$/;

/**
 * A name of the model's as words: `temperature_k` is a temperature in K, `drift_k_per_s` a drift in K/s.
 *
 * @param {string} name
 * @returns {{label: string, unit: string}}
 */
export function stateName(name) {
  const found = SUFFIX.exec(name);
  const bare = found ? name.slice(0, found.index) : name;
  const unit = found ? [SUFFIXES[found[1]], found[2] ? SUFFIXES[found[2]] : ""].filter(Boolean).join("/") : "";
  return { label: bare.replaceAll("_", " "), unit };
}

/** Whether a source's link is as it should be; one that has read all its files is. @param {string} link */
export function isUp(link) {
  return link === "up" || link === "ended";
}
