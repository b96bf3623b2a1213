import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { resumable } from "../src/index.js";
import type { ServerMessage } from "../src/protocol.js";
import { Visit } from "../src/visit.js";
import { FakeBrowser, FakeCodecs, OPENED, READY, settled, type FakeSocket } from "./fakes.js";
import { IMAGE, live, SEAT, show, stubBrowser, visit, welcome } from "./visiting.js";

beforeEach(stubBrowser);
afterEach(() => {
  vi.unstubAllGlobals();
});

describe("entering", () => {
  it("says hello, waits for ready, then enters with the best format of both sides", async () => {
    const { browser, phases } = await visit();
    expect(browser.socket.url).toBe("ws://host/v1/worlds/live");
    expect(browser.socket.protocols).toEqual(["worldline.v1"]);
    browser.socket.open();
    expect(browser.socket.sent).toMatchObject([{ type: "hello", version: 1, formats: ["h264", "jpeg", "webp", "raw"] }]);
    browser.socket.say({ ...READY, formats: ["jpeg", "raw"] });
    expect(browser.socket.of("enter")).toMatchObject([{ prompt: "a courtyard", image: IMAGE, seed: 7, format: "jpeg" }]);
    browser.socket.say({ type: "queued", position: 2, ahead: 1, retry_after_ms: 3000 });
    browser.socket.say(SEAT);
    browser.socket.say(OPENED);
    expect(phases).toEqual(["connecting", "queued", "opening", "live"]);
  });

  it("gives the token as a sub-protocol, or in hello when it has other characters; never in the URL", async () => {
    const plain = (await visit({ token: "aB.9-_" })).browser.socket;
    expect(plain.protocols).toEqual(["worldline.v1", "bearer.aB.9-_"]);
    plain.open();
    expect(plain.of("hello")[0]?.token).toBeUndefined();
    const odd = (await visit({ token: "with space" })).browser.socket;
    expect(odd.protocols).toEqual(["worldline.v1"]);
    odd.open();
    expect(odd.of("hello")[0]?.token).toBe("with space");
    for (const { url } of [plain, odd]) expect(url).not.toMatch(/aB|space/);
  });

  it("ends with the server's error when it is refused", async () => {
    const { browser, world, phases } = await visit();
    welcome(browser.socket);
    browser.socket.say({ type: "error", code: "image", message: "no picture", retryable: false, fatal: false, expected: "JPEG", got: "PDF" });
    expect(phases.at(-1)).toBe("ended");
    expect(world.ended.value?.error).toMatchObject({ code: "image", expected: "JPEG", got: "PDF", retryable: false });
    expect(browser.socket.closedWith).not.toBeNull();
  });

  it("ends, to be tried again, when nobody is there", async () => {
    const { browser, world } = await visit();
    browser.socket.drop(1006);
    expect(world.ended.value?.error).toMatchObject({ code: "unreachable", retryable: true });
    world.retryNow();
    expect(browser.sockets.length).toBe(2);
    expect(world.phase.value).toBe("connecting");
    expect(world.ended.value).toBeNull();
  });

  it("refuses a server of another version, text, and bytes that are no message", async () => {
    for (const spoil of [
      (socket: FakeSocket) => socket.say({ ...READY, version: 2 }),
      (socket: FakeSocket) => socket.raw("hello"),
      (socket: FakeSocket) => socket.raw(new Uint8Array([0xc1]).buffer),
      (socket: FakeSocket) => socket.raw(new Uint8Array([0x01]).buffer),
    ]) {
      const { browser, world } = await visit();
      browser.socket.open();
      spoil(browser.socket);
      expect(world.ended.value?.error?.code).toMatch(/wrong_server|unreadable/);
      expect(world.ended.value?.error?.retryable).toBe(false);
    }
  });

  it("turns the picture at the world's own speed, also after coming back", async () => {
    const browser = new FakeBrowser();
    const options = { environment: browser.environment, codecs: new FakeCodecs(), painter: "2d" as const };
    const returned = new Visit("ws://host/v1/worlds/live", { start: { rejoin: "secret" }, ...options });
    await settled();
    welcome(browser.socket);
    browser.socket.say(SEAT);
    browser.socket.say({ ...OPENED, speed: 0.25 });
    expect(returned.screen.speed).toBe(0.25);
    returned.close();
  });

  it("ignores types of messages it does not know", async () => {
    const { browser, world } = await live();
    browser.socket.say({ type: "weather" } as unknown as ServerMessage);
    expect(world.phase.value).toBe("live");
  });

  it("says why it shows single pictures where the page is not secure", async () => {
    const browser = new FakeBrowser();
    const codecs = new FakeCodecs();
    codecs.video = null;
    const found = await live({ codecs, environment: { ...browser.environment, secure: false } }, browser);
    expect(browser.socket.of("enter")[0]?.format).toBe("jpeg");
    await show(found, 0, 4);
    expect(found.world.decoder.value).toMatchObject({ format: "jpeg", kind: "images" });
    expect(found.world.decoder.value?.reason).toMatch(/https/);
  });
});

