/** Questions to the HTTP API; every failure becomes an `ApiError` that says what to do. */

const BASE = "api/v1";

/** An answer that is none: its title says what happened, its detail what to do. */
export class ApiError extends Error {
  /**
   * @param {number} status 0 where there was no answer at all
   * @param {string} title
   * @param {string} detail
   * @param {number} [retryS] when to ask again, seconds
   */
  constructor(status, title, detail, retryS = NaN) {
    super(detail ? `${title}: ${detail}` : title);
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.retryS = retryS;
  }
}

/**
 * @typedef {object} Answer
 * @property {any} body
 * @property {string | null} next the address of the next page
 */

/**
 * @param {string} path after /api/v1, with its leading slash
 * @param {Record<string, string | number | boolean | string[] | undefined>} [query]
 * @param {AbortSignal} [signal]
 * @returns {Promise<Answer>}
 */
export async function get(path, query = {}, signal = undefined) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined || value === "") continue;
    for (const each of Array.isArray(value) ? value : [value]) words.append(name, String(each));
  }
  const tail = String(words);
  return ask(`${BASE}${path}${tail ? `?${tail}` : ""}`, signal);
}

/**
 * Rows of all pages, at most `most` of them.
 *
 * @param {string} path
 * @param {Record<string, string | number | boolean | string[] | undefined>} query
 * @param {{signal?: AbortSignal, most?: number}} [options]
 * @returns {Promise<{rows: any[], more: boolean}>}
 */
export async function rows(path, query, { signal, most = 100_000 } = {}) {
  let answer = await get(path, query, signal);
  const found = [...answer.body];
  while (answer.next && found.length < most) {
    answer = await ask(answer.next, signal);
    found.push(...answer.body);
  }
  return { rows: found, more: Boolean(answer.next) };
}

/**
 * @param {string} url
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<Answer>}
 */
async function ask(url, signal) {
  let response;
  try {
    response = await fetch(url, { signal, headers: { Accept: "application/json" }, credentials: "same-origin" });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "twinloop does not answer", "It may have been stopped, or the network is down.");
  }
  if (response.ok) return { body: await response.json(), next: nextOf(response.headers.get("Link")) };
  throw await problem(response);
}

/** @param {Response} response */
async function problem(response) {
  const retry = Number(response.headers.get("Retry-After") ?? NaN);
  let said = { title: response.statusText || `status ${response.status}`, detail: "" };
  try {
    if ((response.headers.get("Content-Type") ?? "").includes("json")) said = { ...said, ...(await response.json()) };
  } catch {
    // The body was cut off: the status has to do.
  }
  return new ApiError(response.status, said.title, said.detail, retry);
}

/**
 * The address of `rel="next"` in a Link header.
 *
 * @param {string | null} header
 */
export function nextOf(header) {
  const match = /<([^>]+)>\s*;\s*rel="?next"?/.exec(header ?? "");
  return match ? match[1] : null;
}
