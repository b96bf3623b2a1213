/**
 * Held actions, as a pure reducer. A *source* is whatever holds an action down: a physical key (its
 * layout-independent code) or one finger on a button. An action is held while any source holds it.
 */

import type { Action } from "../protocol.js";

export const ACTIONS = ["w", "a", "s", "d", "i", "j", "k", "l"] as const satisfies readonly Action[];

/** Physical key -> action. The arrow keys look around: up i, left j, down k, right l. */
export const KEY_ACTIONS: Readonly<Record<string, Action>> = {
  KeyW: "w",
  KeyA: "a",
  KeyS: "s",
  KeyD: "d",
  ArrowUp: "i",
  ArrowLeft: "j",
  ArrowDown: "k",
  ArrowRight: "l",
  KeyI: "i",
  KeyJ: "j",
  KeyK: "k",
  KeyL: "l",
};

export type Held = ReadonlyMap<string, Action>;

export const NOTHING_HELD: Held = new Map();

/** Each returns the same object when nothing changed, so key repeat is free. */
export function pressed(held: Held, source: string, action: Action): Held {
  return held.get(source) === action ? held : new Map(held).set(source, action);
}

export function lifted(held: Held, source: string): Held {
  if (!held.has(source)) return held;
  const next = new Map(held);
  next.delete(source);
  return next;
}

/** Distinct held actions in one fixed order, so equal sets compare equal. */
export function actionsOf(held: Held): Action[] {
  const found = new Set(held.values());
  return ACTIONS.filter((action) => found.has(action));
}

export function sameActions(a: readonly Action[], b: readonly Action[]): boolean {
  return a.length === b.length && a.every((action, i) => action === b[i]);
}
