/** The page begins here: read the plant, listen to it, show the page that the address asks for. */

import { get } from "./net/api.js";
import { Plant } from "./plant.js";
import { match } from "./routes.js";
import { fill, h, need } from "./ui/dom.js";
import { chartsReady } from "./ui/chart.js";
import { startHeader } from "./ui/header.js";
import { errorNotice, loadingNotice } from "./ui/notice.js";
import { painted } from "./ui/visible.js";

const AGAIN_MS = 2000;
/** So long the page waits for the first values, to be laid out once and not twice. */
const FIRST_MS = 250;

const plant = new Plant();
const header = startHeader(plant);
const main = need("main");
/** @type {import("./routes.js").View | null} */
let view = null;
/** @type {import("./routes.js").Route | null} */
let route = null;

window.addEventListener("hashchange", () => show(true));
need("skip").addEventListener("click", (event) => {
  event.preventDefault(); // its address would be a route
  main.focus();
});
plant.on("phase", () => {
  title();
  if (plant.phase === "waiting") whyLost();
});
plant.on("plant", () => {
  if (!view) return;
  leave(); // its tags may be others now
  show(false);
});
start();

/** Listen at once, and read the tags, however long the twin takes to start. */
async function start() {
  fill(main, loadingNotice("Reading the plant …"));
  const url = new URL("live", document.baseURI.replace(/#.*/, ""));
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  plant.listen(url.href);
  for (;;) {
    try {
      await plant.load();
      break;
    } catch (error) {
      failed(error);
      await pause(Number.isFinite(/** @type {any} */ (error)?.retryS) ? /** @type {any} */ (error).retryS * 1000 : AGAIN_MS);
    }
  }
  plant.live?.now();
  if (match(location.hash)?.route.charts) await chartsReady();
  await Promise.race([plant.heard(), pause(FIRST_MS)]);
  show(false);
  await painted();
  plant.recent();
}

/** @param {any} error */
function failed(error) {
  if (error?.status === 401 || error?.status === 403) {
    plant.setPhase("login");
    fill(main, h("div", { class: "notice error" },
      h("strong", null, "Login needed"),
      h("p", null, "This twin shows itself only to those it knows. ", h("a", { href: "login" }, "Log in"))));
    return;
  }
  plant.setPhase(error?.status === 503 ? "starting" : "gone");
  if (error?.status === 503) {
    fill(main, h("div", { class: "notice" },
      h("strong", null, "The twin is starting"),
      h("p", null, "It folds what was received since its last checkpoint. This page goes on by itself.")));
  } else {
    fill(main, errorNotice(error, null), loadingNotice("Trying again by itself …"));
  }
}

/** After a lost connection: a login that ran out and a twin that starts say so by HTTP, not on a socket. */
async function whyLost() {
  try {
    await get("/tags", { limit: 1 });
  } catch (error) {
    const status = /** @type {any} */ (error)?.status;
    if (plant.phase === "live") return;
    if (status === 401 || status === 403) plant.setPhase("login", "", plant.retryAt);
    else if (status === 503) plant.setPhase("starting", "", plant.retryAt);
  }
}

/** @param {boolean} moved whether a person went there: then the focus goes along */
function show(moved) {
  if (!plant.loaded) return;
  const found = match(location.hash);
  if (!found) {
    leave();
    header.mark("");
    fill(main, h("h1", { tabindex: "-1" }, "No such page"), h("p", null, `Nothing is at ${location.hash}. `, h("a", { href: "#/" }, "To the overview")));
    return;
  }
  const context = { plant, params: found.params, query: found.query, go };
  if (view?.update && route === found.route && view.update(context)) return;
  leave();
  route = found.route;
  view = found.route.view(context);
  title();
  fill(main, view.element);
  header.mark(route.path);
  if (moved) window.scrollTo(0, 0);
  if (moved) /** @type {HTMLElement | null} */ (main.querySelector("h1"))?.focus({ preventScroll: true });
}

function title() {
  document.title = [view?.title, plant.name, "twinloop"].filter(Boolean).join(" · ");
}

function leave() {
  view?.close();
  view = null;
  route = null;
}

/**
 * @param {string} hash
 * @param {{replace?: boolean}} [options] `replace` changes the address alone
 */
function go(hash, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", hash);
  else location.hash = hash;
}

/** @param {number} ms */
function pause(ms) {
  return new Promise((resolve) => window.setTimeout(resolve, ms));
}