describe("a lost connection", () => {
  it("comes back to the same world with its token, with all keys released", async () => {
    const { browser, world, phases } = await live();
    world.hands.press("x", "w");
    expect(browser.socket.of("keys").at(-1)?.held).toEqual(["w"]);
    browser.socket.drop(1006);
    expect(world.phase.value).toBe("reconnecting");
    expect(world.retry.value).toMatchObject({ attempt: 1 });
    expect(world.hands.held.value).toEqual([]);
    browser.clock.advance(1000);
    expect(browser.sockets.length).toBe(2);
    welcome(browser.socket);
    expect(browser.socket.of("rejoin")).toMatchObject([{ token: "secret", format: "h264" }]);
    expect(world.phase.value).toBe("reconnecting");
    browser.socket.say({ ...SEAT });
    browser.socket.say({ ...OPENED, first_frame: 120 });
    expect(phases.at(-1)).toBe("live");
    expect(world.retry.value).toBeNull();
    expect(browser.socket.of("keys").filter(({ held }) => held.length > 0)).toEqual([]);
  });

  it("sends nothing into a world that it has not rejoined yet", async () => {
    const { browser, world } = await live();
    browser.socket.drop(1006);
    browser.clock.advance(1000);
    welcome(browser.socket);
    world.hands.press("x", "w");
    await expect(world.prompt("rain").received).rejects.toMatchObject({ code: "not_open" });
    expect(browser.socket.sent.map(({ type }) => type)).toEqual(["hello", "rejoin", "ping"]);
  });

  it("goes on with higher input ids, also after a refresh of the page", async () => {
    const browser = new FakeBrowser();
    const first = await live({}, browser);
    for (let i = 0; i < 5; i++) first.world.pause();
    const before = Math.max(...browser.socket.of("pause").map(({ id }) => id));
    const found = resumable(browser.store);
    expect(found).toMatchObject({ token: "secret", world: "w1", url: "ws://host/v1/worlds/live" });
    const second = await live({ start: { rejoin: found?.token ?? "" } }, browser);
    expect(browser.socket.of("rejoin")[0]?.token).toBe("secret");
    second.world.pause();
    expect(browser.socket.of("pause")[0]?.id).toBeGreaterThan(before);
  });

  it("waits longer each time, and gives up after the grace time", async () => {
    const { browser, world } = await live({ reconnect: { firstMs: 100, maxMs: 1000, giveUpMs: 5000 } });
    const pauses: number[] = [];
    world.retry.subscribe((retry) => retry && pauses.push(retry.inMs));
    for (let i = 0; i < 40 && world.phase.value !== "ended"; i++) {
      browser.socket.drop(1006);
      browser.clock.advance(world.retry.value?.inMs ?? 0);
    }
    expect(pauses.slice(0, 5)).toEqual([75, 150, 300, 600, 750]);
    expect(world.ended.value?.error).toMatchObject({ code: "unreachable", retryable: true });
    expect(resumable(browser.store)).not.toBeNull(); // the world may still be there
  });

  it("does not come back when told so, and forgets the world that is gone", async () => {
    const { browser, world } = await live();
    browser.socket.say({ type: "error", code: "unknown_world", message: "gone", retryable: false, fatal: true });
    browser.socket.drop(4404);
    expect(world.ended.value?.error?.code).toBe("unknown_world");
    expect(resumable(browser.store)).toBeNull();
  });

  it("ends without an error after a bye", async () => {
    const { browser, world } = await live();
    browser.socket.say({ type: "bye", code: "idle", message: "nothing came for a minute" });
    browser.socket.drop(4410);
    expect(world.ended.value).toEqual({ code: "idle", message: "nothing came for a minute", error: null });
    browser.clock.advance(60_000);
    expect(browser.sockets.length).toBe(1);
  });

  it("is noticed by silence, but a tab that slept gets another chance", async () => {
    const { browser, world } = await live();
    browser.clock.ms += 120_000; // asleep: no timer ran, no message came
    browser.clock.advance(1);
    expect(world.phase.value).toBe("live");
    browser.clock.advance(60_000);
    expect(["reconnecting", "ended"]).toContain(world.phase.value);
  });

  it("is taken up at once when the page or the network wakes", async () => {
    const { browser, world } = await live({ reconnect: { firstMs: 60_000, maxMs: 60_000 } });
    for (const wake of browser.sleepers) wake();
    expect(browser.sockets.length).toBe(1);
    browser.socket.drop(1006);
    for (const wake of browser.sleepers) wake();
    expect(browser.sockets.length).toBe(2);
    world.leave();
    expect(browser.sleepers.size).toBe(0);
  });

  it("is given up when the server no longer keeps the world, by its own word", async () => {
    const { browser, world } = await visit();
    welcome(browser.socket);
    browser.socket.say({ ...READY, limits: { ...READY.limits, grace_ms: 5000 } });
    browser.socket.say(SEAT);
    browser.socket.say(OPENED);
    const begin = browser.clock.now();
    while (world.phase.value !== "ended") {
      browser.socket.drop(1006);
      browser.clock.advance(world.retry.value?.inMs ?? 0);
    }
    expect(browser.clock.now() - begin).toBeGreaterThan(5000);
    expect(browser.clock.now() - begin).toBeLessThan(20_000);
  });

  it("asks for the format that was chosen meanwhile", async () => {
    const { browser, world } = await live();
    world.settings({ format: "webp" });
    browser.socket.drop(1006);
    browser.clock.advance(1000);
    welcome(browser.socket);
    expect(browser.socket.of("rejoin")[0]?.format).toBe("webp");
  });

  it("rejects what was under way", async () => {
    const { browser, world } = await live();
    const receipt = world.prompt("rain");
    browser.socket.drop(1006);
    await expect(receipt.applied).rejects.toMatchObject({ code: "connection_lost", retryable: true });
  });
});

