import assert from "node:assert/strict";
import test from "node:test";

import { Alarms, LISTED_MS } from "../../src/twinloop/web/static/js/pure/alarms.js";
import { assetsOf, grouped, shownTag, verdict } from "../../src/twinloop/web/static/js/pure/assets.js";
import { Grid, reasonsIn } from "../../src/twinloop/web/static/js/pure/quality.js";
import { asked, following, sensible } from "../../src/twinloop/web/static/js/pure/span.js";
import { parseTime } from "../../src/twinloop/web/static/js/pure/time.js";
import { columnsOf, extent, pointOf, Points, windowColumns, windowOf, withAhead } from "../../src/twinloop/web/static/js/pure/trend.js";

const point = (time, value = 1, more = {}) => ({ time, value, estimate: value, std: 0.5, severity: 0, reasons: [], ...more });
const tag = (asset, name, index, more = {}) => ({ index, asset, name, tag: `${asset}.${name}`, unit: "bar", analogue: true, ...more });

test("a spike of one sample stays listed for a while as returned, then it is forgotten", () => {
  const alarms = new Alarms();
  alarms.change(4, 1, ["SPIKE"], 1000);
  assert.deepEqual(alarms.standing(), [1, 0]);
  alarms.change(4, 0, [], 2000);
  assert.deepEqual(alarms.standing(), [0, 0]);
  const [listed] = alarms.list(3000);
  assert.deepEqual([listed.severity, listed.worst, [...listed.reasons], listed.returned], [0, 1, ["SPIKE"], 2000]);
  alarms.change(4, 2, ["RANGE"], 4000);
  assert.deepEqual([alarms.list(5000)[0].times, alarms.list(5000)[0].since], [2, 4000]);
  alarms.change(4, 0, [], 6000);
  assert.equal(alarms.list(6000 + LISTED_MS).length, 0);
});

test("what stands comes first, the worst before all, the newest before the older", () => {
  const alarms = new Alarms();
  alarms.change(1, 1, [], 1000);
  alarms.change(2, 2, [], 500);
  alarms.change(3, 1, [], 2000);
  alarms.change(5, 1, [], 100);
  alarms.change(5, 0, [], 2500);
  assert.deepEqual(alarms.list(3000).map(({ index }) => index), [2, 3, 1, 5]);
});

test("an alarm that stood before the page looked has no beginning", () => {
  const alarms = new Alarms();
  alarms.change(1, 2, ["STALE"], NaN);
  assert.ok(Number.isNaN(alarms.list(0)[0].since));
});

test("assets are grouped by health, the worst first, then by name in its natural order", () => {
  const assets = assetsOf([tag("R10", "a", 0), tag("R9", "a", 1), tag("P1", "flow", 2)]);
  assets.get("P1").snapshot = { health: "DIVERGED", predictions: [] };
  for (const name of ["R9", "R10"]) assets.get(name).snapshot = { health: "IN_SYNC", predictions: [] };
  const groups = grouped(assets.values(), "");
  assert.deepEqual(groups.map(({ health, assets: members }) => [health, members.map(({ name }) => name)]), [["DIVERGED", ["P1"]], ["IN_SYNC", ["R9", "R10"]]]);
  assert.deepEqual(grouped(assets.values(), "FLOW p").map(({ assets: members }) => members.map(({ name }) => name)), [["P1"]]);
  assert.deepEqual(grouped(assets.values(), "nothing"), []);
});

test("an asset is shown by its temperature where it has one", () => {
  assert.equal(shownTag([tag("R", "level", 0), tag("R", "inlet", 1, { unit: "degC" })]).name, "inlet");
  assert.equal(shownTag([tag("R", "inlet", 1, { unit: "degC" }), tag("R", "temperature", 2, { unit: "degC" })]).name, "temperature");
  assert.equal(shownTag([tag("R", "on", 0, { analogue: false }), tag("R", "level", 1)]).name, "level");
  assert.equal(shownTag([]), null);
});

test("the verdict is that of the worst asset, and says why", () => {
  const assets = [...assetsOf([tag("R1", "a", 0), tag("R2", "a", 1)]).values()];
  assert.equal(verdict(assets).level, "starting");
  for (const asset of assets) asset.snapshot = { health: "IN_SYNC", why: "", model: "", predictions: [] };
  assert.equal(verdict(assets).text, "Data comes in as it should", "without a model nothing agrees with it");
  for (const asset of assets) asset.snapshot.model = "stirred_tank";
  assert.deepEqual(verdict(assets), { level: "good", text: "Plant and twin agree", detail: "2 of 2 assets in step" });
  assets[1].snapshot = { health: "DIVERGED", why: "R2.a drifts", predictions: [] };
  assert.deepEqual(verdict(assets), { level: "bad", text: "Plant and twin do not agree", detail: "1 of 2 assets in step · R2: R2.a drifts" });
  assert.equal(verdict([]).level, "none");
  assets[1].snapshot = { health: "STALE", why: "no data from R2.a", predictions: [] };
  assert.deepEqual(verdict(assets), { level: "warn", text: "The twin misses data", detail: "1 of 2 assets in step · R2: no data from R2.a" });
  assets[0].snapshot = assets[1].snapshot;
  assert.equal(verdict(assets).level, "warn", "one silent tag each makes no plant blind");
  assert.equal(verdict(assets, true).level, "bad", "of a plant of which nothing is known no part is well");
});

test("live samples find their place, and one heard twice is one", () => {
  const points = new Points();
  for (const time of [1000, 3000, 2000, 3000.001]) points.add(point(time));
  assert.deepEqual(points.all.map(({ time }) => time), [1000, 2000, 3000.001]);
});

