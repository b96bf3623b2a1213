/** One control vector for every device: shares of full speed, in [-1, 1]. */

import type { Action } from "../protocol.js";

/** `x` right, `z` ahead, `yaw` right, `pitch` up. */
export interface Motion {
  readonly x: number;
  readonly z: number;
  readonly yaw: number;
  readonly pitch: number;
}

export const STILL: Motion = { x: 0, z: 0, yaw: 0, pitch: 0 };

/** What held actions ask for. Opposite ones cancel; a diagonal is as fast as a straight line. */
export function fromActions(held: readonly Action[]): Motion {
  const axis = (plus: Action, minus: Action): number =>
    Number(held.includes(plus)) - Number(held.includes(minus));
  return limited({ x: axis("d", "a"), z: axis("w", "s"), yaw: axis("l", "j"), pitch: axis("i", "k") });
}

/** The sum of several devices, each part within full speed. */
export function together(...motions: readonly Motion[]): Motion {
  const sum = (name: keyof Motion): number => motions.reduce((total, motion) => total + motion[name], 0);
  return limited({ x: sum("x"), z: sum("z"), yaw: sum("yaw"), pitch: sum("pitch") });
}

export function scaled(motion: Motion, share: number): Motion {
  const { x, z, yaw, pitch } = motion;
  return { x: x * share, z: z * share, yaw: yaw * share, pitch: pitch * share };
}

export function isStill(motion: Motion): boolean {
  return motion.x === 0 && motion.z === 0 && motion.yaw === 0 && motion.pitch === 0;
}

export function sameMotion(a: Motion, b: Motion): boolean {
  return a.x === b.x && a.z === b.z && a.yaw === b.yaw && a.pitch === b.pitch;
}

/** Steps of one percent: a trembling thumb makes no messages, and rest is exactly 0. */
export function rounded(motion: Motion): Motion {
  const step = (value: number): number => Math.round(value * 100) / 100 + 0;
  return { x: step(motion.x), z: step(motion.z), yaw: step(motion.yaw), pitch: step(motion.pitch) };
}

/** A stick's reading with its dead zone taken out, so that it starts at 0 and ends at 1. */
export function throughDeadZone(x: number, y: number, zone: number): { x: number; y: number } {
  const length = Math.hypot(x, y);
  if (!(length > zone)) return { x: 0, y: 0 };
  const share = Math.min(1, (length - zone) / (1 - zone)) / length;
  return { x: x * share, y: y * share };
}

function limited(motion: Motion): Motion {
  const long = Math.max(1, Math.hypot(motion.x, motion.z));
  const clamp = (value: number): number => Math.min(1, Math.max(-1, value)) + 0;
  return {
    x: motion.x / long + 0,
    z: motion.z / long + 0,
    yaw: clamp(motion.yaw),
    pitch: clamp(motion.pitch),
  };
}
