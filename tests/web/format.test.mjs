import assert from "node:assert/strict";
import test from "node:test";

import { age, bytes, count, decimalsFor, duration, number, percent, plain, quantity, rate, share, stepDecimals } from "../../src/twinloop/web/static/js/pure/format.js";
import { axisLabels, clock, dateTime, fromInput, isoTime, parseTime, toInput, zoneName } from "../../src/twinloop/web/static/js/pure/time.js";
import { stateName, reasonNames, severityOf, unitText } from "../../src/twinloop/web/static/js/pure/words.js";
import { cellQuality, strength, valueRange, windowFor } from "../../src/twinloop/web/static/js/pure/scales.js";
import { hexDump, rawBytes } from "../../src/twinloop/web/static/js/pure/bytes.js";

const thin = "\u202f";

test("a number has the digits its sensor's noise deserves", () => {
  assert.equal(number(85.2345, decimalsFor(0.5)), "85.2");
  assert.equal(number(1.43219, decimalsFor(0.02)), "1.43");
  assert.equal(number(12345.6, decimalsFor(30)), "12346");
  assert.ok(Number.isNaN(decimalsFor(null)));
  assert.ok(Number.isNaN(decimalsFor(0)));
});

test("neighbouring labels of an axis differ", () => {
  assert.deepEqual([5, 2.5, 0.25, 0.1, 1e-3, 2e-7].map(stepDecimals), [0, 1, 2, 1, 3, 7]);
});

test("without a noise there are four significant digits, and none where there is no number", () => {
  assert.deepEqual([85.23456, 0.0123456, 1234.56, 0, -3.21987].map((each) => number(each)), ["85.23", "0.01235", "1235", "0.000", "−3.220"]);
  assert.deepEqual([null, undefined, NaN, Infinity].map((each) => number(each)), ["–", "–", "–", "–"]);
  assert.equal(number(1.5e9), "1.500e+9");
  assert.equal(number(3e-7), "3.000e−7");
});

test("a limit is shown as it was written", () => {
  assert.deepEqual([150, -50, 0.25, 1e6, null].map(plain), ["150", "−50", "0.25", "1000000", "–"]);
});

test("a unit stands behind its number as people write it", () => {
  assert.equal(quantity(85.2, "degC", 1), `85.2${thin}°C`);
  assert.equal(quantity(3, "m^3/s", 0), `3${thin}m³/s`);
  assert.equal(quantity(NaN, "degC"), "–");
  assert.equal(unitText("mol/m^3"), "mol/m³");
  assert.equal(unitText("L/min"), "L/min");
  assert.equal(unitText("1"), "");
  assert.equal(percent(0.6213), `62.1${thin}%`);
});

test("a share never rounds something to nothing nor nearly all to all", () => {
  assert.equal(share(1, 100_000), `<${thin}0.1${thin}%`);
  assert.equal(share(99_999, 100_000), `>${thin}99.9${thin}%`);
  assert.equal(share(0, 5), `0${thin}%`);
  assert.equal(share(5, 5), `100${thin}%`);
  assert.equal(share(1, 0), "–");
});

test("durations, bytes and counts are said as people say them", () => {
  assert.deepEqual([0.0052, 0.45, 3.21, 42, 200, 7500, 90_000].map(duration), [`5.2${thin}ms`, `0.45${thin}s`, `3.2${thin}s`, `42${thin}s`, `3${thin}min 20${thin}s`, `2${thin}h 5${thin}min`, `1${thin}d 1${thin}h`]);
  assert.equal(age(3.9), `3${thin}s`);
  assert.deepEqual([999, 1_500, 2_340_000_000].map(bytes), [`999${thin}B`, `1.50${thin}kB`, `2.34${thin}GB`]);
  assert.equal(count(1234567), `1${thin}234${thin}567`);
  assert.equal(rate(9.876), "9.88");
  assert.equal(count(null), "–");
});

