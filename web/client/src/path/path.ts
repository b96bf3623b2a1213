/** Camera paths: read from `poses.npy`, recorded by walking, written again, and sent to the server. */

import { WorldError } from "../errors.js";
import { readNpy, writeNpy } from "./npy.js";

/** Camera-to-world, the upper three rows of the matrix, row by row (12 numbers). */
export type Pose = readonly number[];

export interface Path {
  readonly poses: readonly Pose[];
  /** Poses per second of video. */
  readonly rate: number;
}

/** The wire takes no more poses in one message. */
export const MAX_POSES = 4096;
const DEFAULT_RATE = 16; // the rate of the paths that were published with the models
const TOLERANCE = 1e-2; // of a rotation, as on the server

/** Reads `[N, 4, 4]` or `[N, 3, 4]` poses. Raises `WorldError` (`bad_file`). */
export function readPath(bytes: Uint8Array, rate: number = DEFAULT_RATE): Path {
  const { shape, data } = readNpy(bytes);
  const [count, rows, columns] = shape;
  const fits = shape.length === 3 && columns === 4 && (rows === 3 || rows === 4);
  if (!fits || count === undefined || count < 2) {
    throw new WorldError("bad_file", "this is no camera path", {
      expected: "[N, 4, 4] or [N, 3, 4], at least 2 poses",
      got: `[${shape.join(", ")}]`,
    });
  }
  const size = rows === 3 ? 12 : 16;
  const poses = Array.from({ length: count }, (_, i) => [...data.subarray(i * size, i * size + 12)]);
  for (const pose of poses) check(pose);
  return { poses, rate };
}

/** The path as `poses.npy`, `[N, 4, 4]`, float32. */
export function writePath(path: Path): Uint8Array<ArrayBuffer> {
  const data = new Float64Array(path.poses.length * 16);
  path.poses.forEach((pose, i) => data.set([...pose, 0, 0, 0, 1], i * 16));
  return writeNpy({ shape: [path.poses.length, 4, 4], data });
}

/** At most as many poses as the wire takes; a longer path is thinned evenly, its ends kept. */
export function fitting(path: Path): Path {
  const { length } = path.poses;
  if (length <= MAX_POSES) return path;
  const at = (i: number): Pose => path.poses[Math.round((i * (length - 1)) / (MAX_POSES - 1))] as Pose;
  const poses = Array.from({ length: MAX_POSES }, (_, i) => at(i));
  return { poses, rate: (path.rate * (MAX_POSES - 1)) / (length - 1) };
}

function check(pose: readonly number[]): void {
  if (!pose.every((value) => Number.isFinite(value))) throw new WorldError("bad_file", "a pose holds no numbers");
  const column = (i: number): number[] => [pose[i] as number, pose[4 + i] as number, pose[8 + i] as number];
  const axes = [column(0), column(1), column(2)];
  const dot = (a: number[], b: number[]): number => a.reduce((sum, value, i) => sum + value * (b[i] as number), 0);
  const off = axes.some((a, i) => axes.some((b, j) => Math.abs(dot(a, b) - Number(i === j)) > TOLERANCE));
  if (off) throw new WorldError("bad_file", "a pose holds no rotation", { expected: "orthonormal axes" });
}
