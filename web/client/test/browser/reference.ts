/** The shader's work on the processor, in doubles: the oracle of the pixel comparison. */

import type { Mat3 } from "../../src/view/homography.js";

/** A point through a homography; null when it lies behind the camera. */
export function project(h: Mat3, x: number, y: number): readonly [number, number] | null {
  const w = h[6] * x + h[7] * y + h[8];
  if (w <= 1e-9) return null;
  return [(h[0] * x + h[1] * y + h[2]) / w, (h[3] * x + h[4] * y + h[5]) / w];
}

/** Mitchell-Netravali, B = C = 1/3. */
function mitchell(t: number): number {
  const x = Math.abs(t);
  if (x < 1) return (7 * x ** 3 - 12 * x ** 2 + 16 / 3) / 6;
  return x < 2 ? ((-7 / 3) * x ** 3 + 12 * x ** 2 - 20 * x + 32 / 3) / 6 : 0;
}

/** RGBA of `picture` (`width` x `height`) seen through `turn`, in shares of the picture. */
export function drawn(picture: Uint8ClampedArray, size: { width: number; height: number }, turn: Mat3): Uint8ClampedArray {
  const { width, height } = size;
  const out = new Uint8ClampedArray(picture.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const point = project(turn, (x + 0.5) / width, (y + 0.5) / height) ?? [0, 0];
      sample(picture, size, [point[0] * width - 0.5, point[1] * height - 0.5]).forEach((value, i) => {
        out[(y * width + x) * 4 + i] = value;
      });
      out[(y * width + x) * 4 + 3] = 255;
    }
  }
  return out;
}

function sample(picture: Uint8ClampedArray, size: { width: number; height: number }, [x, y]: [number, number]): number[] {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const sum = [0, 0, 0];
  for (let j = -1; j <= 2; j++) {
    for (let i = -1; i <= 2; i++) {
      const weight = mitchell(x - left - i) * mitchell(y - top - j);
      const column = mirrored(left + i, size.width);
      const row = mirrored(top + j, size.height);
      for (let c = 0; c < 3; c++) {
        sum[c] = (sum[c] as number) + weight * (picture[(row * size.width + column) * 4 + c] as number);
      }
    }
  }
  return sum;
}

/** Beyond its edges the picture goes on as in a mirror. */
function mirrored(at: number, size: number): number {
  const within = ((at % (2 * size)) + 2 * size) % (2 * size);
  return within < size ? within : 2 * size - 1 - within;
}

export interface Difference {
  readonly max: number;
  readonly mean: number;
}

/** Over all colours of the pixels that `keep` wants. */
export function difference(a: ArrayLike<number>, b: ArrayLike<number>, keep: (pixel: number) => boolean = () => true): Difference {
  let max = 0;
  let sum = 0;
  let count = 0;
  for (let i = 0; i < a.length; i++) {
    if (i % 4 === 3 || !keep(i >> 2)) continue;
    const off = Math.abs((a[i] as number) - (b[i] as number));
    max = Math.max(max, off);
    sum += off;
    count++;
  }
  return { max, mean: sum / count };
}
