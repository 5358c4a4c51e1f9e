/** A map of tags by time on one canvas: only the rows in sight are drawn, a key or the pointer chooses a cell. */

import { palette, prefs } from "../prefs.js";
import { cellQuality, strength } from "../pure/scales.js";
import { axisLabels } from "../pure/time.js";
import { h } from "./dom.js";
import { onFrame, sharp } from "./visible.js";

/** @typedef {import("../pure/quality.js").Row} Row */

const ROW_PX = 18;
const HEAD_PX = 22;

/**
 * @typedef {object} HeatActs
 * @property {(row: Row, time: number, byKey: boolean) => void} chosen the pointer or a key stands on a cell
 * @property {(row: Row, time: number) => void} opened
 */

/** The map. */
export class Heatmap {
  /** @param {HeatActs} acts */
  constructor(acts) {
    this.acts = acts;
    /** @type {Row[]} */
    this.rows = [];
    this.from = 0;
    this.width = 60_000;
    this.columns = 60;
    /** @type {{row: number, column: number} | null} */
    this.at = null;
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.spacer = h("div", { class: "spacer" });
    this.element = h("div", { class: "heat", tabindex: "0", role: "group", "aria-roledescription": "quality map", "aria-label": "Tags by time; arrow keys choose a cell, Enter opens its trend" }, this.canvas, this.spacer);
    this.draw = onFrame(() => this.#draw());
    this.element.addEventListener("scroll", () => this.draw(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.element.addEventListener("pointermove", (event) => this.#point(event));
    this.element.addEventListener("click", (event) => this.#click(event));
    this.resizing = new ResizeObserver(() => this.draw());
    this.resizing.observe(this.element);
  }

  /**
   * @param {Row[]} rows
   * @param {number} from start of the first column, ms
   * @param {number} width of a column, ms
   * @param {number} columns
   */
  set(rows, from, width, columns) {
    const chosen = this.at ? this.rows[this.at.row]?.tag : null;
    this.rows = rows;
    this.from = from;
    this.width = width;
    this.columns = columns;
    if (this.at) {
      const row = rows.findIndex(({ tag }) => tag === chosen);
      this.at = row < 0 ? null : { row, column: Math.min(this.at.column, columns - 1) };
    }
    const whole = rows.length * ROW_PX + HEAD_PX + 4;
    const height = Math.min(whole, Math.max(240, window.innerHeight * 0.62));
    this.element.style.height = `${height}px`;
    // The canvas stays in sight; the rest of the height is only there to be scrolled.
    this.spacer.style.height = `${whole - height}px`;
    this.draw();
  }

  /** Whether there is only room for few columns. */
  get isNarrow() {
    return this.element.clientWidth < 560;
  }

  get #labels() {
    return this.isNarrow ? 152 : 190;
  }

  #draw() {
    const width = this.element.clientWidth;
    const height = this.element.clientHeight;
    if (!width || !height) return;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    const context = sharp(this.canvas, width, height);
    const size = (width - this.#labels - 6) / this.columns;
    const first = Math.floor(this.element.scrollTop / ROW_PX);
    const shift = HEAD_PX - (this.element.scrollTop % ROW_PX);
    context.font = `${this.isNarrow ? 11 : 12}px system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif`;
    context.textBaseline = "middle";
    for (let k = 0; k * ROW_PX < height; k += 1) {
      const row = this.rows[first + k];
      if (row) this.#row(context, row, shift + k * ROW_PX, size, this.at?.row === first + k);
    }
    this.#head(context, width, size);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Row} row
   * @param {number} y
   * @param {number} size
   * @param {boolean} isChosen
   */
  #row(context, row, y, size, isChosen) {
    const colours = palette();
    const labels = this.#labels;
    context.fillStyle = isChosen ? colours.text : colours.muted;
    context.fillText(fitted(context, row.tag, labels - 8), 2, y + ROW_PX / 2);
    for (let column = 0; column < this.columns; column += 1) {
      const cell = cellQuality(row.cells.get(this.from + column * this.width));
      const x = labels + column * size;
      if (cell.kind !== "none") paint(context, x, y, size, cell);
      else {
        context.fillStyle = colours.line;
        context.fillRect(x + size / 2 - 0.75, y + ROW_PX / 2 - 0.75, 1.5, 1.5);
      }
      if (isChosen && this.at?.column === column) {
        context.strokeStyle = colours.text;
        context.lineWidth = 2;
        context.strokeRect(x - 0.5, y, size, ROW_PX - 1);
      }
    }
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} width
   * @param {number} size
   */
  #head(context, width, size) {
    const colours = palette();
    context.fillStyle = colours.surface;
    context.fillRect(0, 0, width, HEAD_PX);
    context.fillStyle = colours.muted;
    const each = Math.ceil(64 / size);
    const times = [];
    for (let column = 0; column < this.columns; column += each) times.push(this.from + column * this.width);
    const labels = axisLabels(times, Math.max(60_000, each * this.width), prefs.utc);
    times.forEach((_, k) => {
      const x = this.#labels + k * each * size;
      const text = labels[k].replace("\n", " ");
      if (x + context.measureText(text).width < width) context.fillText(text, x, HEAD_PX / 2);
    });
  }

  /**
   * @param {MouseEvent} event
   * @returns {{row: number, column: number} | null}
   */
  #under(event) {
    const box = this.element.getBoundingClientRect();
    const size = (this.element.clientWidth - this.#labels - 6) / this.columns;
    const row = Math.floor((event.clientY - box.top - this.element.clientTop - HEAD_PX + this.element.scrollTop) / ROW_PX);
    const column = Math.floor((event.clientX - box.left - this.element.clientLeft - this.#labels) / size);
    if (event.clientY - box.top < HEAD_PX || row < 0 || row >= this.rows.length) return null;
    return { row, column: Math.min(this.columns - 1, Math.max(0, column)) };
  }

  /** @param {PointerEvent} event */
  #point(event) {
    const under = this.#under(event);
    if (under && (under.row !== this.at?.row || under.column !== this.at.column)) this.#choose(under.row, under.column, false);
  }

  /** @param {MouseEvent} event */
  #click(event) {
    const under = this.#under(event);
    if (!under) return;
    this.#choose(under.row, under.column, false);
    this.#open();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const at = this.at ?? { row: 0, column: this.columns };
    const page = Math.max(1, Math.floor((this.element.clientHeight - HEAD_PX) / ROW_PX) - 1);
    /** @type {Record<string, [number, number]>} */
    const moves = {
      ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
      PageUp: [-page, 0], PageDown: [page, 0], Home: [0, -Infinity], End: [0, Infinity],
    };
    if (event.key === "Enter") this.#open();
    else if (moves[event.key] && this.rows.length) {
      const [down, right] = moves[event.key];
      const row = this.at ? at.row + down : 0;
      this.#choose(clamp(row, this.rows.length - 1), clamp(at.column + right, this.columns - 1), true);
      this.#reveal();
    } else return;
    event.preventDefault();
  }

  /** @param {number} row @param {number} column @param {boolean} byKey */
  #choose(row, column, byKey) {
    this.at = { row, column };
    this.acts.chosen(this.rows[row], this.from + column * this.width, byKey);
    this.draw();
  }

  #reveal() {
    if (!this.at) return;
    const top = this.at.row * ROW_PX;
    const room = this.element.clientHeight - HEAD_PX;
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top + ROW_PX > this.element.scrollTop + room) this.element.scrollTop = top + ROW_PX - room;
  }

