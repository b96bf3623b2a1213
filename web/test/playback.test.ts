import { describe, expect, it } from "vitest";

import { FrameMeter, LatencyMeter } from "../src/lib/meters";
import { Playback } from "../src/lib/playback";

const TICK = 1000 / 60;

interface Shown {
  readonly frame: string;
  readonly at: number;
}

/** Plays `arrivals` (time, frames, event) on a 60 Hz screen and returns what was shown when. */
function play(
  arrivals: readonly { at: number; frames: number; eventId?: number }[],
  until: number,
): { shown: Shown[]; dropped: string[]; queue: Playback<string> } {
  const dropped: string[] = [];
  const queue = new Playback<string>(16, (frame) => dropped.push(frame));
  const shown: Shown[] = [];
  let next = 0;
  for (let now = 0; now <= until; now += TICK) {
    for (let a = arrivals[next]; a && a.at <= now; a = arrivals[++next]) {
      const frames = Array.from({ length: a.frames }, (_, i) => `${next}.${i}`);
      queue.push(frames, { chunk: next, eventId: a.eventId ?? null, now: a.at });
    }
    const entry = queue.take(now);
    if (entry) shown.push({ frame: entry.frame, at: now });
  }
  return { shown, dropped, queue };
}

function everyChunk(period: number, count: number, frames = 4) {
  return Array.from({ length: count }, (_, i) => ({ at: i * period, frames }));
}

describe("Playback", () => {
  it("shows every frame once and in order when the server keeps pace", () => {
    const { shown, dropped } = play(everyChunk(250, 20), 6000);
    expect(shown.map((s) => s.frame)).toEqual(everyChunk(250, 20).flatMap((_, c) => [0, 1, 2, 3].map((i) => `${c}.${i}`)));
    expect(dropped).toEqual([]);
  });

  it("spreads the frames of a chunk evenly", () => {
    const { shown } = play(everyChunk(250, 24), 5900);
    const gaps = shown.slice(33).map((s, i) => s.at - (shown[i + 32] as Shown).at);
    expect(Math.max(...gaps)).toBeLessThan(110);
    expect(Math.min(...gaps)).toBeGreaterThan(30);
  });

  it("slows down to what a slow server produces instead of stuttering", () => {
    const { shown } = play(everyChunk(500, 14), 7000);
    const gaps = shown.slice(25).map((s, i) => s.at - (shown[i + 24] as Shown).at);
    expect(Math.max(...gaps)).toBeLessThan(260); // a chunk played at 16 fps would leave gaps of 310 ms
  });

  it("keeps the lead short when frames arrive faster than they can be shown", () => {
    const { queue, dropped } = play(everyChunk(100, 60), 6000);
    expect(queue.length).toBeLessThanOrEqual(4 + 6);
    expect(dropped.length).toBeGreaterThan(0);
  });

  it("lets a newer input replace what is still queued", () => {
    const queue = new Playback<string>(16, (frame) => dropped.push(frame));
    const dropped: string[] = [];
    queue.push(["a", "b", "c"], { chunk: 0, eventId: null, now: 0 });
    expect(queue.take(0)?.frame).toBe("a");
    queue.push(["d", "e"], { chunk: 1, eventId: 1, now: 10 });
    expect(dropped).toEqual(["b", "c"]);
    expect(queue.take(100)).toEqual({ frame: "d", chunk: 1, eventId: 1 });
    queue.push(["f"], { chunk: 2, eventId: 1, now: 110 });
    expect(dropped).toEqual(["b", "c"]);
  });

  it("does not drop the second batch of the chunk that answers", () => {
    const queue = new Playback<string>(16);
    queue.push(["a"], { chunk: 4, eventId: 2, now: 0 });
    queue.push(["b"], { chunk: 4, eventId: 2, now: 1 });
    expect(queue.length).toBe(2);
  });

  it("starts a new beat after a stall instead of hurrying", () => {
    const { shown } = play([{ at: 0, frames: 4 }, { at: 3000, frames: 4 }], 4000);
    const late = shown.filter((s) => s.at >= 3000);
    expect(late).toHaveLength(4);
    expect((late[3] as Shown).at - (late[0] as Shown).at).toBeGreaterThan(150);
  });
});

describe("FrameMeter", () => {
  it("counts drawn frames and says nothing before there are two", () => {
    const meter = new FrameMeter();
    expect(meter.fps(0)).toBeNull();
    for (let i = 0; i < 64; i++) meter.shown(i * 62.5);
    expect(meter.fps(63 * 62.5)).toBeCloseTo(16, 5);
    expect(meter.fps(63 * 62.5 + 1000)).toBeLessThan(9);
    expect(meter.fps(63 * 62.5 + 5000)).toBeNull();
  });

  it("counts the times that nothing was drawn for long", () => {
    const meter = new FrameMeter();
    for (const now of [0, 60, 460, 861, 920]) meter.shown(now);
    expect(meter.stalls).toBe(1);
    expect(meter.longest).toBe(401);
  });
});

describe("LatencyMeter", () => {
  it("measures from the press to the first frame with its id or a newer one", () => {
    const meter = new LatencyMeter();
    meter.sent(1, 100);
    meter.sent(2, 150);
    expect(meter.shown(null, 200)).toEqual([]);
    expect(meter.shown(1, 400)).toEqual([1]);
    expect(meter.last).toBe(300);
    expect(meter.shown(1, 450)).toEqual([]);
    expect(meter.shown(3, 500)).toEqual([2]);
    expect(meter.last).toBe(350);
  });

  it("knows the median and the 95th percentile of all of them", () => {
    const meter = new LatencyMeter();
    expect(meter.spread()).toBeNull();
    for (let id = 1; id <= 20; id++) {
      meter.sent(id, 0);
      meter.shown(id, 10 * id);
    }
    expect(meter.spread()).toEqual({ count: 20, median: 100, p95: 190 });
  });
});
