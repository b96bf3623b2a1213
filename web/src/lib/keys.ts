/**
 * Held controls, as a pure reducer. A *source* is whatever holds an action down: a physical key
 * (its layout-independent code) or one finger on a button. An action is held while any source holds it.
 */

export const ACTIONS = ["w", "a", "s", "d", "i", "j", "k", "l"] as const;
export type Action = (typeof ACTIONS)[number];

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

export type ControlInput =
  | { readonly type: "press"; readonly source: string; readonly action: Action }
  | { readonly type: "release"; readonly source: string }
  | { readonly type: "release-all" };

export const NOTHING_HELD: Held = new Map();

/** Returns the new state, or the same object when nothing changed (so key repeat is free). */
export function reduce(held: Held, input: ControlInput): Held {
  switch (input.type) {
    case "press": {
      if (held.get(input.source) === input.action) return held;
      return new Map(held).set(input.source, input.action);
    }
    case "release": {
      if (!held.has(input.source)) return held;
      const next = new Map(held);
      next.delete(input.source);
      return next;
    }
    case "release-all":
      return held.size === 0 ? held : NOTHING_HELD;
  }
}

/** Distinct held actions in one fixed order, so equal sets compare equal. */
export function heldActions(held: Held): Action[] {
  const found = new Set(held.values());
  return ACTIONS.filter((action) => found.has(action));
}

export function sameActions(a: readonly Action[], b: readonly Action[]): boolean {
  return a.length === b.length && a.every((action, i) => action === b[i]);
}

/** Keeps the newest press and the final level: what a chunk can show of a long backlog. */
export function compact<T extends { readonly actions: readonly string[] }>(items: readonly T[]): T[] {
  const last = items.at(-1);
  if (!last || items.length <= 2) return [...items];
  const pulse = items.findLast((item) => item.actions.length > 0);
  return pulse && pulse !== last ? [pulse, last] : [last];
}
