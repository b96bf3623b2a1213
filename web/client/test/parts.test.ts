import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { Backoff } from "../src/backoff.js";
import { ClockSync } from "../src/clock.js";
import { WorldError } from "../src/errors.js";
import { readMessage } from "../src/incoming.js";
import { FrameMeter, RateMeter, Samples } from "../src/meters.js";
import { encode, type Packable } from "../src/msgpack.js";
import { socketUrl } from "../src/options.js";
import { SERVER_TYPES } from "../src/protocol.js";
import { SeatBook } from "../src/seatbook.js";
import { Cell, Emitter } from "../src/signals.js";
import { FakeStore, frame, OPENED, READY } from "./fakes.js";

describe("the server's clock", () => {
  it("is known to half a round trip, by the quickest answer", () => {
    const delay = fc.double({ min: 0, max: 400, noNaN: true });
    fc.assert(
      fc.property(fc.array(fc.tuple(delay, delay), { minLength: 1, maxLength: 60 }), fc.integer({ min: -1e9, max: 1e9 }), (ways, offset) => {
        const clock = new ClockSync();
        let now = 0;
        for (const [there, back] of ways) {
          clock.pong(now, now + there + offset, now + there + back);
          now += 1000;
        }
        const state = clock.state;
        expect(Math.abs((state?.offsetMs ?? 0) - offset)).toBeLessThanOrEqual((state?.rttMs ?? 0) / 2 + 1e-6);
        expect(state?.rttMs).toBeCloseTo(Math.min(...ways.slice(-24).map(([there, back]) => there + back)));
      }),
    );
  });

  it("is unknown before an answer, and heeds no nonsense", () => {
    const clock = new ClockSync();
    clock.pong(10, Number.NaN, 20);
    clock.pong(10, 5, 9);
    expect(clock.state).toBeNull();
    expect(clock.toLocal(5)).toBeNull();
  });

  it("forgets old answers, because clocks drift", () => {
    const clock = new ClockSync();
    clock.pong(0, 1000, 1);
    clock.pong(200_000, 201_100, 200_050);
    expect(clock.state).toMatchObject({ samples: 1, rttMs: 50 });
  });
});

describe("backoff", () => {
  it("doubles, is spread, heeds the server, and ends", () => {
    const backoff = new Backoff({ firstMs: 100, maxMs: 400, giveUpMs: 1000 }, () => 0);
    expect([0, 1, 2, 3, 4].map(() => backoff.next(0))).toEqual([50, 100, 200, 200, 200]);
    expect(backoff.next(500, 3000)).toBe(3000);
    expect(backoff.next(1001)).toBeNull();
    backoff.reset();
    expect(backoff.next(5000)).toBe(50);
  });
});

describe("addresses", () => {
  it.each([
    ["http://host/v1/worlds/live", "ws://host/v1/worlds/live"],
    ["https://host:8/a?b=c#d", "wss://host:8/a?b=c"],
    ["wss://host/a", "wss://host/a"],
  ])("%s", (given, expected) => expect(socketUrl(given)).toBe(expected));
});

describe("the book of seats", () => {
  const seat = { url: "ws://h/", token: "t", world: "w" };

  it("never gives an id twice in one world, over any refreshes", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 3000 }), { minLength: 1, maxLength: 6 }), (visits) => {
        const store = new FakeStore();
        const ids: number[] = [];
        for (const count of visits) {
          const book = new SeatBook(store);
          book.sit(seat);
          for (let i = 0; i < count; i++) ids.push(book.nextId());
        }
        expect(ids.every((id, i) => i === 0 || id > (ids[i - 1] as number))).toBe(true);
      }),
    );
  });

  it("goes on behind ids of another visitor, and begins anew in another world", () => {
    const store = new FakeStore();
    const book = new SeatBook(store);
    book.sit(seat);
    book.used(500);
    expect(book.nextId()).toBe(501);
    const other = new SeatBook(store);
    other.sit({ ...seat, world: "w2", token: "t2" });
    expect(other.nextId()).toBe(1);
  });

  it("survives a store that is full, forbidden or filled by others", () => {
    const forbidden = {
      getItem: () => { throw new Error("no"); },
      setItem: () => { throw new Error("no"); },
      removeItem: () => { throw new Error("no"); },
    };
    const book = new SeatBook(forbidden);
    book.sit(seat);
    expect(book.nextId()).toBe(1);
    book.forget();
    for (const noise of ["", "null", "7", "{}", '{"url":1,"token":"t","world":"w","ids":1}', "not json"]) {
      const store = new FakeStore();
      store.setItem("worldline.seat", noise);
      expect(new SeatBook(store).read()).toBeNull();
    }
  });
});