test("times keep their nanoseconds as far as a float goes, and go back to the server", () => {
  assert.equal(parseTime("2026-03-01T10:00:50.123456789Z"), Date.UTC(2026, 2, 1, 10, 0, 50) + 123.456789);
  assert.equal(parseTime("2026-03-01T10:00:50Z"), Date.UTC(2026, 2, 1, 10, 0, 50));
  assert.equal(parseTime("2026-03-01T12:00:50+02:00"), Date.UTC(2026, 2, 1, 10, 0, 50));
  assert.ok(Number.isNaN(parseTime("yesterday")));
  assert.ok(Number.isNaN(parseTime(null)));
  assert.equal(isoTime(Date.UTC(2026, 2, 1) + 0.1234), "2026-03-01T00:00:00.000124Z");
  assert.equal(isoTime(Date.UTC(2026, 2, 1) + 0.9999999), "2026-03-01T00:00:00.001000Z");
  for (const ms of [1.8e12 + 0.25, 1.8e12 + 0.999, 1.8e12]) assert.ok(parseTime(isoTime(ms)) >= ms - 1e-6);
});

test("the clock is UTC or local as asked, also in inputs", () => {
  const ms = Date.UTC(2026, 2, 1, 9, 5, 7, 42);
  assert.equal(clock(ms, true), "09:05:07");
  assert.equal(dateTime(ms, true, true), "2026-03-01 09:05:07.042");
  assert.equal(fromInput(toInput(ms, true), true), ms - 42);
  assert.equal(fromInput(toInput(ms, false), false), ms - 42);
  assert.equal(fromInput("2026-03-01T09:05", true), ms - 7042);
  assert.equal(zoneName(true), "UTC");
  assert.deepEqual(axisLabels([ms, ms + 60_000], 60_000, true), ["09:05", "09:06"]);
  assert.deepEqual(axisLabels([Date.UTC(2026, 2, 1, 23), Date.UTC(2026, 2, 2)], 3_600_000, true), ["23:00\n03-01", "00:00\n03-02"]);
});

test("reasons are named by the hello frame's bits; an unknown bit is not lost", () => {
  assert.deepEqual(reasonNames(0b10010, { 2: "RANGE", 16: "SPIKE" }), ["RANGE", "SPIKE"]);
  assert.deepEqual(reasonNames(0x80000000, {}), ["bit 31"]);
  assert.equal(severityOf("UncertainLastUsableValue"), 1);
  assert.deepEqual(stateName("concentration_mol_per_m3"), { label: "concentration", unit: "mol/m³" });
  assert.deepEqual(stateName("unexplained_temperature_k_per_s"), { label: "unexplained temperature", unit: "K/s" });
  assert.deepEqual(stateName("conversion"), { label: "conversion", unit: "" });
});

test("windows cut a span into no more than asked for, and none is narrower than the least", () => {
  assert.deepEqual(windowFor(3_600_000, 720), { text: "5s", ms: 5000 });
  assert.deepEqual(windowFor(7 * 86_400_000, 700), { text: "15m", ms: 900_000 });
  assert.deepEqual(windowFor(1000, 700, 60_000), { text: "1m", ms: 60_000 });
  assert.deepEqual(windowFor(1e13, 10), { text: "1d", ms: 86_400_000 });
});

test("an axis has some air and always a height", () => {
  const [low, high] = valueRange(80, 90, 0);
  assert.ok(low < 80 && high > 90);
  const [flat, top] = valueRange(5, 5, 0);
  assert.ok(top > flat);
  assert.deepEqual(valueRange(Infinity, -Infinity, 0), [0, 1]);
});

test("a cell says the worst there is, however little of it", () => {
  assert.equal(cellQuality(undefined).kind, "none");
  assert.deepEqual(cellQuality({ count: 60, good: 59, uncertain: 0, bad: 1 }), { kind: "bad", share: 1 / 60 });
  assert.equal(cellQuality({ count: 60, good: 58, uncertain: 2, bad: 0 }).kind, "uncertain");
  assert.equal(cellQuality({ count: 60, good: 60, uncertain: 0, bad: 0 }).kind, "good");
  assert.ok(strength(0.01) < strength(0.1) && strength(0.1) < strength(0.9));
});

test("bytes are shown as they were received", () => {
  assert.deepEqual(rawBytes('{"value": 1}'), { bytes: new TextEncoder().encode('{"value": 1}'), isText: true });
  const { bytes: raw, isText } = rawBytes("base64:AP9B");
  assert.deepEqual([...raw], [0, 255, 65]);
  assert.equal(isText, false);
  assert.match(hexDump(raw), /^0000 {2}00 ff 41 .* {2}\.\.A$/);
  assert.match(hexDump(new Uint8Array(600)), /and 88 more bytes$/);
});
