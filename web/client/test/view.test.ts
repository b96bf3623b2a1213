import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { STILL } from "../src/hands/motion.js";
import { bufferSize } from "../src/view/drawing.js";
import { Gaze } from "../src/view/gaze.js";
import { affineAt, homography, multiply, normalised, rotation, transposed, type Intrinsics, type Mat3, type View } from "../src/view/homography.js";
import { project } from "./browser/reference.js";
import { OPENED } from "./fakes.js";

const K: Intrinsics = [500, 500, 416, 240];
const AHEAD: View = { yaw: 0, pitch: 0 };
const angle = fc.double({ min: -30, max: 30, noNaN: true });
const view = fc.record({ yaw: fc.double({ min: -1000, max: 1000, noNaN: true }), pitch: fc.double({ min: -80, max: 80, noNaN: true }) });

function close(a: Mat3, b: Mat3, digits = 9): void {
  a.forEach((value, i) => expect(value).toBeCloseTo(b[i] as number, digits));
}

describe("rotation", () => {
  it("turns right with yaw and up with pitch, y pointing down", () => {
    const ahead = (m: Mat3): number[] => [m[2], m[5], m[8]];
    const right = ahead(rotation({ yaw: 90, pitch: 0 }));
    [1, 0, 0].forEach((value, i) => expect(right[i]).toBeCloseTo(value));
    const up = ahead(rotation({ yaw: 0, pitch: 90 }));
    [0, -1, 0].forEach((value, i) => expect(up[i]).toBeCloseTo(value));
  });

  it("is a rotation", () => {
    fc.assert(fc.property(view, (v) => close(multiply(rotation(v), transposed(rotation(v))), [1, 0, 0, 0, 1, 0, 0, 0, 1])));
  });
});

describe("homography", () => {
  it("moves the picture's middle by f tan(angle)", () => {
    const right = project(homography(K, AHEAD, { yaw: 5, pitch: 0 }), 416, 240);
    expect(right?.[0]).toBeCloseTo(416 + 500 * Math.tan((5 * Math.PI) / 180));
    expect(right?.[1]).toBeCloseTo(240);
    const up = project(homography(K, AHEAD, { yaw: 0, pitch: 5 }), 416, 240);
    expect(up?.[0]).toBeCloseTo(416);
    expect(up?.[1]).toBeCloseTo(240 - 500 * Math.tan((5 * Math.PI) / 180));
  });

  it("follows a point in the world, wherever the camera looked before", () => {
    const point = fc.tuple(fc.double({ min: -0.5, max: 0.5, noNaN: true }), fc.double({ min: -0.4, max: 0.4, noNaN: true }));
    fc.assert(
      fc.property(view, angle, angle, point, (from, yaw, pitch, [x, y]) => {
        const to = { yaw: from.yaw + yaw, pitch: Math.max(-85, Math.min(85, from.pitch + pitch)) };
        // A direction of the world, seen from both views.
        const world = apply(rotation(to), [x, y, 1]);
        const before = apply(transposed(rotation(from)), world);
        fc.pre(before[2] > 0.2);
        const expected = [(500 * before[0]) / before[2] + 416, (500 * before[1]) / before[2] + 240];
        const found = project(homography(K, from, to), 500 * x + 416, 500 * y + 240);
        expect(found?.[0]).toBeCloseTo(expected[0] as number, 5);
        expect(found?.[1]).toBeCloseTo(expected[1] as number, 5);
      }),
    );
  });

  it("there and back is nothing at all", () => {
    fc.assert(
      fc.property(view, angle, (from, yaw) => {
        const to = { yaw: from.yaw + yaw, pitch: from.pitch };
        const round = multiply(homography(K, from, to), homography(K, to, from));
        close(round.map((value) => value / round[8]) as unknown as Mat3, [1, 0, 0, 0, 1, 0, 0, 0, 1], 6);
      }),
    );
  });

  it("is the same in shares of the picture", () => {
    const to = { yaw: 4, pitch: -3 };
    const pixels = project(homography(K, AHEAD, to, 1.05), 100, 50);
    const shares = project(homography(normalised(K, 832, 480), AHEAD, to, 1.05), 100 / 832, 50 / 480);
    expect((shares?.[0] ?? 0) * 832).toBeCloseTo(pixels?.[0] ?? 0);
    expect((shares?.[1] ?? 0) * 480).toBeCloseTo(pixels?.[1] ?? 0);
  });

  it("enlarges about the principal point", () => {
    const h = homography(K, AHEAD, AHEAD, 1.04);
    expect(project(h, 416, 240)).toEqual([416, 240]);
    expect(project(h, 0, 240)?.[0]).toBeCloseTo(416 - 416 / 1.04);
  });

  it("says when a point lies behind the camera", () => {
    expect(project(homography(K, AHEAD, { yaw: 180, pitch: 0 }), 416, 240)).toBeNull();
  });

  it("is nearly affine at the middle", () => {
    const h = homography(K, AHEAD, { yaw: 3, pitch: 2 });
    const [a, b, c, d, e, f] = affineAt(h, 416, 240);
    const exact = project(h, 436, 230);
    expect(a * 436 + c * 230 + e).toBeCloseTo(exact?.[0] ?? 0, 0);
    expect(b * 436 + d * 230 + f).toBeCloseTo(exact?.[1] ?? 0, 0);
  });
});

