/** Status and health as badges: a shape, a word, and what it means where there is room. */

import { HEALTH_MEANS, HEALTH_WORDS, REASON_MEANS, SEVERITIES } from "../pure/words.js";
import { h } from "./dom.js";
import { healthIcon, icon, severityIcon } from "./icons.js";

const LEVELS = ["good", "uncertain", "bad"];
/** @type {Record<string, string>} */
const HEALTH_LEVELS = { IN_SYNC: "good", STARTING: "good", LAGGING: "uncertain", STALE: "bad", DIVERGED: "bad" };

/** @param {number} severity 0, 1, 2 */
export function statusBadge(severity) {
  const level = LEVELS[Math.min(severity, 2)];
  return h("span", { class: `badge ${level}` }, severityIcon(severity), SEVERITIES[severity]);
}

/** @param {string} health */
export function healthBadge(health) {
  const level = HEALTH_LEVELS[health] ?? "good";
  return h("span", { class: `badge ${level}`, title: HEALTH_MEANS[health] ?? "" }, healthIcon(health), HEALTH_WORDS[health] ?? health);
}

/**
 * Names of reasons; each says what it means when pointed at.
 *
 * @param {Iterable<string>} names
 */
export function reasonList(names) {
  return [...names].map((name) => h("abbr", { class: "reasons", title: REASON_MEANS[name] ?? "" }, name));
}

/** Reasons as one sentence. @param {Iterable<string>} names */
export function reasonWords(names) {
  return [...names].map((name) => REASON_MEANS[name] ?? name).join("; ");
}

/** A severity of counts: good, uncertain and bad as figures that are quiet at zero. @param {number} severity @param {Node} figure */
export function tally(severity, figure) {
  return h("span", { class: "tally" }, severity ? icon(LEVELS[severity]) : icon("good"), figure, h("span", { class: "muted" }, ` ${SEVERITIES[severity]}`));
}
