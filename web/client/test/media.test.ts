import { describe, expect, it } from "vitest";

import { rgbToRgba, supported } from "../src/media/codecs.js";
import { Decoders, type Decoded } from "../src/media/decoders.js";
import { Playout, PLAYOUT, type PlayoutOptions } from "../src/media/playout.js";
import type { Format } from "../src/protocol.js";
import { FakeCodecs, FakePicture, FakeVideoDecoder, frame, settled } from "./fakes.js";

function decoding(): { codecs: FakeCodecs; decoders: Decoders; out: Decoded[]; asked: number[]; dead: Format[]; lost: number[]; clock: { ms: number } } {
  const codecs = new FakeCodecs();
  const clock = { ms: 5000 };
  const out: Decoded[] = [];
  const asked: number[] = [];
  const dead: Format[] = [];
  const lost: number[] = [];
  const decoders = new Decoders(codecs, {
    decoded: (decoded) => out.push(decoded),
    needKey: () => asked.push(clock.ms),
    dead: (format) => dead.push(format),
    lost: (info) => lost.push(info.number),
    now: () => clock.ms,
  });
  return { codecs, decoders, out, asked, dead, lost, clock };
}

const numbers = (out: readonly Decoded[]): number[] => out.map(({ info }) => info.number);
const video = (number: number, key = false): ReturnType<typeof frame> =>
  frame(number, { format: "h264", key, ...(key ? { codec: "avc1.42C01F" } : {}) });
const decoder = (): FakeVideoDecoder => FakeVideoDecoder.made.at(-1) as FakeVideoDecoder;

describe("pictures", () => {
  it("come out in order, though they are decoded in any", async () => {
    const { codecs, decoders, out } = decoding();
    codecs.automatic = false;
    for (const i of [0, 1, 2]) decoders.take(frame(i), 10 + i);
    expect(decoders.pending).toBe(3);
    codecs.jobs[2]?.resolve(new FakePicture("c"));
    codecs.jobs[0]?.resolve(new FakePicture("a"));
    await settled();
    expect(numbers(out)).toEqual([0]);
    codecs.jobs[1]?.resolve(new FakePicture("b"));
    await settled();
    expect(numbers(out)).toEqual([0, 1, 2]);
    expect(out[2]).toMatchObject({ receivedMs: 12, decodedMs: 5000, bytes: 1 });
    expect(out[0]?.info).not.toHaveProperty("payload");
  });

  it("that are broken are left out, and said", async () => {
    const { codecs, decoders, out, lost } = decoding();
    codecs.automatic = false;
    decoders.take(frame(0), 0);
    decoders.take(frame(1), 0);
    codecs.jobs[1]?.resolve(new FakePicture("b"));
    codecs.jobs[0]?.reject(new Error("no JPEG"));
    await settled();
    expect(numbers(out)).toEqual([1]);
    expect(lost).toEqual([0]);
  });

  it("are closed when nobody wants them any more", async () => {
    const { codecs, decoders, out } = decoding();
    codecs.automatic = false;
    decoders.take(frame(0), 0);
    decoders.close();
    const late = new FakePicture("late");
    codecs.jobs[0]?.resolve(late);
    await settled();
    expect(out).toEqual([]);
    expect(late.closed).toBe(true);
  });

  it("keep their colours when they came raw", () => {
    expect([...rgbToRgba(new Uint8Array([1, 2, 3, 4, 5, 6]))]).toEqual([1, 2, 3, 255, 4, 5, 6, 255]);
  });
});

