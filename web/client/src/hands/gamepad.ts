/** Gamepads in the standard layout: left stick and cross walk, right stick looks, left trigger slows. */

import type { Grip, Tuning } from "./devices.js";
import { STILL, throughDeadZone, together, type Motion } from "./motion.js";

const TRIGGER = 6;
const UP = 12;
const DOWN = 13;
const LEFT = 14;
const RIGHT = 15;

/** The part of the browser's `Gamepad` that is read. */
export interface PadLike {
  readonly id: string;
  readonly connected: boolean;
  readonly axes: readonly number[];
  readonly buttons: readonly { readonly pressed: boolean }[];
}

export interface GamepadOptions {
  readonly grip: Grip;
  readonly tuning: () => Tuning;
  /** `navigator.getGamepads`; browsers may refuse it on plain http. */
  read(): readonly (PadLike | null)[];
  connected(name: string | null): void;
}

/** Reads the pads when told to; browsers give no events for their sticks. */
export class Gamepads {
  readonly #options: GamepadOptions;
  #name: string | null = null;

  constructor(options: GamepadOptions) {
    this.#options = options;
  }

  poll(nowMs: number): void {
    const pad = this.#options.read().find((found) => found?.connected) ?? null;
    const { grip, tuning } = this.#options;
    const name = pad?.id ?? null;
    if (name !== this.#name) this.#options.connected(name);
    this.#name = name;
    grip.stick("gamepad", pad ? padMotion(pad, tuning()) : STILL, nowMs);
    grip.slow("gamepad", pad?.buttons[TRIGGER]?.pressed === true, nowMs);
  }

  stop(nowMs: number): void {
    this.#options.grip.stick("gamepad", STILL, nowMs);
    this.#options.grip.slow("gamepad", false, nowMs);
    this.#options.connected(null);
    this.#name = null;
  }
}

export function padMotion(pad: PadLike, tuning: Tuning): Motion {
  const axis = (i: number): number => {
    const value = pad.axes[i] ?? 0;
    return Number.isFinite(value) ? value : 0;
  };
  const held = (i: number): number => Number(pad.buttons[i]?.pressed === true);
  const walk = throughDeadZone(axis(0), axis(1), tuning.deadZone);
  const look = throughDeadZone(axis(2), axis(3), tuning.deadZone);
  const sticks = { x: walk.x, z: -walk.y, yaw: look.x, pitch: tuning.invertY ? look.y : -look.y };
  const cross = { ...STILL, x: held(RIGHT) - held(LEFT), z: held(UP) - held(DOWN) };
  return together(sticks, cross);
}
