import { describe, expect, it } from "vitest";

import { DEFAULTS, keepPreferences, readPreferences } from "../src/state/preferences";

describe("preferences", () => {
  it("take what is right and leave out the rest", () => {
    const text = JSON.stringify({ speed: 0.5, invert: true, lead: -3, format: "gif", quality: "95", odd: 1 });
    expect(readPreferences(text)).toEqual({ ...DEFAULTS, speed: 0.5, invert: true });
  });

  it.each([null, "", "{", "[]", "7", '"x"', '{"__proto__":{"speed":0.5}}'])("stand %s", (text) => {
    expect(readPreferences(text)).toEqual(DEFAULTS);
  });

  it("are written when they change and found again", () => {
    const shelf = new Map<string, string>();
    const store = {
      getItem: (key: string) => shelf.get(key) ?? null,
      setItem: (key: string, value: string) => void shelf.set(key, value),
    };
    const first = keepPreferences(() => store);
    first.value = { ...first.value, timewarp: false };
    expect(keepPreferences(() => store).value).toEqual({ ...DEFAULTS, timewarp: false });
  });

  it("hold without a storage", () => {
    const preferences = keepPreferences(() => {
      throw new Error("forbidden");
    });
    preferences.value = { ...preferences.value, speed: 0.3 };
    expect(preferences.value.speed).toBe(0.3);
  });
});
