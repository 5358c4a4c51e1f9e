/** Times: milliseconds since the epoch inside, local or UTC outside; ISO 8601 to and from the server. */

/**
 * Milliseconds since the epoch of an ISO 8601 time with up to nine decimals; NaN where it is none.
 *
 * @param {string | null | undefined} text
 */
export function parseTime(text) {
  const match = /^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)$/.exec(text ?? "");
  if (!match) return NaN;
  const [, day, time, fraction = "", zone] = match;
  return Date.parse(`${day}T${time}${zone}`) + Number(fraction.padEnd(9, "0")) / 1e6;
}

/**
 * A time for the server, to the microsecond, never earlier than `ms`.
 *
 * @param {number} ms
 */
export function isoTime(ms) {
  const whole = Math.floor(ms);
  const micros = Math.ceil((ms - whole) * 1000 - 1e-6);
  const base = new Date(whole + (micros >= 1000 ? 1 : 0)).toISOString();
  return `${base.slice(0, -1)}${String(micros >= 1000 ? 0 : micros).padStart(3, "0")}Z`;
}

/** @param {number} value @param {number} [width] */
const pad = (value, width = 2) => String(value).padStart(width, "0");

/**
 * @param {number} ms
 * @param {boolean} utc
 */
function parts(ms, utc) {
  const at = new Date(ms);
  return utc
    ? { y: at.getUTCFullYear(), o: at.getUTCMonth() + 1, d: at.getUTCDate(), h: at.getUTCHours(), m: at.getUTCMinutes(), s: at.getUTCSeconds(), f: at.getUTCMilliseconds() }
    : { y: at.getFullYear(), o: at.getMonth() + 1, d: at.getDate(), h: at.getHours(), m: at.getMinutes(), s: at.getSeconds(), f: at.getMilliseconds() };
}

/**
 * Time of day to the second, or to the millisecond.
 *
 * @param {number} ms
 * @param {boolean} utc
 * @param {boolean} [fine]
 */
export function clock(ms, utc, fine = false) {
  if (!Number.isFinite(ms)) return "–";
  const t = parts(ms, utc);
  return `${pad(t.h)}:${pad(t.m)}:${pad(t.s)}${fine ? `.${pad(t.f, 3)}` : ""}`;
}

/**
 * Date and time of day.
 *
 * @param {number} ms
 * @param {boolean} utc
 * @param {boolean} [fine]
 */
export function dateTime(ms, utc, fine = false) {
  if (!Number.isFinite(ms)) return "–";
  const t = parts(ms, utc);
  return `${t.y}-${pad(t.o)}-${pad(t.d)} ${clock(ms, utc, fine)}`;
}

/**
 * The time of day, with its date where that is not the day of `now`.
 *
 * @param {number} ms
 * @param {number} now
 * @param {boolean} utc
 */
export function nearTime(ms, now, utc) {
  const a = parts(ms, utc);
  const b = parts(now, utc);
  return a.y === b.y && a.o === b.o && a.d === b.d ? clock(ms, utc) : dateTime(ms, utc);
}

/** What the clock is called: UTC, or the local zone's offset. @param {boolean} utc @param {number} [at] */
export function zoneName(utc, at = Date.now()) {
  if (utc) return "UTC";
  const minutes = -new Date(at).getTimezoneOffset();
  const sign = minutes < 0 ? "−" : "+";
  const size = Math.abs(minutes);
  return `UTC${sign}${pad(Math.floor(size / 60))}:${pad(size % 60)}`;
}

/**
 * Labels of a time axis: as much of date and time as the step needs, the date where a day begins.
 *
 * @param {number[]} splits ms
 * @param {number} step ms between them
 * @param {boolean} utc
 */
export function axisLabels(splits, step, utc) {
  let day = "";
  return splits.map((ms) => {
    const t = parts(ms, utc);
    const date = `${pad(t.o)}-${pad(t.d)}`;
    const turned = date !== day && day !== "";
    const first = day === "";
    day = date;
    if (step >= 86400000) return date;
    const time = step >= 60000 ? `${pad(t.h)}:${pad(t.m)}` : step >= 1000 ? `${pad(t.h)}:${pad(t.m)}:${pad(t.s)}` : `${pad(t.m)}:${pad(t.s)}.${pad(t.f, 3)}`;
    return (turned || (first && step >= 3600000)) ? `${time}\n${date}` : time;
  });
}

/**
 * The value of a datetime-local input, by the clock shown.
 *
 * @param {number} ms
 * @param {boolean} utc
 */
export function toInput(ms, utc) {
  return dateTime(ms, utc).replace(" ", "T");
}

/**
 * What a person put into a datetime-local input; NaN for nothing.
 *
 * @param {string} text
 * @param {boolean} utc
 */
export function fromInput(text, utc) {
  if (!text) return NaN;
  const whole = /T\d\d:\d\d$/.test(text) ? `${text}:00` : text;
  return Date.parse(utc ? `${whole}Z` : whole);
}
