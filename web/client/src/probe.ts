/** What a measuring browser reads: plain values and functions, no DOM types, nothing global. */

import type { ClockState } from "./clock.js";
import type { Figures } from "./figures.js";
import type { InputRecord } from "./ledger.js";
import type { Action } from "./protocol.js";
import type { Painted } from "./screen.js";
import type { Phase } from "./session.js";
import type { World } from "./world.js";

const KEPT = 512;

/** A page may put this on `window.__worldline` when its URL asks for it. Times are local ms. */
export interface Probe {
  readonly version: 1;
  readonly world: World;
  phase(): Phase;
  clock(): ClockState | null;
  now(): number;
  figures(): Figures;
  /** The newest frames painted, oldest first. */
  frames(): readonly Painted[];
  /** The newest inputs and what became of them, oldest first. */
  inputs(): readonly InputRecord[];
  press(action: Action): void;
  lift(action: Action): void;
  turn(yaw: number, pitch: number): void;
  /** What is on the canvas, as RGBA rows; null before the first frame. */
  pixels(): { width: number; height: number; data: number[] } | null;
}

export class PaintedLog {
  #frames: Painted[] = [];

  add(painted: Painted): void {
    this.#frames.push(painted);
    if (this.#frames.length > 2 * KEPT) this.#frames.splice(0, KEPT);
  }

  get newest(): readonly Painted[] {
    return this.#frames.slice(-KEPT);
  }
}

export interface ProbeSources {
  readonly world: World;
  readonly painted: PaintedLog;
  inputs(): readonly InputRecord[];
  clock(): ClockState | null;
  now(): number;
  /** Draws the canvas anew: a WebGL canvas can be read only in the task that drew it. */
  redraw(): HTMLCanvasElement | null;
}

export function probe(from: ProbeSources): Probe {
  const { world } = from;
  return {
    version: 1,
    world,
    phase: () => world.phase.value,
    clock: from.clock,
    now: from.now,
    figures: () => world.figures.value,
    frames: () => from.painted.newest,
    inputs: from.inputs,
    press: (action) => world.hands.press(`probe:${action}`, action),
    lift: (action) => world.hands.lift(`probe:${action}`),
    turn: (yaw, pitch) => world.hands.turn(yaw, pitch),
    pixels: () => pixelsOf(from.redraw()),
  };
}

function pixelsOf(canvas: HTMLCanvasElement | null): { width: number; height: number; data: number[] } | null {
  if (!canvas) return null;
  const { width, height } = canvas;
  const copy = canvas.ownerDocument.createElement("canvas");
  copy.width = width;
  copy.height = height;
  const context = copy.getContext("2d", { willReadFrequently: true });
  if (!context) return null;
  context.drawImage(canvas, 0, 0);
  return { width, height, data: [...context.getImageData(0, 0, width, height).data] };
}
