/**
 * Which tags are not to be trusted now, and which were not a moment ago.
 *
 * A spike lasts one sample; an operator looks up two seconds later. So a tag that has come back stays listed for a
 * while, said to have returned.
 */

/** How long a tag stays listed after it has returned to Good, ms. */
export const LISTED_MS = 5 * 60 * 1000;

/**
 * @typedef {object} Alarm
 * @property {number} index the tag
 * @property {number} severity now: 0 returned, 1 Uncertain, 2 Bad
 * @property {number} worst of the episodes listed
 * @property {Set<string>} reasons names, of the newest episode
 * @property {number} since ms at which it left Good; NaN where that was before the page looked
 * @property {number} returned ms at which it came back; NaN while it is not Good
 * @property {number} times episodes within the time listed
 */

/** The alarms of a plant. */
export class Alarms {
  constructor() {
    /** @type {Map<number, Alarm>} */
    this.byTag = new Map();
  }

  /**
   * A tag's severity is `severity` from `time` on.
   *
   * @param {number} index
   * @param {number} severity 0, 1, 2
   * @param {string[]} reasons names
   * @param {number} time ms; NaN where the change was not seen
   */
  change(index, severity, reasons, time) {
    const old = this.byTag.get(index);
    const worst = Math.min(severity, 2);
    if (!old) {
      if (worst) {
        this.byTag.set(index, { index, severity: worst, worst, reasons: new Set(reasons), since: time, returned: NaN, times: 1 });
      }
      return;
    }
    if (!worst) {
      if (old.severity) old.returned = time;
    } else if (!old.severity) {
      old.times += 1;
      old.since = time;
      old.returned = NaN;
      old.reasons = new Set(reasons);
      old.worst = worst;
    } else {
      old.worst = Math.max(old.worst, worst);
      for (const each of reasons) old.reasons.add(each);
    }
    old.severity = worst;
  }

  /**
   * Those that stand, worst and newest first, then those that returned, newest first; old ones are forgotten.
   *
   * @param {number} now ms
   * @returns {Alarm[]}
   */
  list(now) {
    for (const [index, alarm] of this.byTag) {
      if (!alarm.severity && !(now - alarm.returned < LISTED_MS)) this.byTag.delete(index);
    }
    return [...this.byTag.values()].sort(compare);
  }

  /** How many stand: [Uncertain, Bad]. */
  standing() {
    let uncertain = 0;
    let bad = 0;
    for (const { severity } of this.byTag.values()) {
      if (severity === 1) uncertain += 1;
      else if (severity === 2) bad += 1;
    }
    return [uncertain, bad];
  }
}

/**
 * @param {Alarm} a
 * @param {Alarm} b
 */
function compare(a, b) {
  if (a.severity !== b.severity) return b.severity - a.severity;
  const at = a.severity ? a.since : a.returned;
  const bt = b.severity ? b.since : b.returned;
  return (Number.isNaN(bt) ? 0 : bt) - (Number.isNaN(at) ? 0 : at) || a.index - b.index;
}
