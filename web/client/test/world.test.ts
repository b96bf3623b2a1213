import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { resumable } from "../src/index.js";
import { FakeVideoDecoder, frame, OPENED } from "./fakes.js";
import { live, show, stubBrowser, visit, welcome } from "./visiting.js";

beforeEach(stubBrowser);
afterEach(() => {
  vi.unstubAllGlobals();
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

  it("come in any order: shown before applied, and both are settled", async () => {
    const found = await live();
    const { browser, world } = found;
    const receipt = world.play({ poses: [Array<number>(12).fill(0), Array<number>(12).fill(0)], rate: 4 });
    await show(found, 0, 12, { input: receipt.id });
    await expect(receipt.shown).resolves.toMatchObject({ frame: 0 });
    browser.socket.say({ type: "applied", id: receipt.id, chunk: 0, latent_frame: 0, server_ms: 9 });
    await expect(receipt.applied).resolves.toMatchObject({ chunk: 0 });
    expect(browser.socket.of("shown").length).toBe(1);
    const unanswered = world.play({ poses: [Array<number>(12).fill(0), Array<number>(12).fill(0)], rate: 4 });
    await show(found, 12, 12, { input: unanswered.id });
    await unanswered.shown;
    browser.socket.drop(1006);
    await expect(unanswered.applied).rejects.toMatchObject({ code: "connection_lost" });
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
    browser.socket.say({ type: "chunk", index: 0, frames: 12, input: id, stages: { denoise: 200, encode: 24, total: 260 }, bytes: 1, lead_ms: 0, real_time_factor: 0.5, misses: 0, levers: [], place: 0 });
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
