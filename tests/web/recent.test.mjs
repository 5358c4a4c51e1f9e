/** What changed in the last minutes is asked for while the page is live: nothing shown is lost meanwhile, and nothing counted twice. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Plant } from "../../src/twinloop/web/static/js/plant.js";
import { Columns } from "../../src/twinloop/web/static/js/pure/columns.js";

const AT = "2026-03-01T10:00:00Z";
const EVENTS = [
  { time: AT, subject: "R1.a", kind: "STATUS", before: "Good", after: "Uncertain", why: "SPIKE" },
  { time: "2026-03-01T10:00:01Z", subject: "R1.a", kind: "STATUS", before: "Uncertain", after: "Good", why: "" },
];
const NOW = Date.parse(AT) + 5000;

/** A plant of one tag, and how each question to the server is answered. */
function asked() {
  /** @type {(() => void)[]} */
  const answers = [];
  globalThis.fetch = () => new Promise((done) => {
    answers.push(() => done({ ok: true, headers: { get: () => null }, json: async () => EVENTS }));
  });
  const plant = new Plant();
  plant.tags = [{ tag: "R1.a", asset: "R1", name: "a", index: 0 }];
  plant.byName = new Map([["R1.a", plant.tags[0]]]);
  plant.columns = new Columns(1);
  plant.columns.began = NOW;
  return { plant, answers };
}

test("an alarm stays listed while the server is asked what came before it", async () => {
  const { plant, answers } = asked();
  plant.columns.status[0] = 0x40000000;
  plant.alarms.change(0, 1, ["STALE"], NOW);
  const told = plant.recent();
  assert.deepEqual(plant.alarms.list(NOW).map(({ severity }) => severity), [1]);
  answers[0]();
  await told;
  assert.deepEqual(plant.alarms.list(NOW).map(({ severity }) => severity), [1]);
});

test("asked twice at once, a spike is one", async () => {
  const { plant, answers } = asked();
  const told = [plant.recent(), plant.recent()];
  for (const answer of answers.reverse()) answer();
  await Promise.all(told);
  assert.deepEqual(plant.alarms.list(NOW).map(({ times }) => times), [1]);
});