describe("video", () => {
  it("is set up at a key frame, from the stream's own codec string, for low delay", async () => {
    const { decoders, out } = decoding();
    decoders.take(video(0, true), 0);
    expect(decoder().configs).toEqual([{ codec: "avc1.42C01F", optimizeForLatency: true }]);
    decoders.take(video(1), 0);
    expect(decoder().chunks.map(({ type }) => type)).toEqual(["key", "delta"]);
    decoder().output(2);
    await settled();
    expect(numbers(out)).toEqual([0, 1]);
    decoders.take(video(2, true), 0);
    expect(decoder().configs.length).toBe(1);
  });

  it("asks once a second for a key frame while it has none", () => {
    const { decoders, asked, out, clock } = decoding();
    for (let i = 5; i < 45; i++) {
      decoders.take(video(i), 0);
      clock.ms += 62;
    }
    expect(asked.length).toBe(3);
    expect(out).toEqual([]);
    expect(decoders.pending).toBe(0);
  });

  it("begins again at the next key frame after an error", async () => {
    const { decoders, out, asked } = decoding();
    decoders.take(video(0, true), 0);
    decoders.take(video(1), 0);
    decoder().output(1);
    await settled();
    decoder().fail();
    expect(asked.length).toBe(1);
    decoders.take(video(2), 0);
    decoders.take(video(3, true), 0);
    expect(FakeVideoDecoder.made.length).toBe(2);
    decoder().output(1);
    await settled();
    expect(numbers(out)).toEqual([0, 3]);
    expect(decoders.pending).toBe(0);
  });

  it("is given up after errors again and again", () => {
    const { decoders, dead, clock } = decoding();
    for (let i = 0; i < 4; i++) {
      decoders.take(video(i, true), 0);
      decoder().fail();
      clock.ms += 1000;
    }
    expect(dead).toEqual(["h264"]);
  });

  it("is not given up for an error now and then", () => {
    const { decoders, dead, clock } = decoding();
    for (let i = 0; i < 10; i++) {
      decoders.take(video(i, true), 0);
      decoder().fail();
      clock.ms += 30_000;
    }
    expect(dead).toEqual([]);
  });

  it("gives way to single pictures and comes back at a key frame", async () => {
    const { decoders, out, asked } = decoding();
    decoders.take(video(0, true), 0);
    decoder().output(1);
    decoders.take(frame(5), 0);
    decoders.take(video(6), 0); // refers to frames that never came
    decoders.take(video(7, true), 0);
    decoder().output(1);
    await settled();
    expect(numbers(out)).toEqual([0, 5, 7]);
    expect(asked.length).toBe(1);
  });

  it("does not wait for frames that the decoder swallowed", async () => {
    const { decoders, out } = decoding();
    decoders.take(video(0, true), 0);
    decoders.take(video(1), 0);
    decoders.take(video(2), 0);
    decoder().chunks.splice(1, 1);
    decoder().output(2);
    await settled();
    expect(numbers(out)).toEqual([0, 2]);
  });

  it("is copied when its decoder has lent enough, and goes back when it is closed", async () => {
    const { decoders, out } = decoding();
    for (let i = 0; i < 8; i++) decoders.take(video(i, i === 0), 0);
    decoder().output(8);
    await settled();
    expect(numbers(out)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    const copied = (): boolean[] => out.map(({ picture }) => (picture as unknown as FakePicture).name !== "video");
    expect(copied()).toEqual([false, false, false, false, false, true, true, true]);
    for (const { picture } of out) picture.close();
    decoders.take(video(8), 0);
    decoder().output(1);
    expect(copied().at(-1)).toBe(false);
  });

  it("does not pile up in a decoder that hangs", () => {
    const { decoders } = decoding();
    decoders.take(video(0, true), 0);
    for (let i = 1; i < 2000; i++) decoders.take(video(i), 0);
    expect(decoders.pending).toBeLessThan(250);
  });
});

describe("support", () => {
  it("prefers video, and says why there is none", async () => {
    const codecs = new FakeCodecs();
    expect((await supported(codecs, true)).formats[0]).toBe("h264");
    codecs.video = null;
    expect(await supported(codecs, false)).toMatchObject({ formats: ["jpeg", "webp", "raw"] });
    expect((await supported(codecs, false)).reason).toMatch(/https/);
    expect((await supported(codecs, true)).reason).not.toMatch(/https/);
  });

  it("does not take a decoder for one of H.264", async () => {
    const codecs = new FakeCodecs();
    const video = class extends FakeVideoDecoder {
      static override isConfigSupported = (): Promise<{ supported: boolean }> => Promise.reject(new TypeError("what?"));
    };
    codecs.video = video as unknown as FakeCodecs["video"];
    expect((await supported(codecs, true)).formats).not.toContain("h264");
  });
});

interface Item {
  readonly info: { number: number; chunk: number; input: number };
}

const item = (number: number, input = 0): Item => ({ info: { number, chunk: Math.floor(number / 12), input } });

/** Plays for `ms` on a 60 Hz display; returns when each frame was shown. */
class Player {
  now = 0;
  readonly shown: { number: number; at: number; jump: boolean }[] = [];
  readonly dropped: number[] = [];
  readonly playout: Playout<Item>;

  constructor(options: Partial<PlayoutOptions> = {}) {
    this.playout = new Playout<Item>(16, { ...PLAYOUT, ...options }, (old) => this.dropped.push(old.info.number));
  }

  chunk(first: number, input = 0): void {
    for (let i = first; i < first + 12; i++) this.playout.push(item(i, input), this.now);
  }

  play(ms: number): void {
    for (const end = this.now + ms; this.now < end; this.now += 1000 / 60) {
      const taken = this.playout.take(this.now);
      if (taken) this.shown.push({ number: taken.item.info.number, at: this.now, jump: taken.jump });
    }
  }

  gaps(from = 0): number[] {
    return this.shown.slice(from + 1).map(({ at }, i) => at - (this.shown[from + i]?.at ?? 0));
  }
}

describe("playout", () => {
  it("plays evenly at the stream's rate, and never lags behind", () => {
    const player = new Player();
    for (let i = 0; i < 20; i++) {
      player.chunk(i * 12);
      player.play(730); // a server that has 20 ms to spare
    }
    expect(Math.max(...player.gaps())).toBeLessThan(80);
    expect(player.shown.length).toBeGreaterThan(20 * 12 - 14);
    expect(player.playout.stalls.count).toBe(0);
  });

  it("finds a lead of its own with a server that has nothing to spare", () => {
    const player = new Player();
    for (let i = 0; i < 40; i++) {
      player.chunk(i * 12);
      player.play(750 + (i % 2 ? 25 : -25));
    }
    expect(Math.max(...player.gaps(120))).toBeLessThan(90);
    expect(player.shown.length).toBeGreaterThan(40 * 12 - 14);
  });

  it("begins when a little is queued, or has waited for as long", () => {
    const player = new Player({ leadMs: 200 });
    player.playout.push(item(0), 0);
    player.play(150);
    expect(player.shown).toEqual([]);
    player.play(100);
    expect(player.shown.length).toBe(1);
    const fast = new Player({ leadMs: 200 });
    fast.chunk(0);
    fast.play(20);
    expect(fast.shown.length).toBe(1);
  });

  it("drops older frames for a newer input, and says that it jumps", () => {
    const player = new Player();
    player.chunk(0);
    player.play(200);
    const before = player.shown.length;
    player.chunk(12, 7);
    player.play(20);
    expect(player.shown.at(-1)).toMatchObject({ number: 12, jump: true });
    expect(player.dropped.length).toBe(12 - before);
    expect(player.playout.dropped).toBe(player.dropped.length);
    player.play(500);
    expect(player.shown.slice(before + 1).some(({ jump }) => jump)).toBe(false);
  });

  it("shows the answer to an input with the next picture of the display", () => {
    const player = new Player();
    player.chunk(0);
    player.play(20);
    player.chunk(12, 7); // just after a frame was shown
    player.play(20);
    expect(player.shown.map(({ number }) => number)).toEqual([0, 12]);
  });

  it("drops nothing of the same chunk: a short press is seen, and then its end", () => {
    const player = new Player();
    player.chunk(0);
    player.play(100);
    const inputs = [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2];
    inputs.forEach((input, i) => player.playout.push(item(12 + i, input), player.now));
    player.play(1000);
    expect(player.shown.map(({ number }) => number).filter((number) => number >= 12)).toEqual([12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]);
  });

  it("drops what an older chunk made, also when the newer one's later frames show the input", () => {
    const player = new Player();
    player.chunk(0);
    player.play(100);
    const inputs = [0, 0, 0, 0, 5, 5];
    inputs.forEach((input, i) => player.playout.push(item(12 + i, input), player.now));
    player.play(1000);
    const shown = player.shown.map(({ number }) => number);
    expect(shown.slice(shown.indexOf(12))).toEqual([12, 13, 14, 15, 16, 17]);
    expect(player.playout.dropped).toBeGreaterThan(5);
    expect(player.shown.find(({ number }) => number === 12)?.jump).toBe(true);
  });

  it("drops nothing when told not to", () => {
    const player = new Player({ dropOld: false });
    player.chunk(0);
    player.chunk(12, 7);
    player.play(2000);
    expect(player.dropped).toEqual([]);
    expect(player.shown.length).toBe(24);
  });

  it("slows down to what a slow server makes, instead of stopping and starting", () => {
    const player = new Player();
    for (let i = 0; i < 12; i++) {
      player.chunk(i * 12);
      player.play(1500); // twice as long as it plays
    }
    const late = player.gaps(60);
    expect(Math.max(...late)).toBeLessThan(260);
    expect(player.playout.rate).toBeGreaterThan(7);
    expect(player.playout.rate).toBeLessThan(9);
  });

  it("comes back to full speed when the server does", () => {
    const player = new Player();
    let first = 0;
    for (const ms of [...Array<number>(6).fill(1500), ...Array<number>(20).fill(700)]) {
      player.chunk(first);
      player.play(ms);
      first += 12;
    }
    expect(player.playout.rate).toBeGreaterThanOrEqual(16);
  });

  it("does not drift slower together with a server that follows it", () => {
    // The server sends the next chunk whenever two frames are left.
    const player = new Player();
    let first = 0;
    for (let i = 0; i < 6000; i++) {
      if (player.playout.length <= 2) {
        player.chunk(first);
        first += 12;
      }
      player.play(1000 / 60);
    }
    expect(player.shown.length).toBeGreaterThan(100 * 16 * 0.98);
  });

  it("counts stalls and their length, but no pauses", () => {
    const player = new Player();
    player.chunk(0);
    player.play(2000);
    player.chunk(12);
    player.play(300);
    expect(player.playout.stalls.count).toBe(1);
    expect(player.playout.stalls.ms).toBeGreaterThan(1000);
    expect(player.playout.stalls.ms).toBeLessThan(1300);
    const paused = new Player();
    paused.chunk(0);
    paused.play(2000);
    paused.playout.rest();
    paused.chunk(12);
    paused.play(300);
    expect(paused.playout.stalls.count).toBe(0);
  });

  it("holds no more than a few seconds while nobody looks", () => {
    const player = new Player({ dropOld: false });
    for (let i = 0; i < 100; i++) player.chunk(i * 12);
    expect(player.playout.length).toBeLessThanOrEqual(64);
    expect(player.dropped[0]).toBe(0);
  });

  it("catches up when much is queued", () => {
    const player = new Player();
    for (let i = 0; i < 4; i++) player.chunk(i * 12);
    player.play(1000);
    expect(player.shown.length).toBeGreaterThanOrEqual(17);
  });
});
