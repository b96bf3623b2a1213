/** Mouse look: with pointer lock all moves turn, without it those with a button held. */

import { eventTime, listenTo, type Grip, type Tuning } from "./devices.js";

const MAX_JUMP = 600; // CSS pixels in one event: more is a browser's fault, not a hand's

export interface MouseLook {
  lock(): Promise<boolean>;
  unlock(): void;
  stop(): void;
}

export interface MouseOptions {
  readonly grip: Grip;
  readonly now: () => number;
  readonly tuning: () => Tuning;
  locked(on: boolean): void;
}

export function listenMouse(element: HTMLElement, options: MouseOptions): MouseLook {
  const { grip, now, tuning } = options;
  const page = element.ownerDocument;
  let drag: number | null = null;
  const locked = (): boolean => page.pointerLockElement === element;
  const move = (event: PointerEvent): void => {
    if (event.pointerType !== "mouse" || !(locked() || event.pointerId === drag)) return;
    const { movementX: x, movementY: y } = event;
    if (Math.abs(x) > MAX_JUMP || Math.abs(y) > MAX_JUMP) return;
    const { sensitivity, invertY } = tuning();
    // `y` counts downwards, pitch upwards.
    grip.turn(x * sensitivity, (invertY ? y : -y) * sensitivity, eventTime(event, now));
  };
  const down = (event: PointerEvent): void => {
    if (event.pointerType !== "mouse" || event.button !== 0 || locked()) return;
    drag = event.pointerId;
    element.setPointerCapture(event.pointerId);
  };
  const up = (event: PointerEvent): void => {
    if (event.pointerId === drag) drag = null;
  };
  const stops = [
    listenTo(element, { pointermove: move, pointerdown: down, pointerup: up, pointercancel: up }),
    listenTo(page, { pointerlockchange: () => options.locked(locked()) }),
  ];
  return {
    lock: () => lock(element),
    unlock: () => locked() && page.exitPointerLock(),
    stop: () => {
      if (locked()) page.exitPointerLock();
      for (const stop of stops) stop();
    },
  };
}

/** Asks for moves as the hand makes them, without the system's acceleration, where that exists. */
async function lock(element: HTMLElement): Promise<boolean> {
  type Request = (options?: { unadjustedMovement: boolean }) => Promise<void> | undefined;
  const request = element.requestPointerLock?.bind(element) as Request | undefined;
  if (!request) return false;
  try {
    await request({ unadjustedMovement: true });
    return true;
  } catch (error) {
    if ((error as DOMException).name !== "NotSupportedError") return false;
  }
  try {
    await request();
    return true;
  } catch {
    return false;
  }
}
