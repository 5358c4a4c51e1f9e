import assert from "node:assert/strict";
import test from "node:test";

import { Columns } from "../../src/twinloop/web/static/js/pure/columns.js";
import { decodeFrame, MAGIC } from "../../src/twinloop/web/static/js/pure/frame.js";

/** A frame as the server writes one. */
export function frame(now, rows) {
  const n = rows.length;
  const buffer = new ArrayBuffer(16 + 48 * n);
  const view = new DataView(buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, n, true);
  view.setFloat64(8, now, true);
  let at = 16;
  for (const name of ["time", "arrival", "value", "estimate"]) {
    for (const row of rows) {
      view.setFloat64(at, row[name] ?? NaN, true);
      at += 8;
    }
  }
  for (const row of rows) {
    view.setFloat32(at, row.std ?? NaN, true);
    at += 4;
  }
  for (const name of ["index", "status", "reasons"]) {
    for (const row of rows) {
      view.setUint32(at, row[name] ?? 0, true);
      at += 4;
    }
  }
  return buffer;
}

test("a frame's columns are read where they stand, without a copy", () => {
  const bytes = frame(5000, [
    { time: 1000.25, arrival: 1001, value: 85.5, estimate: 85.25, std: 0.5, index: 3, status: 0x40000000, reasons: 16 },
    { time: 1000.5, value: 1.5, index: 0 },
    { time: 999, index: 1, status: 0x80000000 },
  ]);
  const decoded = decodeFrame(bytes);
  assert.equal(decoded.now, 5000);
  assert.equal(decoded.n, 3);
  assert.deepEqual([...decoded.time], [1000.25, 1000.5, 999]);
  assert.deepEqual([...decoded.index], [3, 0, 1]);
  assert.equal(decoded.status[2] >>> 30, 2);
  assert.equal(decoded.reasons[0], 16);
  assert.ok(Number.isNaN(decoded.estimate[1]));
  assert.equal(decoded.value.buffer, bytes);
});

test("a frame of nothing is a frame", () => {
  assert.equal(decodeFrame(frame(1, [])).n, 0);
});

test("bytes that are no frame are refused by name", () => {
  const whole = frame(1, [{ index: 0 }]);
  assert.throws(() => decodeFrame(whole.slice(0, 10)), /head of 16 bytes/);
  assert.throws(() => decodeFrame(whole.slice(0, -1)), /has 64 bytes, not 63/);
  const other = whole.slice(0);
  new DataView(other).setUint32(0, 1, true);
  assert.throws(() => decodeFrame(other), /not a frame/);
});

test("the newest sample of each tag is kept, changes of severity are told, unknown tags passed over", () => {
  const columns = new Columns(2);
  const told = [];
  const hear = (index, severity) => told.push([index, severity]);
  columns.apply(decodeFrame(frame(1000, [{ time: 900, value: 1, index: 0 }, { time: 900, value: 9, index: 7 }])), hear);
  columns.apply(decodeFrame(frame(2000, [{ time: 1900, value: 2, index: 0, status: 0x40000000 }])), hear);
  columns.apply(decodeFrame(frame(3000, [{ time: 2900, value: 3, index: 0, status: 0x40900000 }])), hear);
  assert.equal(columns.value[0], 3);
  assert.ok(Number.isNaN(columns.value[1]));
  assert.deepEqual(told, [[0, 1]]);
  assert.equal(columns.seen[0], 3);
});

test("a sparkline remembers four minutes by two seconds, with the worst of each", () => {
  const columns = new Columns(1);
  for (let s = 0; s <= 600; s += 1) {
    const status = s === 599 ? 0x80000000 : 0;
    columns.apply(decodeFrame(frame(s * 1000, [{ time: s * 1000, value: s, estimate: s, std: 1, index: 0, status }])), () => {});
  }
  const seen = [];
  columns.sparks.read(0, 600_000, (k, value, std, worst) => seen.push([k, value, std, worst]));
  assert.equal(seen.length, 120);
  assert.deepEqual(seen.at(-1), [119, 600, 1, 0]);
  assert.deepEqual(seen.at(-2), [118, 599, 1, 2]);
  assert.deepEqual(seen[0], [0, 363, 1, 0]);
});

test("silence leaves a hole in a sparkline, and history fills only holes", () => {
  const columns = new Columns(1);
  const hear = (ms) => columns.apply(decodeFrame(frame(ms, [{ time: ms, value: 5, index: 0 }])), () => {});
  hear(100_000);
  hear(120_000);
  const value = (ms) => {
    let found;
    columns.sparks.read(0, 120_000, (k, each) => {
      if (k === 119 - (120_000 - ms) / 2000) found = each;
    });
    return found;
  };
  assert.ok(Number.isNaN(value(110_000)));
  assert.ok(columns.sparks.isYoung(0));
  columns.sparks.backfill(0, [80, 110, 120].map((s, k) => ({ time: 1000 * s, value: k + 1, std: 0.5, severity: 0 })));
  assert.equal(value(80_000), 1);
  assert.equal(value(110_000), 2);
  assert.equal(value(120_000), 5);
});
