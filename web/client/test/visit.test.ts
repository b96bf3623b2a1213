import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { connect, resumable, type ConnectOptions, type Phase, type World } from "../src/index.js";
import type { ServerMessage } from "../src/protocol.js";
import { FakeBrowser, FakeCodecs, frame, OPENED, READY, settled, type FakeSocket } from "./fakes.js";

const IMAGE = new Uint8Array([1, 2, 3]);
const SEAT: ServerMessage = { type: "seat", world: "w1", viewer: "v1", token: "secret" };

beforeEach(() => {
  vi.stubGlobal("ResizeObserver", class { observe(): void {} disconnect(): void {} });
});
afterEach(() => {
  vi.unstubAllGlobals();
});

function canvas(): HTMLCanvasElement {
  const context = { drawImage: () => undefined, setTransform: () => undefined };
  const page = { createElement: () => ({ getContext: () => null }) };
  return {
    width: 0, height: 0, clientWidth: 832, clientHeight: 480, ownerDocument: page,
    getContext: (kind: string) => (kind === "2d" ? context : null),
  } as unknown as HTMLCanvasElement;
}

interface Visiting {
  readonly browser: FakeBrowser;
  readonly codecs: FakeCodecs;
  readonly world: World;
  readonly phases: Phase[];
}

async function visit(options: Partial<ConnectOptions> = {}, browser = new FakeBrowser()): Promise<Visiting> {
  const codecs = new FakeCodecs();
  const world = connect("http://host/v1/worlds/live", {
    start: { enter: { prompt: "a courtyard", image: IMAGE, seed: 7 } },
    environment: browser.environment,
    codecs,
    painter: "2d",
    ...options,
  });
  const phases: Phase[] = [];
  world.phase.subscribe((phase) => phases.push(phase));
  world.attach(canvas());
  await settled();
  return { browser, codecs, world, phases };
}

function welcome(socket: FakeSocket): void {
  socket.open();
  socket.say(READY);
}

async function live(options: Partial<ConnectOptions> = {}, browser = new FakeBrowser()): Promise<Visiting> {
  const found = await visit(options, browser);
  welcome(browser.socket);
  browser.socket.say(SEAT);
  browser.socket.say(OPENED);
  return found;
}

/** Frames arrive, are decoded, and the display shows them for a while. */
async function show({ browser }: Visiting, first: number, count: number, change: object = {}, paints = count * 5): Promise<void> {
  for (let i = first; i < first + count; i++) browser.socket.say(frame(i, change));
  await settled();
  for (let i = 0; i < paints; i++) browser.clock.paint(16);
}

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

describe("receipts", () => {
  it("say when an input was received, applied and shown", async () => {
    const found = await live();
    const { browser, world } = found;
    const receipt = world.prompt("rain", { blendChunks: 2 });
    expect(browser.socket.of("prompt")).toMatchObject([{ id: receipt.id, text: "rain", blend_chunks: 2 }]);
    browser.socket.say({ type: "received", id: receipt.id, server_ms: 5 });
    await expect(receipt.received).resolves.toMatchObject({ server_ms: 5 });
    browser.socket.say({ type: "applied", id: receipt.id, chunk: 1, latent_frame: 1, server_ms: 9 });
    await expect(receipt.applied).resolves.toMatchObject({ chunk: 1, latent_frame: 1 });
    await show(found, 0, 24);
    await expect(receipt.shown).resolves.toMatchObject({ frame: 16, chunk: 1 });
    expect(browser.socket.of("shown")).toMatchObject([{ id: receipt.id, frame: 16 }]);
  });

  it("reject with the server's error, and say so", async () => {
    const { browser, world } = await live();
    const refused: string[] = [];
    world.on("refused", (error) => refused.push(error.code));
    const receipt = world.prompt("x");
    browser.socket.say({ type: "error", id: receipt.id, code: "prompt", message: "too short", retryable: false, fatal: false });
    await expect(receipt.received).rejects.toMatchObject({ code: "prompt", id: receipt.id });
    expect(refused).toEqual(["prompt"]);
    expect(world.phase.value).toBe("live");
  });

  it("count a replaced press as applied where its successor is", async () => {
    const { browser, world } = await live();
    world.hands.press("x", "w");
    world.hands.lift("x");
    const [down, up] = browser.socket.of("keys");
    browser.socket.say({ type: "applied", id: up?.id ?? 0, chunk: 0, latent_frame: 2, server_ms: 1 });
    const records = world.probe().inputs();
    expect(records.map(({ id }) => id)).toEqual([down?.id, up?.id]);
  });
});

