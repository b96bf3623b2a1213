import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { Pairing } from "../src/media/pairing.js";
import { frame } from "./fakes.js";

/** Pictures arrive `lag` ms after what is said of them, whose own way takes up to `late` ms. */
function walk(options: { offset: number; lag: (i: number) => number; late: (i: number) => number; drop?: (i: number) => boolean; count?: number }): { right: number; wrong: number; none: number } {
  const pairing = new Pairing(16);
  const events: { at: number; run: () => void }[] = [];
  const result = { right: 0, wrong: 0, none: 0 };
  for (let i = 0; i < (options.count ?? 400); i++) {
    const made = i * 62.5;
    events.push({ at: made + options.late(i), run: () => pairing.say(frame(i), made) });
    if (options.drop?.(i)) continue;
    const rtp = (options.offset + i * 5625) % 2 ** 32;
    events.push({
      at: made + options.lag(i),
      run: () => {
        const said = pairing.picture(rtp);
        if (i < 60) return; // it takes a while to be sure
        if (!said) result.none++;
        else if (said.info.number === i) result.right++;
        else result.wrong++;
      },
    });
  }
  events.sort((a, b) => a.at - b.at);
  for (const { run } of events) run();
  return result;
}

describe("pairing pictures with messages", () => {
  it("finds the offset whatever it is, over lost pictures and the wrap of 32 bits", () => {
    fc.assert(
      fc.property(fc.nat(2 ** 32 - 1), fc.integer({ min: 5, max: 58 }), fc.integer({ min: 2, max: 9 }), (offset, lag, drop) => {
        const found = walk({ offset, lag: () => lag, late: () => 2, drop: (i) => i % drop === 0 });
        expect(found.wrong + found.none).toBe(0);
        expect(found.right).toBeGreaterThan(100);
      }),
      { numRuns: 60 },
    );
  });

  it("heeds no single late message", () => {
    const found = walk({ offset: 7, lag: () => 30, late: (i) => (i % 9 === 0 ? 50 : 2) });
    expect(found.wrong).toBe(0);
    expect(found.none).toBeLessThan(50); // those whose message is not there yet
  });

  it("finds it when pictures come in bursts of four", () => {
    const found = walk({ offset: 123_456, lag: (i) => 20 + (3 - (i % 4)) * 62.5 + (i % 4) * 5, late: (i) => (3 - (i % 4)) * 62.5 });
    expect(found.wrong).toBe(0);
  });

  it("says nothing before anything was said", () => {
    expect(new Pairing(16).picture(5)).toBeNull();
  });
});
