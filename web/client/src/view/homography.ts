/**
 * What a turn of the camera does to a picture: a homography, because a pure rotation needs no depth.
 * Axes as OpenCV: x right, y down, z ahead. A view turned by yaw (right) and pitch (up) looks along
 * R = Ry(yaw) Rx(pitch), the server's own rig. Matrices are row-major, 9 numbers.
 */

export type Mat3 = readonly [number, number, number, number, number, number, number, number, number];

/** Focal lengths and principal point; in pixels, or in shares of the picture for `homography`. */
export type Intrinsics = readonly [fx: number, fy: number, cx: number, cy: number];

/** Degrees since the start, right and up. */
export interface View {
  readonly yaw: number;
  readonly pitch: number;
}

export const IDENTITY: Mat3 = [1, 0, 0, 0, 1, 0, 0, 0, 1];

export function multiply(a: Mat3, b: Mat3): Mat3 {
  const cell = (row: number, column: number): number => {
    let sum = 0;
    for (let k = 0; k < 3; k++) sum += (a[row * 3 + k] as number) * (b[k * 3 + column] as number);
    return sum;
  };
  return [cell(0, 0), cell(0, 1), cell(0, 2), cell(1, 0), cell(1, 1), cell(1, 2), cell(2, 0), cell(2, 1), cell(2, 2)];
}

export function transposed(m: Mat3): Mat3 {
  return [m[0], m[3], m[6], m[1], m[4], m[7], m[2], m[5], m[8]];
}

/** Camera axes in the world, of a view. */
export function rotation({ yaw, pitch }: View): Mat3 {
  const [cy, sy] = [Math.cos(radians(yaw)), Math.sin(radians(yaw))];
  const [cp, sp] = [Math.cos(radians(pitch)), Math.sin(radians(pitch))];
  return multiply([cy, 0, sy, 0, 1, 0, -sy, 0, cy], [1, 0, 0, 0, cp, -sp, 0, sp, cp]);
}

/** Where each point of the view `to` is in a picture taken at `from`, in the units of `k`. */
export function homography(k: Intrinsics, from: View, to: View, zoom = 1): Mat3 {
  const [fx, fy, cx, cy] = k;
  const camera: Mat3 = [fx, 0, cx, 0, fy, cy, 0, 0, 1];
  const [zx, zy] = [fx * zoom, fy * zoom];
  const rays: Mat3 = [1 / zx, 0, -cx / zx, 0, 1 / zy, -cy / zy, 0, 0, 1];
  const turn = multiply(transposed(rotation(from)), rotation(to));
  return multiply(camera, multiply(turn, rays));
}

/** Intrinsics in pixels as shares of a picture, so that points are texture coordinates. */
export function normalised([fx, fy, cx, cy]: Intrinsics, width: number, height: number): Intrinsics {
  return [fx / width, fy / height, cx / width, cy / height];
}

/** The affine map nearest to `h` at the picture's middle: what a canvas without WebGL can draw. */
export function affineAt(h: Mat3, x: number, y: number): readonly [number, number, number, number, number, number] {
  const w = h[6] * x + h[7] * y + h[8];
  const [u, v] = [(h[0] * x + h[1] * y + h[2]) / w, (h[3] * x + h[4] * y + h[5]) / w];
  const a = (h[0] - u * h[6]) / w;
  const c = (h[1] - u * h[7]) / w;
  const b = (h[3] - v * h[6]) / w;
  const d = (h[4] - v * h[7]) / w;
  return [a, b, c, d, u - a * x - c * y, v - b * x - d * y];
}

function radians(degrees: number): number {
  return (degrees * Math.PI) / 180;
}