  #open() {
    if (this.at && this.rows[this.at.row]) this.acts.opened(this.rows[this.at.row], this.from + this.at.column * this.width);
  }

  close() {
    this.resizing.disconnect();
    this.draw.cancel();
  }
}

/**
 * A cell: grey is well; doubt is orange with a slant, trouble vermilion with a bar, so that neither needs its colour.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {number} x
 * @param {number} y
 * @param {number} size
 * @param {{kind: string, share: number}} cell
 */
function paint(context, x, y, size, cell) {
  const colours = palette();
  const w = Math.max(1, size - 1);
  const hgt = ROW_PX - 3;
  context.fillStyle = cell.kind === "good" ? colours.line : colours.surface;
  context.fillRect(x, y + 1, w, hgt);
  if (cell.kind === "good") return;
  const bad = cell.kind === "bad";
  context.globalAlpha = strength(cell.share);
  context.fillStyle = bad ? colours.bad : colours.uncertain;
  context.fillRect(x, y + 1, w, hgt);
  context.globalAlpha = 1;
  if (w < 5) return;
  context.strokeStyle = colours.surface;
  context.lineWidth = 1.4;
  context.beginPath();
  if (bad) {
    context.moveTo(x + w * 0.25, y + 1 + hgt / 2);
    context.lineTo(x + w * 0.75, y + 1 + hgt / 2);
    context.moveTo(x + w / 2, y + 1 + hgt * 0.28);
    context.lineTo(x + w / 2, y + 1 + hgt * 0.72);
  } else {
    context.moveTo(x + w * 0.25, y + 1 + hgt * 0.8);
    context.lineTo(x + w * 0.75, y + 1 + hgt * 0.2);
  }
  context.stroke();
}

/** @param {number} value @param {number} most */
function clamp(value, most) {
  return Math.max(0, Math.min(most, value));
}

/** @param {CanvasRenderingContext2D} context @param {string} text @param {number} room */
function fitted(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let keep = text.length - 1;
  while (keep > 3 && context.measureText(`…${text.slice(-keep)}`).width > room) keep -= 1;
  return `…${text.slice(-keep)}`;
}
