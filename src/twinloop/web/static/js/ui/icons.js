/** Shapes that say a state without colour: a circle is well, a triangle doubtful, a square bad, a diamond silent. */

const SVG = "http://www.w3.org/2000/svg";

/** @type {Record<string, string>} */
const PATHS = {
  good: "M8 4.5a3.5 3.5 0 1 0 0 7a3.5 3.5 0 1 0 0-7z",
  uncertain: "M8 1.5 15 14H1z",
  bad: "M2 2h12v12H2z",
  diamond: "M8 .8 15.2 8 8 15.2.8 8z",
  check: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13z",
  open: "M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11z",
  returned: "M8 3.2 13.6 13H2.4z",
};
/** Strokes drawn over the shape in the colour of the ground. @type {Record<string, string>} */
const MARKS = {
  bad: "M5 5l6 6M11 5l-6 6",
  uncertain: "M8 6v4M8 11.6v1",
  check: "M4.9 8.2l2.2 2.2 4-4.4",
  diamond: "M5.4 8h5.2",
};
const HOLLOW = new Set(["open", "returned", "check"]);

/** @type {Record<string, string>} */
const BY_HEALTH = { IN_SYNC: "check", LAGGING: "uncertain", STARTING: "open", STALE: "diamond", DIVERGED: "bad" };
const BY_SEVERITY = ["good", "uncertain", "bad"];

/**
 * A shape as an image that says nothing to a screen reader: text stands beside it.
 *
 * @param {string} kind
 */
export function icon(kind) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", `icon ${kind}${HOLLOW.has(kind) ? " hollow" : ""}`);
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", PATHS[kind] ?? PATHS.open);
  shape.setAttribute("class", "shape");
  svg.append(shape);
  if (MARKS[kind]) {
    const mark = document.createElementNS(SVG, "path");
    mark.setAttribute("d", MARKS[kind]);
    mark.setAttribute("class", "mark");
    svg.append(mark);
  }
  return svg;
}

/** @param {number} severity 0, 1, 2 */
export function severityIcon(severity) {
  return icon(BY_SEVERITY[Math.min(severity, 2)]);
}

/** @param {string} health */
export function healthIcon(health) {
  return icon(BY_HEALTH[health] ?? "open");
}
