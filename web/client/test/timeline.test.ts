import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { ServerMessage } from "../src/protocol.js";
import { MOST, Timeline } from "../src/timeline.js";
import { frame, OPENED, settled } from "./fakes.js";
import { live, SEAT, show, stubBrowser, welcome } from "./visiting.js";

type Message<T extends ServerMessage["type"]> = Extract<ServerMessage, { type: T }>;

const moment = (chunk: number): Message<"moment"> => ({
  type: "moment", chunk, seconds: chunk * 0.75, number: chunk * 12, picture: new Uint8Array([chunk & 0xff]),
});
const rewound = (chunk: number, number: number): Message<"rewound"> => ({
  type: "rewound", chunk, seconds: chunk * 0.75, number, prompt: "a courtyard",
});

describe("thumbnails", () => {
  const free = vi.fn<(url: string) => void>();
  let made: string[];
  const timeline = (): Timeline => {
    made = [];
    free.mockClear();
    return new Timeline({ make: () => { made.push(`blob:${made.length}`); return made.at(-1) as string; }, free });
  };
  const chunks = (one: Timeline): number[] => one.moments.value.map(({ chunk }) => chunk);

  it("are kept in order; an earlier one voids those from its chunk on", () => {
    const one = timeline();
    for (const chunk of [0, 1, 3, 4]) one.add(moment(chunk));
    one.add(moment(3));
    expect(chunks(one)).toEqual([0, 1, 3]);
    expect(one.moments.value.at(-1)?.url).toBe("blob:4");
    one.add(moment(0)); // a reset
    expect(chunks(one)).toEqual([0]);
  });

  it("are cut, and nobody hears of a cut that takes none", () => {
    const one = timeline();
    for (const chunk of [0, 2, 4]) one.add(moment(chunk));
    const before = one.moments.value;
    one.cut(5);
    expect(one.moments.value).toBe(before);
    one.cut(2);
    expect(chunks(one)).toEqual([0]);
  });

  it("are bounded: every other of the older half goes", () => {
    const one = timeline();
    for (let chunk = 0; chunk < 3 * MOST; chunk++) {
      one.add(moment(chunk));
      expect(one.moments.value.length).toBeLessThanOrEqual(MOST);
    }
    expect(one.moments.value.at(-1)?.chunk).toBe(3 * MOST - 1);
    expect(one.moments.value[0]?.chunk).toBe(0);
    expect(chunks(one)).toEqual(chunks(one).toSorted((a, b) => a - b));
  });

  it("give every address back once, at the latest when the visit ends", () => {
    const one = timeline();
    for (const chunk of [0, 1, 2]) one.add(moment(chunk));
    one.cut(1);
    expect(free).not.toHaveBeenCalled(); // a page may be about to draw them
    one.add(moment(1));
    one.clear();
    one.close();
    expect(free.mock.calls.map(([url]) => url).toSorted()).toEqual(made.toSorted());
  });
});

