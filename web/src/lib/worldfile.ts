/** World files (`.wl`) that a visitor brings. What is in one is the server's to judge. */

const MAX_BYTES = 32 * 2 ** 20; // no server reads more
const MAGIC = [0x89, 0x57, 0x4f, 0x52, 0x4c, 0x44, 0x0d, 0x0a]; // \x89WORLD\r\n

/** True for what calls itself a world or begins as one. */
export async function isWorld(file: File): Promise<boolean> {
  if (/\.wl$/i.test(file.name)) return true;
  try {
    const head = new Uint8Array(await file.slice(0, MAGIC.length).arrayBuffer());
    return MAGIC.every((byte, i) => head[i] === byte);
  } catch {
    return false; // a folder, or a file that is gone
  }
}

/** Its bytes; throws what to tell the visitor. */
export async function readWorld(file: File): Promise<Uint8Array> {
  if (file.size > MAX_BYTES) throw new Error("This file is too large for a world.");
  try {
    return new Uint8Array(await file.arrayBuffer());
  } catch {
    throw new Error("This file cannot be read.");
  }
}

/** `12 kB`, for people. */
export function sizeWords(bytes: number): string {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 999_500 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