describe("signals", () => {
  it("tell at once, on each change, and not for nothing", () => {
    const cell = new Cell(1);
    const heard: number[] = [];
    const stop = cell.subscribe((value) => heard.push(value));
    cell.value = 1;
    cell.value = 2;
    stop();
    cell.value = 3;
    expect(heard).toEqual([1, 2]);
  });

  it("keep a listener's error from the others", async () => {
    const errors: unknown[] = [];
    const keep = (error: unknown): void => void errors.push(error);
    const before = process.listeners("uncaughtException");
    process.removeAllListeners("uncaughtException");
    process.on("uncaughtException", keep);
    const events = new Emitter<{ x: number }>();
    const heard: number[] = [];
    events.on("x", () => { throw new Error("a page's mistake"); });
    events.on("x", (value) => heard.push(value));
    events.emit("x", 5);
    await new Promise((resolve) => setTimeout(resolve, 0));
    process.removeAllListeners("uncaughtException");
    for (const listener of before) process.on("uncaughtException", listener);
    expect(heard).toEqual([5]);
    expect(errors.map(String)).toEqual(["Error: a page's mistake"]);
  });
});

describe("reading messages", () => {
  const read = (message: unknown): unknown => readMessage(encode(message as Packable).buffer);

  it("knows every type of the wire", () => {
    for (const type of SERVER_TYPES) expect(() => read({ type })).toThrow(WorldError);
    expect(read({ type: "of tomorrow" })).toBeNull();
    expect(read({ ...READY, extra: 1 })).toMatchObject({ model: "pocket" });
  });

  it("refuses a message without what the client relies on", () => {
    const whole = [READY, OPENED, frame(1)] as unknown as Record<string, unknown>[];
    for (const message of whole) expect(read(message)).not.toBeNull();
    for (const [message, field] of [[OPENED, "fps"], [OPENED, "intrinsics"], [frame(1), "payload"], [frame(1), "yaw"], [READY, "limits"]] as const) {
      for (const wrong of [undefined, null, "x", Number.NaN, [1]]) {
        expect(() => read({ ...message, [field]: wrong })).toThrow(/cannot read/);
      }
    }
    expect(() => read({ ...OPENED, fps: 0 })).toThrow(WorldError);
  });
});

describe("meters", () => {
  it("give nearest-rank percentiles of the newest samples", () => {
    const samples = new Samples();
    expect(samples.spread()).toBeNull();
    for (let i = 1; i <= 100; i++) samples.add(i);
    expect(samples.spread()).toEqual({ count: 100, last: 100, p50: 50, p95: 95, p99: 99 });
    for (let i = 0; i < 3000; i++) samples.add(7);
    expect(samples.spread()).toMatchObject({ p50: 7, p99: 7, count: 3100 });
  });

  it("count frames per second, and let the figure fall in a stall", () => {
    const meter = new FrameMeter();
    for (let i = 0; i <= 32; i++) meter.painted(i * 62.5);
    expect(meter.fps(2000)).toBeCloseTo(16);
    expect(meter.fps(3000)).toBeLessThan(12);
    expect(meter.longestGapMs).toBeCloseTo(62.5);
    meter.rest();
    meter.painted(9000);
    expect(meter.longestGapMs).toBeCloseTo(62.5);
  });

  it("count bits", () => {
    const meter = new RateMeter();
    for (let i = 0; i <= 32; i++) meter.add(1000, i * 62.5);
    expect(meter.kbps(2000)).toBeCloseTo(132);
    expect(meter.kbps(9000)).toBeNull();
  });
});
