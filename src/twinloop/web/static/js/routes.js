/**
 * The pages there are. A new one (a what-if page, say) is a file in views/ and a line here; `nav` is its place in the
 * menu, `link` where that leads.
 */

import { assetView } from "./views/asset.js";
import { overviewView } from "./views/overview.js";
import { pipelineView } from "./views/pipeline.js";
import { qualityView } from "./views/quality.js";

/** @typedef {import("./plant.js").Plant} Plant */

/**
 * @typedef {object} Context what a view is given
 * @property {Plant} plant
 * @property {Record<string, string>} params of the path
 * @property {URLSearchParams} query
 * @property {(hash: string, options?: {replace?: boolean}) => void} go
 */

/**
 * @typedef {object} View
 * @property {HTMLElement} element
 * @property {string} title
 * @property {() => void} close
 * @property {(context: Context) => boolean} [update] the same page with other parameters; false where it has to be made anew
 */

/**
 * @typedef {object} Route
 * @property {string} path parts that begin with `:` are parameters
 * @property {string} nav
 * @property {(plant: Plant) => string} link
 * @property {boolean} [charts] it cannot be shown before charts can be drawn
 * @property {(context: Context) => View} view
 */

/** The asset looked at last, for the menu. */
let lastAsset = "";

/** @type {Route[]} */
export const ROUTES = [
  { path: "/", nav: "Overview", link: () => "#/", view: overviewView },
  {
    path: "/asset/:asset",
    charts: true,
    nav: "Asset",
    link: (plant) => `#/asset/${encodeURIComponent(plant.assets.has(lastAsset) ? lastAsset : (plant.assets.keys().next().value ?? ""))}`,
    view: (context) => {
      lastAsset = context.params.asset;
      return assetView(context);
    },
  },
  { path: "/quality", nav: "Data quality", link: () => "#/quality", view: qualityView },
  { path: "/pipeline", nav: "Pipeline", link: () => "#/pipeline", view: pipelineView },
];

/**
 * The route a hash leads to, its parameters and its query.
 *
 * @param {string} hash
 * @returns {{route: Route, params: Record<string, string>, query: URLSearchParams} | null}
 */
export function match(hash) {
  const [path, query = ""] = (hash.replace(/^#/, "") || "/").split("?");
  const parts = path.split("/");
  for (const route of ROUTES) {
    const wanted = route.path.split("/");
    if (wanted.length !== parts.length) continue;
    /** @type {Record<string, string>} */
    const params = {};
    const fits = wanted.every((part, at) => {
      if (!part.startsWith(":")) return part === parts[at];
      params[part.slice(1)] = decodeURIComponent(parts[at]);
      return parts[at] !== "";
    });
    if (fits) return { route, params, query: new URLSearchParams(query) };
  }
  return null;
}
