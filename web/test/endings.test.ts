import { describe, expect, it } from "vitest";

import { socketUrl } from "../src/lib/connection";
import { explain, retryDelay, type Ended } from "../src/lib/endings";
import { bufferSize } from "../src/lib/painter";
import { requestedSize, type ModelInfo } from "../src/lib/server";

const LIVE: Ended = { code: 1006, reason: "", error: null, hadFrames: true };

describe("explain", () => {
  it("reconnects by itself only when a running world was lost", () => {
    expect(explain(LIVE)).toMatchObject({ title: "Connection lost", automatic: true });
    expect(explain({ ...LIVE, hadFrames: false })).toMatchObject({ title: "No connection", automatic: false, retryable: true });
  });

  it("names the cause the server gave", () => {
    const said = (content: string, detail: string | null = null) => ({ content, detail, code: null });
    const busy = { ...LIVE, code: 1008, error: said("another realtime session is already active"), hadFrames: false };
    expect(explain(busy)).toMatchObject({ title: "All seats are taken", retryable: true });
    const refused = { ...busy, code: 1000, error: said("invalid generate request", "the picture is empty") };
    expect(explain(refused)).toMatchObject({ detail: "the picture is empty", retryable: false });
    const broken = { ...LIVE, code: 1011, error: said("error during generate loop: out of memory") };
    expect(explain(broken)).toMatchObject({ detail: "out of memory", retryable: true });
    expect(explain({ ...busy, code: 1013, error: said("the server is not ready") }).title).toMatch(/not ready/);
    expect(explain({ ...LIVE, code: 1000, reason: "generation complete" }).title).toBe("The walk is complete");
    expect(explain({ ...LIVE, code: 1009, hadFrames: false }).title).toMatch(/too large/);
  });

  it("never ends without words", () => {
    for (let code = 1000; code < 5000; code++) {
      const { title, detail } = explain({ code, reason: "", error: null, hadFrames: true });
      expect(title && detail).toBeTruthy();
    }
  });

  it("gives up after a while", () => {
    expect(retryDelay(0)).toBe(500);
    expect(retryDelay(5)).toBe(8000);
    expect(retryDelay(6)).toBeNull();
  });
});

describe("addresses and sizes", () => {
  it("keeps the page's scheme and folder", () => {
    expect(socketUrl("http://host:30000/?a=1#b")).toBe("ws://host:30000/v1/realtime_video/generate");
    expect(socketUrl("https://host/worlds/")).toBe("wss://host/worlds/v1/realtime_video/generate");
  });

  it("asks for the model's size of the picture's orientation", () => {
    const model: ModelInfo = {
      id: "m", family: "pocket", fps: 16, sizes: [[160, 96], [96, 160]], notice: null,
    };
    expect(requestedSize(model, false)).toBe("160x96");
    expect(requestedSize(model, true)).toBe("96x160");
    expect(requestedSize(null, true)).toBe("480x832");
  });

  it("draws no more pixels than allowed and never fewer than the frame has", () => {
    const frame = { width: 160, height: 96 };
    const shown = { width: 1600, height: 960 };
    expect(bufferSize(frame, shown, { ratio: 1, maxSide: 960 })).toEqual({ width: 960, height: 576 });
    expect(bufferSize(frame, { width: 80, height: 48 }, { ratio: 1, maxSide: 960 })).toEqual(frame);
    expect(bufferSize({ width: 1280, height: 720 }, shown, { ratio: 1, maxSide: 960 })).toEqual({ width: 1280, height: 720 });
  });
});
