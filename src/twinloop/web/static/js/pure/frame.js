/**
 * The live socket's binary frames, decoded without copying a column.
 *
 * Little-endian: u32 magic, u32 n, f64 now_ms; then columns of n each: f64 time_ms, arrival_ms, value, estimate;
 * f32 std; u32 index, status, reasons. Every column begins at a multiple of its width, so each is a view.
 */

/**
 * @typedef {object} Frame
 * @property {number} now server's clock when the frame was made, ms since the epoch
 * @property {number} n rows
 * @property {Float64Array} time ms at which the value was true
 * @property {Float64Array} arrival ms by the server's clock
 * @property {Float64Array} value in the tag's unit; NaN where there is none
 * @property {Float64Array} estimate NaN where not known
 * @property {Float32Array} std
 * @property {Uint32Array} index of the tag
 * @property {Uint32Array} status OPC UA code
 * @property {Uint32Array} reasons bit set
 */

/** "TWL1" read as a little-endian number. */
export const MAGIC = 0x314c5754;
const HEAD = 16;
const ROW = 48;

/**
 * The rows of a frame, as views over its own memory.
 *
 * @param {ArrayBuffer} buffer
 * @returns {Frame}
 * @throws {RangeError} where the bytes are no frame
 */
export function decodeFrame(buffer) {
  if (buffer.byteLength < HEAD) throw new RangeError(`a frame has a head of ${HEAD} bytes, not ${buffer.byteLength}`);
  const head = new DataView(buffer);
  if (head.getUint32(0, true) !== MAGIC) throw new RangeError("not a frame of twinloop");
  const n = head.getUint32(4, true);
  if (buffer.byteLength !== HEAD + n * ROW) {
    throw new RangeError(`a frame of ${n} rows has ${HEAD + n * ROW} bytes, not ${buffer.byteLength}`);
  }
  let at = HEAD;
  /** @param {any} Kind */
  const column = (Kind) => {
    const view = new Kind(buffer, at, n);
    at += view.byteLength;
    return view;
  };
  return {
    now: head.getFloat64(8, true),
    n,
    time: column(Float64Array),
    arrival: column(Float64Array),
    value: column(Float64Array),
    estimate: column(Float64Array),
    std: column(Float32Array),
    index: column(Uint32Array),
    status: column(Uint32Array),
    reasons: column(Uint32Array),
  };
}