describe("a picture", () => {
  it("is painted at the stream's rate, and the server hears the playhead", async () => {
    const found = await live();
    for (const first of [0, 12, 24]) await show(found, first, 12, {}, 47); // 750 ms, as long as they play
    const painted = found.world.probe().frames();
    expect(painted.map(({ number }) => number)).toEqual([...Array(36).keys()]);
    const gaps = painted.slice(1).map((one, i) => one.paintedMs - (painted[i]?.paintedMs ?? 0));
    expect(gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length).toBeCloseTo(62.5, -1);
    const heads = found.browser.socket.of("playhead");
    expect(heads.length).toBeGreaterThan(8);
    expect(heads.at(-1)).toMatchObject({ stalls: 0 });
    expect(found.world.size.value).toEqual({ width: 832, height: 480 });
  });

  it.each([true, false])("measures its way in parts that add up, painted before its chunk's stages came: %s", async (paintedFirst) => {
    const found = await live();
    const { browser, world } = found;
    browser.clock.advance(20);
    // The server's clock is 500 ms ahead.
    for (const { at_ms } of browser.socket.of("ping")) browser.socket.say({ type: "pong", at_ms, server_ms: at_ms + 510 });
    world.hands.press("x", "w");
    const id = browser.socket.of("keys")[0]?.id ?? 0;
    const offset = world.probe().clock()?.offsetMs ?? 0;
    const made = browser.clock.now();
    browser.socket.say({ type: "received", id, server_ms: made + 5 + offset });
    browser.socket.say({ type: "applied", id, chunk: 0, latent_frame: 0, server_ms: made + 40 + offset });
    browser.clock.advance(300);
    const frames = { input: id, encoded_ms: made + 290 + offset };
    if (paintedFirst) await show(found, 0, 12, frames);
    else for (let i = 0; i < 12; i++) browser.socket.say(frame(i, frames));
    browser.socket.say({ type: "chunk", index: 0, frames: 12, input: id, stages: { denoise: 200, encode: 24, total: 260 }, bytes: 1, lead_ms: 0, real_time_factor: 0.5, misses: 0, levers: [] });
    if (!paintedFirst) await show(found, 12, 12, { ...frames, chunk: 1 });
    const record = world.probe().inputs().find((input) => input.id === id);
    expect(record?.parts).toMatchObject({ inbox: 5, wait: 35, denoise: 200, encode: 2, decode: 48, network: 10, client: 0 });
    const sum = Object.values(record?.parts ?? {}).reduce((total, part) => total + part, 0);
    expect(sum).toBeCloseTo(record?.totalMs ?? 0);
    browser.clock.paint(300);
    expect(world.figures.value.latency?.count).toBe(1);
    expect(world.figures.value.realTimeFactor).toBe(0.5);
  });
});

describe("spectators", () => {
  it("send no hands until they are given the controls", async () => {
    const { browser, world } = await visit({ start: { watch: "w1" } });
    welcome(browser.socket);
    expect(browser.socket.of("watch")).toMatchObject([{ world: "w1" }]);
    browser.socket.say({ type: "seat", world: "w1", viewer: "v2" });
    browser.socket.say({ ...OPENED, controls: false });
    world.hands.press("x", "w");
    expect(browser.socket.of("keys")).toEqual([]);
    world.askControl();
    browser.socket.say({ type: "control", yours: true, viewers: 2, asking: [] });
    world.hands.press("x", "w");
    expect(browser.socket.of("keys")).toMatchObject([{ held: ["w"] }]);
    browser.socket.say({ type: "control", yours: true, viewers: 3, asking: [] });
    expect(browser.socket.of("keys").length).toBe(1);
    browser.socket.say({ type: "control", yours: false, viewers: 3, asking: [] });
    expect(world.hands.held.value).toEqual([]);
    expect(resumable(browser.store)).toBeNull();
  });
});

describe("a decoder that fails for good", () => {
  it("is replaced by single pictures", async () => {
    const { browser, world, codecs } = await live();
    const { FakeVideoDecoder } = await import("./fakes.js");
    for (let i = 0; i < 4; i++) {
      browser.socket.say(frame(i, { format: "h264", key: true, codec: "avc1.42C01F" }));
      FakeVideoDecoder.made.at(-1)?.fail();
    }
    expect(browser.socket.of("key_frame").length).toBe(1);
    expect(browser.socket.of("settings")).toMatchObject([{ format: "jpeg" }]);
    browser.socket.say(frame(9));
    expect(world.decoder.value).toMatchObject({ format: "jpeg" });
    expect(world.decoder.value?.reason).toMatch(/cannot decode/);
    expect(codecs.video).not.toBeNull();
  });
});
