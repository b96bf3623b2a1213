/** Keys by their place on the keyboard (`KeyboardEvent.code`), whatever is printed on them. */

import { eventTime, listenTo, type Grip } from "./devices.js";
import { KEY_ACTIONS } from "./held.js";

const PREFIX = "key:";

export function listenKeyboard(target: EventTarget, grip: Grip, now: () => number): () => void {
  const down = (event: KeyboardEvent): void => {
    const at = eventTime(event, now);
    if (isSlow(event.code)) grip.slow(event.code, true, at);
    const action = KEY_ACTIONS[event.code];
    // While Meta is down macOS sends no key-up for other keys, so nothing may count as held.
    if (event.metaKey) return grip.liftAll(PREFIX, at);
    if (!action || event.ctrlKey || event.altKey || event.isComposing || isTyping(event)) return;
    event.preventDefault(); // arrows would scroll
    // A repeat is no press: what was released by a blur or a reconnect stays released.
    if (!event.repeat) grip.press(PREFIX + event.code, action, at);
  };
  const up = (event: KeyboardEvent): void => {
    const at = eventTime(event, now);
    if (isSlow(event.code)) grip.slow(event.code, false, at);
    if (event.code.startsWith("Meta")) grip.liftAll(PREFIX, at);
    grip.lift(PREFIX + event.code, at);
  };
  return listenTo(target, { keydown: down, keyup: up });
}

function isSlow(code: string): boolean {
  return code === "ShiftLeft" || code === "ShiftRight";
}

const FIELDS = new Set(["INPUT", "TEXTAREA", "SELECT"]);

function isTyping(event: KeyboardEvent): boolean {
  const target = event.target as Partial<HTMLElement> | null;
  return target?.isContentEditable === true || FIELDS.has(target?.tagName ?? "");
}