test("history stands in the place of what was heard live, but what is newer than its last row stays", () => {
  const points = new Points();
  for (const time of [1000, 2000, 3000, 4000]) points.add(point(time, 7));
  points.merge([point(1500, 1), point(2000, 1), point(3000, 1)], 1000, 10_000);
  assert.deepEqual(points.all.map(({ time, value }) => [time, value]), [[1500, 1], [2000, 1], [3000, 1], [4000, 7]]);
  points.merge([], 10_000, 20_000);
  assert.equal(points.all.length, 4);
  points.trim(2000, 3500);
  assert.deepEqual(points.all.map(({ time }) => time), [2000, 3000]);
  assert.equal(points.nearest(2400), 0);
  assert.equal(points.nearest(2600), 1);
});

test("a silence breaks the line: a dead sensor draws none", () => {
  const [times, centre, low, high] = columnsOf([point(0), point(1000), point(9000)], 3000);
  assert.deepEqual(times, [0, 1000, 5000, 9000]);
  assert.deepEqual(centre, [1, 1, null, 1]);
  assert.deepEqual([low[0], high[0]], [0, 2]);
});

test("Bad values do not squash the axis; Uncertain ones are in sight", () => {
  const points = [point(0, 80), point(1, 500, { severity: 2, estimate: 81 }), point(2, 120, { severity: 1, estimate: 80 })];
  assert.deepEqual(extent(points, 0, 10), [79, 120]);
  assert.deepEqual(extent([], 0, 10), [Infinity, -Infinity]);
});

test("a prediction that was far off leaves a third of the height to what happened; the newest is in sight", () => {
  const made = (/** @type {number} */ value) => ({ value, persistence: 80 });
  assert.deepEqual(withAhead([76, 86], [made(40), made(84)], made(84), 0), [66, 86]);
  assert.deepEqual(withAhead([76, 86], [made(40), made(200)], made(200), 0), [66, 200]);
  assert.deepEqual(withAhead([76, 86], [made(40), made(200)], null, 0), [66, 96], "one of a while ago is not the newest");
  assert.deepEqual(withAhead([80, 80], [made(40), made(80)], null, 4), [76, 80]);
  assert.deepEqual(withAhead([80, 80], [made(81)], null, 0), [80, 81], "a flat line leaves room");
  assert.deepEqual(withAhead([76, 86], [{ value: NaN, persistence: NaN }], { value: NaN }, 0), [76, 86]);
  assert.deepEqual(withAhead([Infinity, -Infinity], [made(40)], null, 1), [40, 80]);
  assert.deepEqual(withAhead([76, 86], [], null, 0), [76, 86]);
});

test("rows of the server become points and windows; what has no value is none", () => {
  const made = pointOf({ time: "2026-03-01T10:00:00.5Z", value: null, status: "Bad", reasons: "NON_FINITE|STALE", estimate: 1, estimate_std: null });
  assert.ok(Number.isNaN(made.value) && Number.isNaN(made.std));
  assert.deepEqual([made.severity, made.reasons], [2, ["NON_FINITE", "STALE"]]);
  const windows = [0, 1, 5].map((k) => windowOf({ time: new Date(k * 60_000).toISOString(), mean: k, min: k, max: k, count: 1, good_fraction: 1 }));
  assert.deepEqual(windowColumns(windows, 60_000)[1], [0, 1, null, 5]);
});

test("a span follows now with room for what is predicted, or stands where an address says", () => {
  assert.deepEqual(following(300_000, 1e6, 60_000), { from: 700_000, to: 1_063_000 });
  assert.deepEqual(following(300_000, 1e6, 3_600_000), { from: 700_000, to: 1_075_000 });
  assert.deepEqual(asked(new URLSearchParams("range=1h"), parseTime), { size: 3_600_000, follows: true });
  assert.deepEqual(asked(new URLSearchParams("range=no"), parseTime), { size: 300_000, follows: true });
  const at = asked(new URLSearchParams("from=2026-03-01T10:00:00Z&to=2026-03-01T11:00:00Z"), parseTime);
  assert.equal(at.follows, false);
  assert.equal(at.span.to - at.span.from, 3_600_000);
  assert.equal(sensible(0, 1).to - sensible(0, 1).from, 2000);
});

test("the quality map has all tags, the worst first, and forgets what has passed", () => {
  const grid = new Grid(60_000);
  const row = (name, minute, good, uncertain, bad) => ({ tag: name, time: new Date(minute * 60_000).toISOString(), count: good + uncertain + bad, good, uncertain, bad });
  grid.take([row("a", 0, 60, 0, 0), row("b", 0, 50, 10, 0), row("c", 0, 50, 0, 10), row("c", 1, 60, 0, 0)]);
  grid.settle(0);
  assert.deepEqual(grid.rows(["a", "b", "c", "d"], "", true).map(({ tag: name }) => name), ["c", "b", "a", "d"]);
  assert.deepEqual(grid.rows(["a", "b", "c", "d"], "C", false).map(({ tag: name }) => name), ["c"]);
  assert.equal(grid.newest, 60_000);
  grid.take([row("c", 1, 30, 0, 30)]);
  grid.settle(60_000);
  assert.deepEqual(grid.byTag.get("c").sum, { count: 60, good: 30, uncertain: 0, bad: 30 });
  assert.equal(grid.byTag.get("b").sum.count, 0);
});

test("reasons are added up over tags, the most frequent first", () => {
  const found = reasonsIn([{ tag: "a", by_reason: { SPIKE: 2, STUCK: 9 } }, { tag: "b", by_reason: { SPIKE: 20 } }, { tag: "c", by_reason: {} }]);
  assert.deepEqual(found, [{ reason: "SPIKE", count: 22, tags: 2, worst: "b" }, { reason: "STUCK", count: 9, tags: 1, worst: "a" }]);
});
