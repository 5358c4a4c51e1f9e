/** Pipeline: from sources over the log and the fold into the store, in figures; and what could not be read. */

import { prefs } from "../prefs.js";
import { bytes, count, duration, rate } from "../pure/format.js";
import { isUp } from "../pure/words.js";
import { fill, h, refill, table } from "../ui/dom.js";
import { icon } from "../ui/icons.js";
import { loadingNotice } from "../ui/notice.js";
import { DeadLetters } from "./deadletters.js";

/** @type {Record<string, string>} */
const LINKS = { up: "connected", connecting: "connecting", waiting: "waiting to try again", ended: "read to its end" };
/** @type {Record<string, string>} */
const LOGS = { received: "what was received", outputs: "what folding it gave" };

/**
 * @param {import("../routes.js").Context} context
 * @returns {import("../routes.js").View}
 */
export function pipelineView({ plant }) {
  const flow = h("ol", { class: "flow", "aria-label": "The way of a sample" });
  const sources = part("Sources", "where samples come from");
  const logs = part("Logs", "durable before it is acknowledged");
  const cycles = part("Cycles", "from a tick until its outputs are written");
  const store = part("Store", "history");
  const totals = part("Since the start", "samples judged");
  const dead = new DeadLetters(plant);
  const element = h("div", { class: "pipeline" }, h("h1", { tabindex: "-1" }, "Pipeline"), flow,
    h("div", { class: "halves" }, sources.element, logs.element, cycles.element, h("div", { class: "stack" }, store.element, totals.element)), dead.element);

  const draw = () => {
    const { pipeline } = plant;
    if (!pipeline) {
      for (const each of [sources, logs, cycles, store, totals]) fill(each.body, loadingNotice("Waiting for the first figures …"));
      return;
    }
    refill(flow, steps(pipeline));
    refill(sources.body, sourceTable(pipeline.sources));
    refill(logs.body, logTable(pipeline.logs));
    drawCycles(cycles.body, pipeline.cycles);
    refill(store.body, storeFacts(pipeline.store));
    refill(totals.body, totalFacts(pipeline.totals));
    dead.notice(pipeline.totals.dead_letters);
  };
  const offs = [plant.on("pipeline", draw), prefs.listen(() => dead.show())];
  draw();
  return {
    element,
    title: "Pipeline",
    close: () => {
      for (const off of offs) off();
      dead.close();
    },
  };
}

/** @param {string} title @param {string} note */
function part(title, note) {
  const id = `part-${title.replace(/\W/g, "")}`;
  const body = h("div", { class: "live" });
  return { body, element: h("section", { class: "card", "aria-labelledby": id }, h("header", null, h("h2", { id }, title), h("span", { class: "muted small" }, note)), body) };
}

/** The whole way in one line: where it is held up, the step says so. @param {any} pipeline */
function steps({ sources, logs, cycles, store }) {
  const up = sources.filter((/** @type {any} */ each) => isUp(each.link)).length;
  const received = logs.find((/** @type {any} */ each) => each.name === "received");
  const late = cycles.lag_s > 2 * cycles.period_s;
  const all = [
    ["Sources", `${up} of ${sources.length} up`, up < sources.length ? 2 : 0],
    ["Log", received ? `offset ${count(received.last_offset)}` : "–", received && (received.dropped || received.thinned) ? 1 : 0],
    ["Fold", `${rate(cycles.samples_per_s)} samples/s, ${cycles.lag_s === null ? "–" : `${duration(cycles.lag_s)} behind`}`, late ? 1 : 0],
    ["Store", store.lag_entries ? `${count(store.lag_entries)} entries on their way` : "up to date", store.lag_entries > 1000 ? 1 : 0],
  ];
  return /** @type {[string, string, number][]} */ (all).map(([name, text, level]) =>
    h("li", null, level ? icon(level > 1 ? "bad" : "uncertain") : icon("check"), h("strong", null, name), h("span", { class: "live" }, text)));
}

