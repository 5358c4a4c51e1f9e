/** The strip at the top: pages, how fresh the numbers are, the clock, light or dark. */

import { prefs } from "../prefs.js";
import { age, duration } from "../pure/format.js";
import { clock, zoneName } from "../pure/time.js";
import { ROUTES } from "../routes.js";
import { FRESH_MS } from "../plant.js";
import { fill, h, need, setText } from "./dom.js";
import { icon } from "./icons.js";
import { throttled } from "./visible.js";

/** @typedef {import("../plant.js").Plant} Plant */

const THEMES = /** @type {const} */ (["auto", "light", "dark"]);
const THEME_WORDS = { auto: "auto", light: "light", dark: "dark" };

/**
 * Bring the header to life.
 *
 * @param {Plant} plant
 * @returns {{mark: (path: string) => void}} `mark` says which page is shown
 */
export function startHeader(plant) {
  const nav = need("nav");
  const links = ROUTES.map((route) => ({ route, link: h("a", { href: route.link(plant) }, route.nav) }));
  fill(nav, links.map(({ link }) => h("li", null, link)));
  let marked = "/";
  const mark = (/** @type {string} */ path) => {
    marked = path;
    for (const { route, link } of links) {
      link.setAttribute("href", route.link(plant));
      link.hidden = link.getAttribute("href")?.endsWith("/") === true && route.path !== "/"; // no asset to lead to
      if (route.path === marked) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  };
  plant.on("plant", () => mark(marked));

  startButtons();
  const show = connection(plant);
  plant.on("phase", show);
  plant.on("frame", throttled(show, 250));
  window.setInterval(show, 500);
  show();
  return { mark };
}

function startButtons() {
  const zone = need("zone");
  const theme = need("theme");
  zone.addEventListener("click", () => prefs.setUtc(!prefs.utc));
  theme.addEventListener("click", () => prefs.setTheme(THEMES[(THEMES.indexOf(prefs.theme) + 1) % THEMES.length]));
  const show = () => {
    fill(zone, h("span", { class: "word" }, "Time: "), prefs.utc ? "UTC" : "local");
    zone.title = prefs.utc ? "Times are UTC; click for local time" : `Times are local (${zoneName(false)}); click for UTC`;
    fill(theme, h("span", { class: "word" }, "Colours: "), THEME_WORDS[prefs.theme]);
    theme.title = "Colours: as the system, light, dark";
  };
  prefs.listen(show);
  show();
}

/**
 * Draws how the connection stands; the number of the data's age is only shown where it matters.
 *
 * @param {Plant} plant
 */
function connection(plant) {
  const place = need("connection");
  const badge = h("span", { class: "badge" });
  const time = h("span", { class: "live nowrap" });
  fill(place, badge, time);
  const announce = need("announce");
  let kind = "";
  let told = "";
  return () => {
    setText(need("plant-name"), plant.name);
    need("logout").hidden = !plant.hello?.login;
    const now = says(plant);
    document.body.dataset.stale = String(!plant.isFresh);
    if (now.kind !== kind) {
      kind = now.kind;
      badge.className = `badge ${now.level}`;
      fill(badge, icon(now.level), now.kind === "login" ? h("a", { href: "login" }, now.text) : h("span", null, now.text));
    } else {
      setText(/** @type {Node} */ (badge.lastChild), now.text);
    }
    setText(time, Number.isNaN(plant.anchor.server) ? "" : clock(plant.isFresh ? plant.now() : plant.anchor.server, prefs.utc));
    if (now.spoken !== told) {
      if (told) setText(announce, now.spoken);
      told = now.spoken;
    }
  };
}

/**
 * @param {Plant} plant
 * @returns {{kind: string, level: string, text: string, spoken: string}}
 */
function says(plant) {
  const silence = plant.silence();
  const old = Number.isNaN(silence) ? "" : `, data ${age(silence / 1000)} old`;
  switch (plant.phase) {
    case "live":
      if (silence > FRESH_MS) return { kind: "quiet", level: "uncertain", text: `No word for ${age(silence / 1000)}`, spoken: "The server has gone quiet" };
      return { kind: "live", level: "good", text: "Live", spoken: "Live" };
    case "starting":
      return { kind: "starting", level: "uncertain", text: "Twin starting", spoken: "The twin is starting" };
    case "login":
      return { kind: "login", level: "bad", text: "Login needed", spoken: "Login needed" };
    case "waiting": {
      const left = Math.max(0, (plant.retryAt - performance.now()) / 1000);
      return { kind: "waiting", level: "bad", text: `Reconnecting in ${duration(Math.ceil(left) || 0).replace(".0", "")}${old}`, spoken: "Connection lost, reconnecting" };
    }
    case "gone":
      return { kind: "gone", level: "bad", text: `twinloop does not answer${old}`, spoken: "twinloop does not answer" };
    default:
      return plant.loaded
        ? { kind: "reconnecting", level: "bad", text: `Reconnecting${old}`, spoken: "Connection lost, reconnecting" }
        : { kind: "connecting", level: "uncertain", text: "Connecting", spoken: "Connecting" };
  }
}
