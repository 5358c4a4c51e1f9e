/** The values behind a chart, as a table: newest first, and the whole span to take away. */

import { prefs } from "../prefs.js";
import { count, number } from "../pure/format.js";
import { dateTime, isoTime } from "../pure/time.js";
import { SEVERITIES, unitText } from "../pure/words.js";
import { h, table } from "../ui/dom.js";

const MOST = 200;

/**
 * @param {import("./panel.js").Panel} panel
 * @returns {HTMLElement[]}
 */
export function valuesTable(panel) {
  const { series, tag, title, unit } = panel.what;
  const shown = unitText(unit);
  const in_ = shown ? ` (${shown})` : "";
  if (!series || !tag) return [outputTable(panel, title)];
  const { from, to } = panel.shared.span;
  const width = series.width;
  const query = new URLSearchParams({ tag: tag.tag, start: isoTime(from), end: isoTime(to), format: "csv" });
  if (width) query.set("every", width.text);
  const link = h("a", { href: `api/v1/${width ? "window" : "range"}?${query}`, download: `${tag.tag}.csv` }, "Download this span as CSV");
  if (width) {
    const rows = series.windows.slice(-MOST).reverse().map((each) => [
      dateTime(each.time, prefs.utc), panelText(panel, each.mean), panelText(panel, each.min), panelText(panel, each.max), count(each.count), `${(100 * each.good).toFixed(0)} %`]);
    return [h("p", null, link), table(`${tag.tag}, windows, newest first`, [{ label: "Time" }, ...["Mean", "Min", "Max"].map((label) => ({ label: label + in_, numeric: true })), { label: "Samples", numeric: true }, { label: "Good", numeric: true }], rows)];
  }
  const points = panel.points;
  const rows = points.slice(-MOST).reverse().map((point) => [
    dateTime(point.time, prefs.utc, true), panelText(panel, point.value), SEVERITIES[point.severity], point.reasons.join(", "),
    panelText(panel, point.estimate), number(2 * point.std, panel.decimals)]);
  const more = points.length > MOST ? `The newest ${MOST} of ${count(points.length)} samples. ` : "";
  return [h("p", null, more, link), table(`${tag.tag}, samples, newest first`, [{ label: "Time" }, { label: `Value${in_}`, numeric: true }, { label: "Status" }, { label: "Reasons" }, { label: `Estimate${in_}`, numeric: true }, { label: "± 2 sd", numeric: true }], rows)];
}

/** @param {import("./panel.js").Panel} panel @param {number} value */
function panelText(panel, value) {
  return number(value, panel.decimals);
}

/** @param {import("./panel.js").Panel} panel @param {string} title */
function outputTable(panel, title) {
  const { from, to } = panel.shared.span;
  const rows = panel.what.ahead().filter(({ due, time }) => due >= from && time <= to).slice(-MOST).reverse().map((each) => [
    dateTime(each.time, prefs.utc), panel.text(each.now), dateTime(each.due, prefs.utc), panel.text(each.value), panel.text(each.persistence)]);
  return table(`${title}, predictions, newest first`, [{ label: "Time" }, { label: "Then", numeric: true }, { label: "Due" }, { label: "Predicted", numeric: true }, { label: "If unchanged", numeric: true }], rows);
}
