import { describe, expect, it } from "vitest";

import { agoWords, clockWords, momentAt, shareOf, strip } from "../src/lib/filmstrip";

describe("a strip of moments", () => {
  it("has a cell for each while there is room, then for every second, third, fourth, sixth", () => {
    expect(strip(0, 8)).toEqual({ cells: [], filled: 0 });
    expect(strip(3, 8)).toEqual({ cells: [0, 1, 2], filled: 3 / 8 });
    const stride = (moments: number): number => strip(moments, 8).cells[1] ?? 0;
    expect([8, 9, 16, 17, 24, 25, 32, 33, 48, 49, 240].map(stride)).toEqual([1, 2, 2, 3, 3, 4, 4, 6, 6, 8, 32]);
  });

  it("never runs over, and is at least half full once it has folded", () => {
    for (let moments = 1; moments <= 300; moments++) {
      for (const room of [1, 5, 8, 13]) {
        const { cells, filled } = strip(moments, room);
        expect(cells.length).toBeLessThanOrEqual(room);
        expect(filled).toBeLessThanOrEqual(1);
        if (moments > room) expect(filled).toBeGreaterThan(0.5);
      }
    }
  });

  it("finds every moment where its needle stands, and now behind them all", () => {
    for (const moments of [1, 7, 24, 240]) {
      const { filled } = strip(moments, 8);
      for (let i = 0; i < moments; i++) expect(momentAt(shareOf(i, filled, moments), filled, moments)).toBe(i);
      expect(momentAt(1.2, filled, moments)).toBe(moments);
      expect(momentAt(-0.2, filled, moments)).toBe(0);
      expect(shareOf(moments, filled, moments)).toBe(filled);
    }
    expect(momentAt(0.5, 0, 0)).toBe(0);
  });

  it("tells the time", () => {
    expect([0, 9.9, 60, 725].map(clockWords)).toEqual(["0:00", "0:09", "1:00", "12:05"]);
    expect([0, 0.75, 8.4, 89, 200].map(agoWords)).toEqual(["just now", "just now", "8 s ago", "89 s ago", "3 min ago"]);
  });
});
