/** Making elements: small, typed enough, and without any HTML from strings. */

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * An element. `on` holds listeners, `data` data attributes, `style` CSS properties set by script (the page's policy allows no style
 * attributes); true and false set and leave out an attribute.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name
 * @param {Record<string, any> | null} [props]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(name, props, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") for (const [kind, listener] of Object.entries(value)) element.addEventListener(kind, listener);
    else if (key === "data") Object.assign(element.dataset, value);
    else if (key === "style") for (const [property, text] of Object.entries(value)) element.style.setProperty(property, String(text));
    else element.setAttribute(key === "className" ? "class" : key, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

/**
 * @param {Element} element
 * @param {(Child | Child[])[]} children
 */
export function append(element, children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/**
 * Put other children into an element.
 *
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/**
 * Put other children into an element while somebody's focus may be in it: it stays on the same node, or goes to the new
 * one with the same address or name.
 *
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function refill(element, ...children) {
  const focused = document.activeElement;
  const inside = focused instanceof HTMLElement && element.contains(focused) ? focused : null;
  fill(element, ...children);
  if (!inside) return;
  const same = [...element.querySelectorAll("a, button, [tabindex]")].find((each) => each === inside || nameOf(each) === nameOf(inside));
  if (same instanceof HTMLElement) same.focus({ preventScroll: true });
}

/** @param {Element} element */
function nameOf(element) {
  return `${element.tagName} ${element.getAttribute("href") ?? element.getAttribute("aria-label") ?? element.textContent}`;
}

/**
 * Set a text only where it differs: the browser then has nothing to lay out.
 *
 * @param {Node} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Set an attribute only where it differs.
 *
 * @param {Element} element
 * @param {string} name
 * @param {string} value
 */
export function setAttr(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * A table with a caption for those who cannot see what it belongs to. Cells are children; numeric columns stand right.
 *
 * @param {string} caption
 * @param {{label: string, numeric?: boolean}[]} columns
 * @param {Child[][]} rows the first cell of each is its header
 * @param {{className?: string, hideCaption?: boolean}} [options]
 */
export function table(caption, columns, rows, { className = "", hideCaption = true } = {}) {
  const head = columns.map(({ label, numeric }) => h("th", { scope: "col", class: numeric ? "numeric" : null }, label));
  const body = rows.map((cells) =>
    h("tr", null, cells.map((cell, at) => {
      const props = { class: columns[at].numeric ? "numeric" : null, "data-label": columns[at].label };
      return at === 0 ? h("th", { ...props, scope: "row" }, cell) : h("td", props, cell);
    })),
  );
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { class: className },
      h("caption", { class: hideCaption ? "hidden" : null }, caption),
      h("thead", null, h("tr", null, head)),
      h("tbody", null, body)));
}

/** An element of index.html. @param {string} id @returns {HTMLElement} */
export function need(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no #${id}`);
  return found;
}
