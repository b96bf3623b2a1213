import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Thumbnail, World } from "@worldline/client";

import { TimeMachine } from "../src/state/timemachine";
import { Toasts } from "../src/state/toasts";

/** Signals, events and wishes of a world, and nothing else. */
class FakeWorld {
  readonly asked: unknown[] = [];
  readonly moments = cell<readonly Thumbnail[]>([0, 1, 2].map(moment));
  readonly phase = cell("live");
  readonly hands = { motion: cell({ x: 0, z: 0, yaw: 0, pitch: 0 }) };
  readonly #listeners = new Map<string, (event: object) => void>();
  shown = deferred();
  answer = deferred();

  on(name: string, listener: (event: object) => void): () => void {
    this.#listeners.set(name, listener);
    return () => this.#listeners.delete(name);
  }

  say(name: string, event: object): void {
    this.#listeners.get(name)?.(event);
  }

  rewind(to: object): object {
    this.asked.push(to);
    return { shown: this.shown.promise };
  }

  branch(chunk?: number): object {
    this.asked.push({ branch: chunk });
    return { answer: this.answer.promise };
  }

  save(): object {
    return { answer: this.answer.promise };
  }
}

interface Deferred {
  readonly promise: Promise<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

function deferred(): Deferred {
  let resolve!: (value: unknown) => void;
  let reject!: (error: Error) => void;
  const promise = new Promise((done, failed) => ([resolve, reject] = [done, failed]));
  return { promise, resolve, reject };
}

function moment(chunk: number): Thumbnail {
  return { chunk, seconds: chunk, number: 12 * chunk, url: `blob:${chunk}` };
}

function cell<T>(first: T): { value: T; set(value: T): void; subscribe(listener: (value: T) => void): () => void } {
  const listeners = new Set<(value: T) => void>();
  return {
    value: first,
    set(value) {
      this.value = value;
      for (const listener of listeners) listener(value);
    },
    subscribe(listener) {
      listeners.add(listener);
      listener(this.value);
      return () => listeners.delete(listener);
    },
  };
}

function machine(open = true): { world: FakeWorld; time: TimeMachine; toasts: Toasts; opened: string[] } {
  const world = new FakeWorld();
  const toasts = new Toasts({ now: () => 0, later: () => undefined });
  const opened: string[] = [];
  const time = new TimeMachine(world as unknown as World, toasts, "key", (url) => opened.push(url) > 0 && open);
  time.listen();
  return { world, time, toasts, opened };
}

beforeEach(() => vi.stubGlobal("document", { baseURI: "http://host/sub/?probe" }));
afterEach(() => void vi.unstubAllGlobals());

describe("going back", () => {
  it("shows the moment until the first picture from there", () => {
    const { world, time } = machine();
    time.look(1);
    time.goBack();
    expect(world.asked).toEqual([{ chunk: 1 }]);
    expect(time.looked.value).toBeNull();
    world.say("painted", { number: 40 }); // of before
    expect(time.going.value?.to.chunk).toBe(1);
    world.say("rewound", { number: 48 });
    world.say("painted", { number: 47 });
    expect(time.going.value?.number).toBe(48);
    world.say("painted", { number: 48 });
    expect(time.going.value).toBeNull();
  });

  it("gives up when it is refused, and when the connection breaks", async () => {
    const { world, time } = machine();
    time.look(0);
    time.goBack();
    world.shown.reject(new Error("too far back"));
    await Promise.allSettled([world.shown.promise]);
    await Promise.resolve();
    expect(time.going.value).toBeNull();
    time.look(0);
    time.goBack();
    world.phase.set("reconnecting");
    expect(time.going.value).toBeNull();
  });

  it("does nothing at now, and looks ahead again when somebody walks or the moment is no more", () => {
    const { world, time } = machine();
    time.look(3);
    time.goBack();
    expect(world.asked).toEqual([]);
    time.look(2);
    world.hands.motion.set({ x: 0, z: 1, yaw: 0, pitch: 0 });
    expect(time.looked.value).toBeNull();
    time.look(2);
    world.moments.set(world.moments.value.slice(0, 2));
    expect(time.looked.value).toBeNull();
  });
});

describe("branching", () => {
  const branched = { url: "/#rejoin=a%2Bb", world: "w2", token: "a+b", chunk: 1 };

  it("opens this page, wherever it lies, with what leads into the branch", async () => {
    const { world, time, opened, toasts } = machine();
    time.look(1);
    world.answer.resolve(branched);
    await time.branch();
    expect(world.asked).toEqual([{ branch: 1 }]);
    expect(opened).toEqual(["http://host/sub/#rejoin=a%2Bb"]);
    expect([time.door.value, time.looked.value, time.branching.value]).toEqual([null, null, false]);
    expect(toasts.list.value[0]?.text).toMatch(/another tab/);
  });

  it("leaves a door where tabs are blocked", async () => {
    const { world, time } = machine(false);
    world.answer.resolve(branched);
    await time.branch();
    expect(time.door.value).toBe("http://host/sub/#rejoin=a%2Bb");
  });

  it("can be asked for again when it was refused", async () => {
    const { world, time, opened } = machine();
    world.answer.reject(new Error("all seats are taken"));
    await time.branch();
    expect([opened, time.branching.value]).toEqual([[], false]);
  });
});

describe("saving", () => {
  const saved = { url: "/v1/worlds/w/saved/1.wl", bytes: 3210, seconds: 12.34, chunks: 17 };

  it("fetches with the key, and says what came", async () => {
    const { world, time, toasts } = machine();
    const fetched = vi.fn(async (_url: string, _options: object) => new Response("file"));
    const link = { click: vi.fn(), href: "", download: "" };
    vi.stubGlobal("fetch", fetched);
    vi.stubGlobal("document", { baseURI: "http://host/", createElement: () => link });
    vi.useFakeTimers();
    world.answer.resolve(saved);
    await time.save();
    vi.useRealTimers();
    expect(fetched).toHaveBeenCalledWith(`http://host${saved.url}`, { headers: { Authorization: "Bearer key" } });
    expect(link.download).toMatch(/^worldline-.*\.wl$/);
    expect(toasts.list.value[0]?.text).toContain("12.3 s in 3 kB");
  });

  it("says when it cannot be fetched", async () => {
    const { world, time, toasts } = machine();
    vi.stubGlobal("fetch", async () => new Response("", { status: 404 }));
    world.answer.resolve(saved);
    await time.save();
    expect(toasts.list.value[0]).toMatchObject({ tone: "warning" });
  });
});
