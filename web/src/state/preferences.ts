/** What a visitor set once and keeps: read from the browser's storage, written when it changes. */

import { effect, signal, type Signal } from "@preact/signals";
import type { Format } from "@worldline/client";

export type FormatChoice = "auto" | Format;

export type Transport = "websocket" | "webrtc";

export interface Preferences {
  /** Share of the camera's full speed. */
  readonly speed: number;
  /** Share of the usual turn per pixel of the mouse. */
  readonly sensitivity: number;
  readonly invert: boolean;
  /** Turn the last picture by what is not yet generated. */
  readonly timewarp: boolean;
  /** Blend over when newer pictures replace those that still wait. */
  readonly blend: boolean;
  /** Chunks over which a new prompt takes hold. */
  readonly promptBlend: number;
  /** Milliseconds of video queued ahead; 0 leaves it to the page. */
  readonly lead: number;
  readonly format: FormatChoice;
  /** How video travels; WebRTC for networks that lose packets, where the server has it. */
  readonly transport: Transport;
  /** 0 leaves it to the server. */
  readonly quality: number;
  /** The walk so far in thumbnails, above the words. */
  readonly timeline: boolean;
}

export const DEFAULTS: Preferences = {
  speed: 1,
  sensitivity: 1,
  invert: false,
  timewarp: true,
  blend: true,
  promptBlend: 0,
  lead: 0,
  format: "auto",
  transport: "websocket",
  quality: 0,
  timeline: false,
};

export const QUALITIES = [
  { value: 0, name: "Auto" },
  { value: 50, name: "Light" },
  { value: 80, name: "Fine" },
  { value: 95, name: "Finest" },
] as const;

type Check = (value: unknown) => boolean;
const within =
  (least: number, most: number): Check =>
  (value) =>
    typeof value === "number" && value >= least && value <= most;
const flag: Check = (value) => typeof value === "boolean";
const CHECKS: { readonly [K in keyof Preferences]: Check } = {
  speed: within(0.1, 1),
  sensitivity: within(0.2, 3),
  invert: flag,
  timewarp: flag,
  blend: flag,
  promptBlend: within(0, 16),
  lead: within(0, 5000),
  format: (value) => ["auto", "h264", "jpeg", "webp", "raw"].includes(String(value)),
  transport: (value) => value === "websocket" || value === "webrtc",
  quality: within(0, 100),
  timeline: flag,
};
const KEY = "worldline.preferences";

type Store = Pick<Storage, "getItem" | "setItem">;

/** Only what passes its check is taken; everything else is as it comes. */
export function readPreferences(text: string | null): Preferences {
  let found: unknown = null;
  try {
    found = JSON.parse(text ?? "null");
  } catch {
    // somebody else's text: begin anew
  }
  if (found === null || typeof found !== "object") return DEFAULTS;
  const entries = Object.entries(found).filter(
    ([name, value]) => Object.hasOwn(CHECKS, name) && CHECKS[name as keyof Preferences](value),
  );
  return { ...DEFAULTS, ...Object.fromEntries(entries) };
}

/** `store` may throw where a browser forbids it: they then hold until the page is left. */
export function keepPreferences(store: () => Store): Signal<Preferences> {
  let text: string | null = null;
  try {
    text = store().getItem(KEY);
  } catch {
    // forbidden
  }
  const preferences = signal(readPreferences(text));
  effect(() => {
    const kept = JSON.stringify(preferences.value);
    try {
      store().setItem(KEY, kept);
    } catch {
      // full or forbidden
    }
  });
  return preferences;
}
