/** NumPy's `.npy` files, as far as camera paths need them: floats of 4 or 8 bytes, either byte order. */

import { WorldError } from "../errors.js";

export interface NumberArray {
  readonly shape: readonly number[];
  /** In C order: the last index runs fastest. */
  readonly data: Float64Array;
}

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // \x93NUMPY
const MAX_VALUES = 1 << 22;

/** Raises `WorldError` (`bad_file`) for anything that is no such array. */
export function readNpy(bytes: Uint8Array): NumberArray {
  if (bytes.length < 12 || MAGIC.some((byte, i) => bytes[i] !== byte)) throw bad("this is no .npy file");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const wide = (bytes[6] as number) >= 2; // versions 2 and 3 have a longer length
  const begin = wide ? 12 : 10;
  const end = begin + (wide ? view.getUint32(8, true) : view.getUint16(8, true));
  if (end > bytes.length) throw bad("the .npy header is cut short");
  const header = parseHeader(new TextDecoder().decode(bytes.subarray(begin, end)));
  const count = header.shape.reduce((product, size) => product * size, 1);
  if (count > MAX_VALUES) throw bad("the array is too large", `at most ${MAX_VALUES} numbers`, String(count));
  if (bytes.length - end < count * header.size) throw bad("the .npy file is cut short");
  const data = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const at = end + i * header.size;
    const to = header.fortran ? transposedIndex(i, header.shape) : i;
    data[to] = header.size === 4 ? view.getFloat32(at, header.little) : view.getFloat64(at, header.little);
  }
  return { shape: header.shape, data };
}

/** As 32-bit floats, version 1.0. */
export function writeNpy({ shape, data }: NumberArray): Uint8Array<ArrayBuffer> {
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;
  const words = `{'descr': '<f4', 'fortran_order': False, 'shape': ${tuple}, }`;
  const length = Math.ceil((10 + words.length + 1) / 64) * 64 - 10;
  const bytes = new Uint8Array(10 + length + data.length * 4);
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  bytes[6] = 1;
  view.setUint16(8, length, true);
  bytes.set(new TextEncoder().encode(words.padEnd(length - 1) + "\n"), 10);
  data.forEach((value, i) => view.setFloat32(10 + length + i * 4, value, true));
  return bytes;
}

interface Header {
  readonly size: 4 | 8;
  readonly little: boolean;
  readonly fortran: boolean;
  readonly shape: readonly number[];
}

function parseHeader(text: string): Header {
  const kind = /'descr'\s*:\s*'([<>=|]?)f([48])'/.exec(text);
  const order = /'fortran_order'\s*:\s*(True|False)/.exec(text);
  const shape = /'shape'\s*:\s*\(([\d,\s]*)\)/.exec(text);
  if (!kind) {
    const got = /'descr'[^,]*/.exec(text)?.[0] ?? "none";
    throw bad("the array's type cannot be read", "float32 or float64", got);
  }
  if (!order || !shape) throw bad("the .npy header cannot be read");
  const sizes = (shape[1] as string).split(",").map((part) => part.trim()).filter((part) => part !== "");
  return {
    size: kind[2] === "4" ? 4 : 8,
    little: kind[1] !== ">",
    fortran: order[1] === "True",
    shape: sizes.map(Number),
  };
}

/** Where the i-th value of Fortran order (first index fastest) belongs in C order. */
function transposedIndex(i: number, shape: readonly number[]): number {
  let rest = i;
  let index = 0;
  let stride = shape.reduce((product, size) => product * size, 1);
  for (const size of shape) {
    stride /= size;
    index += (rest % size) * stride;
    rest = Math.floor(rest / size);
  }
  return index;
}

function bad(message: string, expected?: string, got?: string): WorldError {
  return new WorldError("bad_file", message, { expected, got });
}
