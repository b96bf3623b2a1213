/** Touch sticks: a finger on the left half moves, one on the right half looks. */

import { eventTime, listenTo, type Grip, type StickView, type Tuning } from "./devices.js";
import { STILL, throughDeadZone } from "./motion.js";

const RADIUS = 56; // CSS pixels to full speed: a thumb's reach

export type StickName = "move" | "look";
export type Sticks = Readonly<Record<StickName, StickView | null>>;

export const NO_STICKS: Sticks = { move: null, look: null };

export interface TouchOptions {
  readonly grip: Grip;
  readonly now: () => number;
  readonly tuning: () => Tuning;
  changed(sticks: Sticks): void;
}

interface Finger {
  readonly stick: StickName;
  readonly x: number;
  readonly y: number;
}

export function listenTouch(element: HTMLElement, options: TouchOptions): () => void {
  const fingers = new Map<number, Finger>();
  let sticks = NO_STICKS;
  const place = (event: PointerEvent): { x: number; y: number; width: number } => {
    const box = element.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top, width: box.width };
  };
  const show = (stick: StickName, view: StickView | null): void => {
    sticks = { ...sticks, [stick]: view };
    options.changed(sticks);
  };
  const down = (event: PointerEvent): void => {
    if (event.pointerType === "mouse") return;
    const { x, y, width } = place(event);
    const stick = x < width / 2 ? "move" : "look";
    if ([...fingers.values()].some((finger) => finger.stick === stick)) return;
    event.preventDefault();
    element.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { stick, x, y });
    show(stick, { x, y, dx: 0, dy: 0, radius: RADIUS });
  };
  const move = (event: PointerEvent): void => {
    const finger = fingers.get(event.pointerId);
    if (!finger) return;
    const { x, y } = place(event);
    const [dx, dy] = within(x - finger.x, y - finger.y);
    show(finger.stick, { x: finger.x, y: finger.y, dx, dy, radius: RADIUS });
    const { deadZone, invertY } = options.tuning();
    const stick = throughDeadZone(dx / RADIUS, dy / RADIUS, deadZone);
    const motion =
      finger.stick === "move"
        ? { ...STILL, x: stick.x, z: -stick.y }
        : { ...STILL, yaw: stick.x, pitch: invertY ? stick.y : -stick.y };
    options.grip.stick(`touch:${finger.stick}`, motion, eventTime(event, options.now));
  };
  const up = (event: PointerEvent): void => {
    const finger = fingers.get(event.pointerId);
    if (!finger) return;
    fingers.delete(event.pointerId);
    show(finger.stick, null);
    options.grip.stick(`touch:${finger.stick}`, STILL, eventTime(event, options.now));
  };
  const before = element.style.touchAction;
  element.style.touchAction = "none"; // or the page scrolls instead
  const stop = listenTo(element, {
    pointerdown: down,
    pointermove: move,
    pointerup: up,
    pointercancel: up,
    lostpointercapture: up,
  });
  return () => {
    stop();
    element.style.touchAction = before;
    options.changed(NO_STICKS);
  };
}

function within(dx: number, dy: number): [number, number] {
  const share = Math.min(1, RADIUS / Math.max(1e-9, Math.hypot(dx, dy)));
  return [dx * share, dy * share];
}