/** @param {any[]} sources */
function sourceTable(sources) {
  if (!sources.length) return h("p", { class: "empty" }, "The plant file names no sources.");
  const cells = sources.map((each) => [
    each.name,
    h("span", { class: "nowrap" }, isUp(each.link) ? icon("check") : icon("bad"), ` ${LINKS[each.link] ?? each.link}`),
    duration(each.data_age_s), rate(each.samples_per_s), count(each.samples), count(each.dead_letters), count(each.attempts)]);
  const head = ["Data age", "Samples/s", "Samples", "Dead letters", "Connects"].map((label) => ({ label, numeric: true }));
  const problems = sources.filter(({ problem }) => problem).map(({ name, problem }) => h("p", { class: "notice error small" }, h("strong", null, name), problem));
  return h("div", { class: "stack" }, table("Sources", [{ label: "Source" }, { label: "Link" }, ...head], cells), problems);
}

/** @param {any[]} logs */
function logTable(logs) {
  const cells = logs.map((each) => [
    h("span", { title: LOGS[each.name] ?? "" }, each.name), count(each.first_offset), count(each.last_offset), bytes(each.size_bytes),
    warned(each.dropped), warned(each.thinned)]);
  const head = ["First offset", "Last offset", "Size", "Dropped", "Thinned"].map((label) => ({ label, numeric: true }));
  return table("Logs", [{ label: "Log" }, ...head], cells);
}

/** A count that should be nothing. @param {number | null} value */
function warned(value) {
  return value ? h("span", null, icon("uncertain"), ` ${count(value)}`) : count(value);
}

/** @param {HTMLElement} body @param {any} cycles */
function drawCycles(body, cycles) {
  const facts = [
    ["Period", duration(cycles.period_s)], ["Half done in", duration(cycles.p50_s)], ["99 % done in", duration(cycles.p99_s)],
    ["Late by (99 %)", duration(cycles.jitter_p99_s)], ["Cycles", count(cycles.cycles)], ["Missed", count(cycles.missed)],
  ];
  const buckets = cycles.histogram ?? [];
  const most = Math.max(1, ...buckets.map((/** @type {any} */ each) => each.count));
  const last = buckets.findLastIndex((/** @type {any} */ each) => each.count > 0);
  const first = buckets.findIndex((/** @type {any} */ each) => each.count > 0);
  const shown = buckets.slice(Math.max(0, first - 1), Math.max(last + 2, 4));
  refill(body, factList(facts), shown.length ? h("ul", { class: "histogram", "aria-label": "Cycles by how long they took" }, shown.map((/** @type {any} */ each) => {
    const over = cycles.period_s !== null && (each.le_s === null || each.le_s > cycles.period_s);
    const label = each.le_s === null ? "longer" : `≤ ${duration(each.le_s)}`;
    return h("li", { class: over && each.count ? "over" : null }, h("span", { class: "name nowrap" }, label), h("span", { class: "bar", "aria-hidden": "true" }, h("span", { style: { width: `${(100 * each.count) / most}%` } })), h("span", { class: "numeric" }, count(each.count)));
  })) : null);
}

/** @param {any} store */
function storeFacts(store) {
  return factList([["Type", store.type], ["Entries it does not have yet", count(store.lag_entries)], ["Takes what it is given", store.refused ? h("span", null, icon("bad"), " no, it refuses") : "yes"]]);
}

/** @param {any} totals */
function totalFacts(totals) {
  return factList([["Good", count(totals.good)], ["Uncertain", count(totals.uncertain)], ["Bad", count(totals.bad)], ["Duplicates folded once", count(totals.duplicates)], ["Dead letters", count(totals.dead_letters)]]);
}

/** @param {any[][]} rows */
function factList(rows) {
  return h("dl", { class: "facts inline" }, rows.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

