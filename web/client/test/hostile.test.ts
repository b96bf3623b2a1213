/** A server that says anything at any time: the client ends with a typed error or goes on, and never trips. */

import fc from "fast-check";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { connect, type World } from "../src/index.js";
import type { ServerMessage } from "../src/protocol.js";
import { FakeBrowser, FakeCodecs, frame, OPENED, READY, settled } from "./fakes.js";
import { canvas, stubBrowser } from "./visiting.js";

beforeEach(stubBrowser);
afterEach(() => {
  vi.unstubAllGlobals();
});

const id = fc.integer({ min: 1, max: 12 });
const base: fc.Arbitrary<ServerMessage> = fc.oneof(
  fc.constant<ServerMessage>(READY),
  fc.constant<ServerMessage>(OPENED),
  fc.constant<ServerMessage>({ type: "seat", world: "w", viewer: "v", token: "t" }),
  fc.constant<ServerMessage>({ type: "seat", world: "w", viewer: "v" }),
  fc.record({ type: fc.constant("queued" as const), position: id, ahead: id, retry_after_ms: id }),
  fc.record({ type: fc.constant("state" as const), state: fc.constantFrom("queued", "opening", "live", "paused", "parked", "draining", "closed"), reason: fc.string() }),
  fc.record({ type: fc.constant("received" as const), id, server_ms: fc.double({ noNaN: true, noDefaultInfinity: true }) }),
  fc.record({ type: fc.constant("applied" as const), id, chunk: id, latent_frame: id, server_ms: fc.integer() }),
  fc.tuple(fc.nat(200), fc.record({ format: fc.constantFrom("h264", "jpeg", "raw"), key: fc.boolean(), input: fc.nat(12), yaw: fc.double({ noNaN: true, noDefaultInfinity: true }) })).map(([number, change]) => frame(number, change)),
  fc.record({ type: fc.constant("chunk" as const), index: id, frames: id, input: id, stages: fc.dictionary(fc.string(), fc.integer()), bytes: id, lead_ms: id, real_time_factor: id, misses: id, levers: fc.constant([]), place: id }),
  fc.record({ type: fc.constant("pong" as const), at_ms: fc.integer(), server_ms: fc.integer() }),
  fc.record({ type: fc.constant("control" as const), yours: fc.boolean(), viewers: id, asking: fc.constant([]) }),
  fc.record({ type: fc.constant("error" as const), code: fc.string(), message: fc.string(), retryable: fc.boolean(), fatal: fc.boolean(), ...{} }),
  fc.record({ type: fc.constant("error" as const), code: fc.string(), message: fc.string(), retryable: fc.boolean(), fatal: fc.constant(false), id, retry_after_ms: fc.integer() }),
  fc.record({ type: fc.constant("bye" as const), code: fc.string(), message: fc.string() }),
  fc.record({ type: fc.constant("notice" as const), code: fc.string(), message: fc.string(), in_ms: fc.integer() }),
);

/** Now and then a field is something else, or gone. */
const spoilt = fc.tuple(base, fc.option(fc.tuple(fc.nat(), fc.constantFrom(null, undefined, "x", -1, [], {}, true)), { freq: 6 })).map(([message, spoil]) => {
  if (!spoil) return message;
  const keys = Object.keys(message);
  return { ...message, [keys[spoil[0] % keys.length] as string]: spoil[1] } as ServerMessage;
});

const step = fc.oneof(
  { weight: 12, arbitrary: spoilt.map((say) => ({ say })) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 40 }).map((raw) => ({ raw })) },
  { weight: 1, arbitrary: fc.constantFrom(1000, 1006, 4404, 4503).map((drop) => ({ drop })) },
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 30_000 }).map((wait) => ({ wait })) },
  { weight: 4, arbitrary: fc.constantFrom("press", "lift", "turn", "prompt", "paint", "retry", "reset", "pause").map((act) => ({ act })) },
);

function act(world: World, browser: FakeBrowser, name: string): void {
  switch (name) {
    case "press": return world.hands.press("a", "w");
    case "lift": return world.hands.lift("a");
    case "turn": return world.hands.turn(3, 1);
    case "prompt": return void world.prompt("rain");
    case "paint": return browser.clock.paint(16);
    case "retry": return world.retryNow();
    case "reset": return void world.reset(1);
    case "pause": return void world.pause();
  }
}

it("never throws, never leaves its states, and leaves nothing running", async () => {
  await fc.assert(
    fc.asyncProperty(fc.boolean(), fc.array(step, { maxLength: 40 }), async (inWorld, steps) => {
      const browser = new FakeBrowser();
      const codecs = new FakeCodecs();
      const world = connect("ws://host/", { start: { enter: { prompt: "x", image: new Uint8Array(1) } }, environment: browser.environment, codecs, painter: "2d" });
      world.attach(canvas());
      await settled();
      browser.socket.open();
      const seat: ServerMessage = { type: "seat", world: "w", viewer: "v", token: "t" };
      if (inWorld) for (const message of [READY, seat, OPENED]) browser.socket.say(message);
      for (const one of steps) {
        if (browser.socket.readyState === 0) browser.socket.open();
        if ("say" in one) browser.socket.say(one.say);
        else if ("raw" in one) browser.socket.raw(one.raw.buffer);
        else if ("drop" in one) browser.socket.drop(one.drop);
        else if ("wait" in one) browser.clock.advance(one.wait);
        else act(world, browser, one.act);
        await settled();
        const ended = world.phase.value === "ended";
        expect(world.ended.value !== null).toBe(ended);
        expect(world.retry.value === null || world.phase.value === "reconnecting").toBe(true);
        if (ended) expect(world.hands.held.value).toEqual([]);
      }
      world.leave();
      browser.clock.advance(200_000);
      await settled();
      expect(world.phase.value).toBe("ended");
      expect(browser.clock.timers).toBe(0);
      expect(browser.sockets.filter(({ readyState }) => readyState < 3).length).toBe(0);
    }),
    { numRuns: 150 },
  );
});