describe("leaving", () => {
  it("ends the world and forgets it", async () => {
    const { browser, world } = await live();
    world.leave();
    expect(browser.socket.sent.at(-1)?.type).toBe("leave");
    expect(world.ended.value).toMatchObject({ code: "left", error: null });
    expect(resumable(browser.store)).toBeNull();
    browser.clock.advance(60_000);
    expect(browser.sockets.length).toBe(1);
  });

  it("says why when it says that it is over", async () => {
    const { browser, world } = await live();
    const heard: unknown[] = [];
    world.phase.subscribe((phase) => heard.push([phase, world.ended.value?.code, world.retry.value?.attempt]));
    browser.socket.drop(1006);
    world.leave();
    expect(heard).toEqual([["live", undefined, undefined], ["reconnecting", undefined, 1], ["ended", "left", undefined]]);
  });

  it("can leave the world waiting", async () => {
    const { browser, world } = await live();
    world.disconnect();
    expect(browser.socket.of("leave")).toEqual([]);
    expect(resumable(browser.store)?.token).toBe("secret");
  });

  it("leaves no timer behind", async () => {
    const { browser, world } = await live();
    world.hands.press("x", "w");
    world.leave();
    browser.clock.advance(10_000);
    expect(browser.clock.timers).toBe(0);
  });
});