describe("a visit through time", () => {
  beforeEach(stubBrowser);
  afterEach(() => {
    vi.unstubAllGlobals();
  });

  it("asks to go back by chunk or by seconds", async () => {
    const { browser, world } = await live();
    world.rewind({ chunk: 4 });
    world.rewind({ seconds: 10 });
    expect(browser.socket.of("rewind")).toMatchObject([{ chunk: 4 }, { seconds: 10 }]);
    expect(browser.socket.of("rewind")[0]).not.toHaveProperty("seconds");
  });

  it("shows nothing that was made before the walk went back", async () => {
    const visiting = await live();
    const { browser, world, codecs } = visiting;
    const heard: unknown[] = [];
    const painted: number[] = [];
    world.on("rewound", (message) => heard.push(message.chunk));
    await show(visiting, 0, 6);
    world.on("painted", ({ number }) => painted.push(number));
    await show(visiting, 6, 6, {}, 0); // they wait in the queue
    browser.socket.say(rewound(1, 14));
    await show(visiting, 12, 2); // under way when it went back
    expect(painted).toEqual([]);
    expect(browser.socket.of("playhead").at(-1)).toMatchObject({ frame: 13, lead_ms: 0 });
    await show(visiting, 14, 4);
    expect(painted).toEqual([14, 15, 16, 17]);
    expect(heard).toEqual([1]);
    expect(codecs.pictures.slice(6, 14).every(({ closed }) => closed)).toBe(true);
  });

  it("records no way that was taken back", async () => {
    const { browser, world } = await live();
    const pose = (x: number): number[] => [1, 0, 0, x, 0, 1, 0, 0, 0, 0, 1, 0];
    const say = (index: number, place: number): void => {
      browser.socket.say(frame(12 * index, { pose: pose(index) }));
      browser.socket.say({
        type: "chunk", levers: [], index, place, frames: 12, input: 0, stages: {}, bytes: 0, lead_ms: 0, real_time_factor: 1, misses: 0,
      });
    };
    const recorder = world.recorder();
    recorder.start();
    for (let i = 0; i < 5; i++) say(i, i);
    browser.socket.say(rewound(2, 60));
    browser.socket.say(frame(48, { pose: pose(99) })); // it was on its way
    say(5, 2);
    say(6, 3);
    browser.socket.say(rewound(3, 84));
    say(7, 3);
    expect(recorder.stop().poses.map((row) => row[3])).toEqual([0, 1, 5, 7]);
  });

  it("begins its thumbnails anew with a connection, a reset, and other hands", async () => {
    const { browser, world } = await live();
    const fill = (): void => [0, 1, 2].forEach((chunk) => browser.socket.say(moment(chunk)));
    const count = (): number => world.moments.value.length;
    fill();
    browser.socket.say(rewound(1, 20));
    expect(count()).toBe(1);
    const reset = world.reset();
    expect(count()).toBe(1);
    browser.socket.say({ type: "received", id: reset.id, server_ms: 0 });
    await settled();
    expect(count()).toBe(0);
    fill();
    browser.socket.say({ type: "control", yours: true, viewers: 2, asking: [] });
    expect(count()).toBe(3); // they came before the message that says so
    browser.socket.say({ type: "control", yours: false, viewers: 2, asking: [] });
    expect(count()).toBe(0);
    fill();
    browser.socket.drop(1006);
    expect(count()).toBe(3); // the page still shows them
    browser.clock.advance(1000);
    welcome(browser.socket);
    browser.socket.say(SEAT);
    browser.socket.say(OPENED);
    expect(count()).toBe(0);
  });

  it("numbers pictures anew after coming back", async () => {
    const visiting = await live();
    const { browser, world } = visiting;
    browser.socket.say(rewound(0, 500));
    browser.socket.drop(1006);
    browser.clock.advance(1000);
    welcome(browser.socket);
    browser.socket.say(OPENED);
    const painted: number[] = [];
    world.on("painted", ({ number }) => painted.push(number));
    await show(visiting, 0, 3);
    expect(painted).toEqual([0, 1, 2]);
  });

  it("answers a branch and a saved world to who asked", async () => {
    const { browser, world } = await live();
    const [branch, save] = [world.branch(3), world.save()];
    expect(browser.socket.of("branch")).toMatchObject([{ id: branch.id, chunk: 3 }]);
    const heard: string[] = [];
    world.on("saved", ({ url }) => heard.push(url));
    world.on("branched", ({ url }) => heard.push(url));
    browser.socket.say({ type: "saved", id: save.id, url: "/v1/w.wl", bytes: 900, chunks: 4, seconds: 3 });
    browser.socket.say({ type: "branched", id: branch.id, world: "w2", token: "other", url: "/#rejoin=other", chunk: 3 });
    expect(await save.answer).toMatchObject({ url: "/v1/w.wl", bytes: 900 });
    expect(await branch.answer).toMatchObject({ world: "w2", token: "other" });
    expect(heard).toEqual(["/v1/w.wl", "/#rejoin=other"]);
  });

  it("rejects what is refused, late or at once, and what is never answered", async () => {
    const { browser, world } = await live();
    const refused = world.branch();
    browser.socket.say({ type: "received", id: refused.id, server_ms: 0 });
    browser.socket.say({ type: "applied", id: refused.id, chunk: 0, latent_frame: 0, server_ms: 0 });
    browser.socket.say({ type: "error", id: refused.id, code: "capacity", message: "all seats are taken", retryable: true, fatal: false });
    await expect(refused.answer).rejects.toMatchObject({ code: "capacity" });
    const cut = world.save();
    browser.socket.drop(1006);
    await expect(cut.answer).rejects.toMatchObject({ code: "connection_lost" });
    await expect(world.save().answer).rejects.toMatchObject({ code: "not_open" });
  });
});
