/** Bytes of dead letters: text where they are one, else hexadecimal. */

/**
 * The bytes of a `raw` cell: text, or `base64:` and their encoding.
 *
 * @param {string} raw
 * @returns {{bytes: Uint8Array, isText: boolean}}
 */
export function rawBytes(raw) {
  if (!raw.startsWith("base64:")) return { bytes: new TextEncoder().encode(raw), isText: true };
  const text = atob(raw.slice("base64:".length));
  return { bytes: Uint8Array.from(text, (char) => char.charCodeAt(0)), isText: false };
}

/**
 * A hex dump: offset, sixteen bytes, the characters that can be shown.
 *
 * @param {Uint8Array} bytes
 * @param {number} [most] bytes shown
 */
export function hexDump(bytes, most = 512) {
  const lines = [];
  for (let at = 0; at < Math.min(bytes.length, most); at += 16) {
    const row = bytes.subarray(at, Math.min(at + 16, bytes.length, most));
    const hex = [...row].map((byte) => byte.toString(16).padStart(2, "0"));
    const chars = [...row].map((byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "."));
    const left = hex.slice(0, 8).join(" ").padEnd(23);
    lines.push(`${at.toString(16).padStart(4, "0")}  ${left}  ${hex.slice(8).join(" ").padEnd(23)}  ${chars.join("")}`);
  }
  if (bytes.length > most) lines.push(`and ${bytes.length - most} more bytes`);
  return lines.join("\n");
}