function apply(m: Mat3, [x, y, z]: readonly [number, number, number]): [number, number, number] {
  return [m[0] * x + m[1] * y + m[2] * z, m[3] * x + m[4] * y + m[5] * z, m[6] * x + m[7] * y + m[8] * z];
}

function looking(maxDegrees = 12): Gaze {
  const gaze = new Gaze({ rig: OPENED.rig, fps: 16, latentFrames: 4, maxDegrees, speed: 1 });
  gaze.painted({ yaw: 10, pitch: 0, input: 0 }, 1000);
  return gaze;
}

describe("gaze", () => {
  it("is where the frame looked, while the hand is still", () => {
    expect(looking().at(1000)).toEqual({ yaw: 10, pitch: 0 });
    expect(looking().at(9000)).toEqual({ yaw: 10, pitch: 0 });
  });

  it("turns at once with the pointer, and stays while the frame catches up", () => {
    const gaze = looking();
    gaze.turned(4, -2, 1010);
    gaze.sent(1);
    expect(gaze.at(1010)).toEqual({ yaw: 14, pitch: -2 });
    gaze.painted({ yaw: 12, pitch: -1, input: 1 }, 1500);
    expect(gaze.at(1500)).toEqual({ yaw: 14, pitch: -2 });
    gaze.painted({ yaw: 14, pitch: -2, input: 1 }, 1750);
    const at = gaze.at(2500);
    expect(at?.yaw).toBeCloseTo(14);
    expect(at?.pitch).toBeCloseTo(-2);
  });

  it("turns with a held key at the rig's full speed", () => {
    const gaze = looking(90);
    gaze.moved({ ...STILL, yaw: 1 }, 1000);
    expect(gaze.at(1500)?.yaw).toBeCloseTo(10 + 6 * 4 * 0.5); // 6 degrees per latent frame, 4 of them a second
    gaze.moved(STILL, 1500);
    expect(gaze.at(1900)?.yaw).toBeCloseTo(22);
  });

  it("turns as slowly as a world that cannot keep up", () => {
    const gaze = looking(90);
    gaze.fps = 4;
    gaze.moved({ ...STILL, yaw: 1 }, 1000);
    expect(gaze.at(2000)?.yaw).toBeCloseTo(16);
  });

  it("goes no further than it may", () => {
    const gaze = looking(12);
    gaze.turned(100, 0, 1000);
    expect(gaze.at(1001)?.yaw).toBeCloseTo(22);
    gaze.turned(0, 300, 1002);
    const at = gaze.at(1003);
    expect(Math.hypot((at?.yaw ?? 0) - 10, at?.pitch ?? 0)).toBeCloseTo(12);
  });

  it("fades what the world did not turn, once that is certain", () => {
    const gaze = looking();
    gaze.turned(5, 0, 1000);
    gaze.sent(3);
    gaze.painted({ yaw: 13, pitch: 0, input: 3 }, 1400);
    gaze.painted({ yaw: 14, pitch: 0, input: 3 }, 1650); // one degree short
    expect(gaze.at(1800)?.yaw).toBeCloseTo(15);
    expect(gaze.at(3500)?.yaw).toBeCloseTo(14, 2);
  });

  it("fades nothing that is not shown yet", () => {
    const gaze = looking();
    gaze.turned(5, 0, 1000);
    expect(gaze.at(3000)?.yaw).toBeCloseTo(15); // not even sent
    gaze.sent(3);
    expect(gaze.at(4000)?.yaw).toBeCloseTo(15);
  });

  it("gives up on a turn that never comes", () => {
    const gaze = looking();
    gaze.turned(5, 0, 1000);
    gaze.sent(3);
    gaze.at(5100);
    expect(gaze.at(8000)?.yaw).toBeCloseTo(10, 2);
  });

  it("holds at the limit of the neck", () => {
    const gaze = looking(500);
    gaze.turned(0, 200, 1000);
    expect(gaze.at(1000)?.pitch).toBe(85);
  });

  it("forgets what was asked of a world that stood still", () => {
    const gaze = looking();
    gaze.turned(5, 0, 1000);
    gaze.forget();
    expect(gaze.at(1001)?.yaw).toBe(10);
    gaze.turned(2, 0, 1002);
    expect(gaze.at(1003)?.yaw).toBe(12);
  });

  it("follows the frame after a reset", () => {
    const gaze = looking();
    gaze.turned(5, 0, 1000);
    gaze.reset();
    expect(gaze.at(1100)).toBeNull();
    gaze.painted({ yaw: 0, pitch: 0, input: 9 }, 1200);
    expect(gaze.at(1200)).toEqual({ yaw: 0, pitch: 0 });
  });

  it("goes along with a world that something else turns", () => {
    const gaze = looking();
    for (let i = 1; i < 100; i++) {
      gaze.painted({ yaw: 10 - 1.5 * i, pitch: 0.2 * i, input: 0 }, 1000 + 62 * i);
      expect(gaze.at(1000 + 62 * i)).toEqual({ yaw: 10 - 1.5 * i, pitch: 0.2 * i });
    }
  });

  it("is not pulled to the right by old frames when the hand went back to the left", () => {
    const gaze = looking();
    gaze.turned(4, 0, 1000);
    gaze.sent(1);
    gaze.turned(-4, 0, 1100);
    gaze.sent(2);
    gaze.painted({ yaw: 12, pitch: 0, input: 1 }, 1400);
    gaze.painted({ yaw: 14, pitch: 0, input: 1 }, 1460);
    expect(gaze.at(1460)?.yaw).toBeCloseTo(10);
    gaze.painted({ yaw: 12, pitch: 0, input: 2 }, 1700);
    gaze.painted({ yaw: 10, pitch: 0, input: 2 }, 1760);
    expect(gaze.at(1760)?.yaw).toBeCloseTo(10);
  });

  it.each([
    [1000, 2250, 400],
    [1030, 1320, 500],
    [1010, 1060, 400], // a tap: the world turns a whole latent frame
    [1000, 4000, 700],
  ])("is smooth and never behind the true picture: a key held from %i to %i, shown %i ms later", (press, release, lag) => {
    // Latent frames of 250 ms, each sampled so much before its first picture; the world turns 6 degrees in each.
    const gaze = new Gaze({ rig: OPENED.rig, fps: 16, latentFrames: 4, maxDegrees: 30, speed: 1 });
    const pictures: { at: number; yaw: number; input: number }[] = [];
    let yaw = 0;
    let seen = false;
    for (let sampled = 0; sampled < 6000; sampled += 250) {
      const tapped: boolean = !seen && press > sampled - 250 && release <= sampled;
      const turns: boolean = (press <= sampled && sampled < release) || tapped;
      seen ||= turns;
      const input = release <= sampled ? 2 : press <= sampled ? 1 : 0;
      for (let i = 1; i <= 4; i++) pictures.push({ at: sampled + lag + (i - 1) * 62.5, yaw: yaw + (turns ? 1.5 * i : 0), input });
      if (turns) yaw += 6;
    }
    let last = 0;
    let truth = 0;
    for (let now = 0; now < 7000; now += 1000 / 60) {
      if (last === 0 && now >= press && now < press + 17) {
        gaze.moved({ ...STILL, yaw: 1 }, press);
        gaze.sent(1);
      }
      if (now >= release && now < release + 17) {
        gaze.moved(STILL, release);
        gaze.sent(2);
      }
      while (pictures[0] && pictures[0].at <= now) {
        truth = pictures[0].yaw;
        gaze.painted({ ...pictures[0], pitch: 0 }, now);
        pictures.shift();
      }
      const at = gaze.at(now)?.yaw ?? 0;
      expect(at).toBeGreaterThan(last - 0.15); // what the hand asked for and did not get fades slowly
      expect(at - last).toBeLessThan(1.6); // no more than the pictures themselves do
      expect(at).toBeGreaterThanOrEqual(truth - 1e-9);
      last = at;
    }
    expect(last).toBeCloseTo(yaw, 1);
  });

  it("never jumps backwards while a held key turns the world as it should", () => {
    // The world follows the key 600 ms late, in whole latent frames.
    const gaze = looking(60);
    gaze.moved({ ...STILL, yaw: 1 }, 1000);
    gaze.sent(1);
    let yaw = 10;
    let last = 10;
    for (let now = 1000; now < 4000; now += 16) {
      if (now === 2504) {
        gaze.moved(STILL, now);
        gaze.sent(2);
      }
      const turned = Math.min(6 * 6, Math.max(0, Math.floor((now - 1600) / 250)) * 6);
      if (10 + turned !== yaw) {
        yaw = 10 + turned;
        gaze.painted({ yaw, pitch: 0, input: yaw >= 46 ? 2 : 1 }, now);
      }
      const at = gaze.at(now)?.yaw ?? 0;
      expect(at).toBeGreaterThan(last - 0.5);
      last = at;
    }
    expect(last).toBeCloseTo(46, 0);
  });
});

describe("the drawing buffer", () => {
  it("has the shown size in device pixels, in the frame's shape, capped", () => {
    expect(bufferSize({ width: 832, height: 480 }, { width: 1664, height: 2000 }, { ratio: 1, maxSide: 2560 })).toEqual({ width: 1664, height: 960 });
    expect(bufferSize({ width: 832, height: 480 }, { width: 8000, height: 8000 }, { ratio: 2, maxSide: 960 }).width).toBe(960);
    expect(bufferSize({ width: 832, height: 480 }, { width: 0, height: 0 }, { ratio: 1, maxSide: 960 })).toEqual({ width: 832, height: 480 });
  });
});
