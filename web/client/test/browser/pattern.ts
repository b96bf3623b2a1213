/** A picture that both sides can compute: smooth, without symmetry, different in every colour. */

export const WIDTH = 208;
export const HEIGHT = 120;

export function pattern(phase = 0): Uint8ClampedArray<ArrayBuffer> {
  const data = new Uint8ClampedArray(WIDTH * HEIGHT * 4);
  for (let y = 0; y < HEIGHT; y++) {
    for (let x = 0; x < WIDTH; x++) {
      const at = (y * WIDTH + x) * 4;
      data[at] = 128 + 110 * Math.sin(x / 17 + y / 41 + phase);
      data[at + 1] = 128 + 110 * Math.sin(x / 29 - y / 13 + 1 + phase);
      data[at + 2] = 128 + 110 * Math.cos(x / 11 + y / 23 + 2 + phase);
      data[at + 3] = 255;
    }
  }
  return data;
}
