/** What a person chose on this page, kept in the browser: light or dark, local time or UTC. */

/** @typedef {"auto" | "light" | "dark"} Theme */

const KEY = "twinloop";

/** @type {Set<() => void>} */
const listeners = new Set();
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const kept = load();
/** @type {Record<string, string> | null} */
let colours = null;

export const prefs = {
  /** @type {Theme} */
  theme: ["light", "dark"].includes(kept.theme) ? kept.theme : "auto",
  utc: kept.utc === true,

  /** @param {Theme} theme */
  setTheme(theme) {
    prefs.theme = theme;
    save();
  },

  /** @param {boolean} utc */
  setUtc(utc) {
    prefs.utc = utc;
    save();
  },

  /** Whether the page is dark now. */
  get isDark() {
    return prefs.theme === "dark" || (prefs.theme === "auto" && dark.matches);
  },

  /**
   * Call when a choice changes; returns how to stop that.
   *
   * @param {() => void} listener
   */
  listen(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
};

dark.addEventListener("change", apply);
apply();

function apply() {
  document.documentElement.dataset.theme = prefs.isDark ? "dark" : "light";
  colours = null;
  for (const listener of listeners) listener();
}

function save() {
  try {
    localStorage.setItem(KEY, JSON.stringify({ theme: prefs.theme, utc: prefs.utc }));
  } catch {
    // A browser that keeps nothing: the choice holds until the page is left.
  }
  apply();
}

/** @returns {any} */
function load() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}") ?? {};
  } catch {
    return {};
  }
}

/** The style sheet's colours for what is drawn on a canvas. @returns {Record<string, string>} */
export function palette() {
  if (colours) return colours;
  const style = getComputedStyle(document.documentElement);
  const names = ["text", "muted", "line", "grid", "surface", "ground", "estimate", "band", "raw", "uncertain", "bad", "model", "unchanged", "limit", "event"];
  colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  return colours;
}
