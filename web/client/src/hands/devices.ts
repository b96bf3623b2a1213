/** What a device may do to the hands; each `listen*` returns the way to stop. */

import type { Action } from "../protocol.js";
import type { Motion } from "./motion.js";

export interface Grip {
  press(source: string, action: Action, atMs: number): void;
  lift(source: string, atMs: number): void;
  /** Lets go of all sources whose name begins so. */
  liftAll(prefix: string, atMs: number): void;
  stick(source: string, motion: Motion, atMs: number): void;
  turn(yaw: number, pitch: number, atMs: number): void;
  slow(source: string, on: boolean, atMs: number): void;
}

export interface Tuning {
  /** Degrees per CSS pixel of the mouse. */
  readonly sensitivity: number;
  readonly invertY: boolean;
  /** Share of a stick's way that counts as rest. */
  readonly deadZone: number;
  /** Share of full speed while Shift is held. */
  readonly slowSpeed: number;
}

export const TUNING: Tuning = { sensitivity: 0.12, invertY: false, deadZone: 0.15, slowSpeed: 0.4 };

/** Where a touch stick began and stands, in CSS pixels of the element. */
export interface StickView {
  readonly x: number;
  readonly y: number;
  readonly dx: number;
  readonly dy: number;
  readonly radius: number;
}

/** The time of an event on the clock of `performance.now`, or now where a browser does not say. */
export function eventTime(event: Event, now: () => number): number {
  const at = now();
  return event.timeStamp > 0 && event.timeStamp <= at ? event.timeStamp : at;
}

type Listener = (event: never) => void;

/** Listens to several events; returns the way to stop. */
export function listenTo(target: EventTarget, listeners: Readonly<Record<string, Listener>>): () => void {
  const all = Object.entries(listeners) as [string, EventListener][];
  for (const [name, listener] of all) target.addEventListener(name, listener, { passive: false });
  return () => {
    for (const [name, listener] of all) target.removeEventListener(name, listener);
  };
}
