/** The parts that only a browser can show: pixels, video, and a world from socket to canvas. */

import { beforeAll, describe, expect, it } from "vitest";

import chart from "./browser/chart.json";
import { findBrowser, runPage } from "./browser/chromium.js";
import { turned, TURNS, type Answer } from "./browser/page.js";
import { HEIGHT, pattern, WIDTH } from "./browser/pattern.js";
import { difference, drawn } from "./browser/reference.js";

const SIZE = { width: WIDTH, height: HEIGHT };
const browser = findBrowser();
const bytes = (text: string): Buffer => Buffer.from(text, "base64");

describe.skipIf(browser === null)("in Chromium", () => {
  let answer: Answer;
  beforeAll(async () => {
    answer = await runPage(browser as string, 150_000);
  }, 180_000);

  it("finds the video decoder on a secure page", () => {
    expect(answer.secure).toBe(true);
    expect(answer.support.formats[0]).toBe("h264");
    expect(answer.support.reason).toBeNull();
  });

  it.each(TURNS.map((turn, i) => [turn, i] as const))("the timewarp by WebGL equals the reference: %j", (turn, i) => {
    expect(answer.webgl.kind).toBe("webgl");
    const expected = drawn(pattern(), SIZE, turned(turn, 1.04).turn);
    const { max, mean } = difference(bytes(answer.webgl.pictures[i] as string), expected);
    expect(max).toBeLessThanOrEqual(2);
    expect(mean).toBeLessThan(0.1);
  });

  it("a turn is no small thing: the same pixels without it are far off", () => {
    const straight = drawn(pattern(), SIZE, turned({ yaw: 0, pitch: 0 }, 1.04).turn);
    expect(difference(bytes(answer.webgl.pictures[1] as string), straight).mean).toBeGreaterThan(10);
  });

  it("a blend is the weighted mean of two frames, each with its own turn", () => {
    const now = drawn(pattern(2), SIZE, turned(TURNS[1] ?? { yaw: 0, pitch: 0 }, 1.04).turn);
    const before = drawn(pattern(), SIZE, turned(TURNS[2] ?? { yaw: 0, pitch: 0 }, 1.04).turn);
    const expected = now.map((value, i) => 0.25 * value + 0.75 * (before[i] as number));
    expect(difference(bytes(answer.webgl.blend), expected).max).toBeLessThanOrEqual(3);
  });

  it.each(TURNS.slice(0, 3).map((turn, i) => [turn, i] as const))("without WebGL the middle of the picture is right: %j", (turn, i) => {
    expect(answer.flat.kind).toBe("2d");
    const expected = drawn(pattern(), SIZE, turned(turn, 1.04).turn);
    const middle = (pixel: number): boolean => Math.abs((pixel % WIDTH) - WIDTH / 2) < 30 && Math.abs(Math.floor(pixel / WIDTH) - HEIGHT / 2) < 20;
    expect(difference(bytes(answer.flat.pictures[i] as string), expected, middle).mean).toBeLessThan(3);
  });

  it("H.264 comes out complete, in order, with its colours", () => {
    expect(answer.clean.numbers).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(Object.keys(answer.clean.colours)).toEqual(["webgl, lent", "webgl, copied", "2d, lent", "2d, copied"]);
    for (const found of Object.values(answer.clean.colours)) {
      const off = found.map((colour, i) =>
        Math.max(...colour.map((value, c) => Math.abs(value - (chart.colours[i]?.[c] ?? 999)))),
      );
      expect(off.length).toBe(chart.colours.length);
      expect(Math.max(...off)).toBeLessThanOrEqual(3);
    }
  });

  it("H.264 goes on at the next key frame after bytes that are none", () => {
    const { numbers } = answer.spoilt;
    expect(numbers.slice(0, 3)).toEqual([0, 1, 2]);
    expect(numbers.slice(-4)).toEqual([8, 9, 10, 11]);
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
  });

  it("the hand turns the picture before any frame does", () => {
    const still = turned({ yaw: 0, pitch: 0 }, 1.04).turn;
    const four = turned({ yaw: 4, pitch: 0 }, 1.04).turn;
    expect(difference(bytes(answer.warped.before), drawn(pattern(), SIZE, still)).max).toBeLessThanOrEqual(3);
    expect(difference(bytes(answer.warped.after), drawn(pattern(), SIZE, four)).max).toBeLessThanOrEqual(3);
    expect(answer.warped.input).toBe("[4,0]");
  });

  it("the timewarp can be switched off", () => {
    expect(difference(bytes(answer.plain.before), bytes(answer.plain.after)).max).toBe(0);
    expect(answer.plain.input).toBe("[4,0]");
  });

  it("pictures come by WebRTC with what the socket says of them, and by the socket when that ends", () => {
    const { numbers, kind, after, left } = answer.rtc;
    expect(kind).toBe("webrtc");
    const byRtc = numbers.filter((number) => number < 9000);
    expect(byRtc.length).toBeGreaterThanOrEqual(12);
    expect(byRtc).toEqual([...byRtc].sort((a, b) => a - b));
    expect(after).toBe("raw");
    expect(numbers.at(-1)).toBeGreaterThanOrEqual(9000);
    expect(left).toBe("ended");
  });

  it("over plain http from another machine it says so and shows pictures", () => {
    const { secure, support, asked, painted, reason } = answer.insecure;
    expect(secure).toBe(false);
    expect(support.formats).toEqual(["jpeg", "webp", "raw"]);
    expect(asked).toBe("jpeg");
    expect(painted).toBe(4);
    expect(reason).toMatch(/plain http/);
  });
});
