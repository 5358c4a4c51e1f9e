/** What a page says when it has nothing to show: what is going on, and what to do. */

import { h } from "./dom.js";
import { duration } from "../pure/format.js";

/**
 * An error, with a button that tries again.
 *
 * @param {unknown} error
 * @param {(() => void) | null} again
 */
export function errorNotice(error, again) {
  const { title, detail } = words(error);
  return h("div", { class: "notice error" },
    h("strong", null, title),
    detail ? h("p", null, detail) : null,
    again ? h("button", { type: "button", on: { click: again } }, "Try again") : null);
}

/** @param {string} text */
export function loadingNotice(text) {
  return h("p", { class: "empty", role: "status" }, text);
}

/** @param {string} text */
export function emptyNotice(text) {
  return h("p", { class: "empty" }, text);
}

/**
 * @param {any} error
 * @returns {{title: string, detail: string}}
 */
export function words(error) {
  const status = error?.status;
  if (status === 401 || status === 403) return { title: "Login needed", detail: "Log in, then this page goes on." };
  if (status === 503) {
    const wait = Number.isFinite(error.retryS) ? ` It may be asked again in ${duration(error.retryS)}.` : "";
    return { title: error.title, detail: `${error.detail}${wait}` };
  }
  if (error?.title) return { title: error.title, detail: error.detail };
  return { title: "This page failed", detail: String(error?.message ?? error) };
}

/** Whether a question was only called off. @param {any} error */
export function wasCalledOff(error) {
  return error?.name === "AbortError";
}
