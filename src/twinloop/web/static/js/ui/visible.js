/** Which elements can be seen: only those are drawn. */

const PAINTED_MS = 500;

/** Watches elements come into sight and leave it. */
export class Sight {
  /** @param {(element: Element, seen: boolean) => void} [change] */
  constructor(change = () => {}) {
    /** @type {Set<Element>} */
    this.seen = new Set();
    this.observer = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          if (isIntersecting) this.seen.add(target);
          else this.seen.delete(target);
          change(target, isIntersecting);
        }
      },
      { rootMargin: "160px 0px" },
    );
  }

  /**
   * @param {Element} element
   * @param {boolean} [assumed] whether it is taken for seen until it is known
   */
  add(element, assumed = false) {
    if (assumed) this.seen.add(element);
    this.observer.observe(element);
  }

  /** @param {Element} element */
  remove(element) {
    this.observer.unobserve(element);
    this.seen.delete(element);
  }

  close() {
    this.observer.disconnect();
    this.seen.clear();
  }
}

/**
 * Ask for a drawing: however often, it happens once, in the next animation frame.
 *
 * @param {() => void} draw
 */
export function onFrame(draw) {
  let asked = 0;
  const ask = () => {
    if (!asked) {
      asked = requestAnimationFrame(() => {
        asked = 0;
        draw();
      });
    }
  };
  ask.cancel = () => {
    cancelAnimationFrame(asked);
    asked = 0;
  };
  return ask;
}

/** Resolves once what is there now has been painted, or would have been long ago: a page in the background paints nothing. */
export function painted() {
  return new Promise((done) => {
    requestAnimationFrame(() => window.setTimeout(done));
    window.setTimeout(done, PAINTED_MS);
  });
}

/**
 * A canvas with as many pixels as the screen has there; its context counts in CSS pixels.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {number} width CSS pixels
 * @param {number} height CSS pixels
 * @returns {CanvasRenderingContext2D}
 */
export function sharp(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const w = Math.round(width * ratio);
  const ht = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== ht) {
    canvas.width = w;
    canvas.height = ht;
  }
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/**
 * A function that runs at most once in so many ms, the last call never lost.
 *
 * @param {() => void} run
 * @param {number} ms
 */
export function throttled(run, ms) {
  let last = -Infinity;
  /** @type {number | undefined} */
  let timer;
  return () => {
    const now = performance.now();
    if (now - last >= ms) {
      last = now;
      run();
    } else if (timer === undefined) {
      timer = window.setTimeout(() => {
        timer = undefined;
        last = performance.now();
        run();
      }, ms - (now - last));
    }
  };
}
