import { describe, expect, it } from "vitest";

import { decode, encode, type Packable } from "../src/lib/msgpack";
import {
  cameraEvent,
  initMessage,
  MessageReader,
  promptEvent,
  splitPayload,
  WireError,
  type FrameHeader,
} from "../src/lib/wire";

const HEADER = {
  request_id: "s_1",
  chunk_index: 3,
  content_type: "image/jpeg",
  num_frames: 2,
  frame_batch_index: 0,
  num_frame_batches: 1,
  is_final_frame_batch: true,
  event_id: 7,
  width: 160,
  height: 96,
};

function header(changes: Partial<FrameHeader> = {}): FrameHeader {
  return {
    chunkIndex: 0,
    contentType: "image/jpeg",
    numFrames: 2,
    totalSize: 5,
    eventId: null,
    width: 2,
    height: 1,
    payloadLengths: [2, 3],
    ...changes,
  };
}

describe("what the page sends", () => {
  const options = { prompt: "p", firstFrame: new Uint8Array([1]), size: "160x96", seed: 42, quality: 90 };

  it("asks for encoded frames with a quality and for raw ones without", () => {
    const jpeg = decode(encode(initMessage({ ...options, format: "jpeg" }))) as object;
    expect(jpeg).toMatchObject({ type: "init", realtime_output_format: "jpeg", output_compression: 90 });
    const raw = decode(encode(initMessage({ ...options, format: "raw" }))) as object;
    expect(raw).toMatchObject({ realtime_output_format: "raw", realtime_output_pacing: true });
    expect(raw).not.toHaveProperty("output_compression");
  });

  it("sends held keys as state transitions", () => {
    expect(cameraEvent([{ actions: ["w", "j"], client_ts_ms: 5 }], 9)).toEqual({
      type: "event",
      kind: "camera_actions",
      payload: { mode: "state", transitions: [{ actions: ["w", "j"], client_ts_ms: 5 }] },
      event_id: 9,
    });
    expect(promptEvent("snow", 10)).toMatchObject({ kind: "prompt", payload: "snow", event_id: 10 });
  });
});

describe("MessageReader", () => {
  const lengths = { total_size: 5, payload_lengths: [2, 3] };

  it("reads a batch in one message", () => {
    const payload = new Uint8Array([1, 2, 3, 4, 5]);
    const message = new MessageReader().read(encode({ ...HEADER, ...lengths, type: "frame_batch", payload }));
    expect(message).toMatchObject({ type: "frames", header: { chunkIndex: 3, eventId: 7, width: 160 } });
    expect(message?.type === "frames" && [...message.payload]).toEqual([1, 2, 3, 4, 5]);
  });

  it("joins a split batch, whose second half may look like anything", () => {
    const reader = new MessageReader();
    const looksLikeAnError = encode({ type: "error", content: "no" });
    const size = { total_size: looksLikeAnError.length };
    expect(reader.read(encode({ ...HEADER, ...size, type: "frame_batch_header" }))).toBeNull();
    expect(reader.read(looksLikeAnError)).toMatchObject({ type: "frames" });
    expect(reader.read(looksLikeAnError)).toEqual({
      type: "error",
      error: { content: "no", code: null, detail: null },
    });
  });

  it("reads frames without an event id", () => {
    const bytes = encode({ ...HEADER, type: "frame_batch", event_id: null, total_size: 0, payload: new Uint8Array() });
    expect(new MessageReader().read(bytes)).toMatchObject({ header: { eventId: null } });
  });

  it("reads what an error expected and got", () => {
    const more = { code: "invalid_image", message: "the picture is empty", expected: "an image", got: "0 bytes" };
    expect(new MessageReader().read(encode({ type: "error", content: "invalid generate request", ...more }))).toEqual({
      type: "error",
      error: {
        content: "invalid generate request",
        code: "invalid_image",
        detail: "the picture is empty; expected an image; got 0 bytes",
      },
    });
  });

  it("reads chunk_stats", () => {
    const stats = { chunk_index: 2, num_frames: 4, chunk_total_ms: 210, scheduler_forward_ms: 190, pace_wait_ms: 0 };
    expect(new MessageReader().read(encode({ type: "chunk_stats", event_id: null, ...stats }))).toEqual({
      type: "stats",
      stats: { chunkIndex: 2, numFrames: 4, chunkTotalMs: 210, forwardMs: 190, paceWaitMs: 0 },
    });
  });

  it.each<[string, Packable]>([
    ["a type it does not know", { type: "hello" }],
    ["a list", [1]],
    ["a header without a size", { ...HEADER, type: "frame_batch_header" }],
    ["a payload of another length", { ...HEADER, type: "frame_batch", total_size: 3, payload: new Uint8Array(2) }],
    ["a payload that is no binary", { ...HEADER, type: "frame_batch", total_size: 1, payload: "x" }],
  ])("refuses %s", (_name, value) => {
    expect(() => new MessageReader().read(encode(value))).toThrow(WireError);
  });
});

describe("splitPayload", () => {
  it("cuts encoded frames by their lengths", () => {
    const parts = splitPayload(header(), new Uint8Array([1, 2, 3, 4, 5]));
    expect(parts.map((part) => [...part])).toEqual([[1, 2], [3, 4, 5]]);
  });

  it("cuts raw frames by their size", () => {
    const raw = header({ contentType: "application/x-raw-rgb", payloadLengths: null });
    expect(splitPayload(raw, new Uint8Array(12)).map((part) => part.length)).toEqual([6, 6]);
    expect(() => splitPayload(raw, new Uint8Array(13))).toThrow(WireError);
  });

  it("refuses lengths that do not add up", () => {
    expect(() => splitPayload(header({ payloadLengths: [2, 2] }), new Uint8Array(5))).toThrow(WireError);
    expect(() => splitPayload(header({ payloadLengths: [5] }), new Uint8Array(5))).toThrow(WireError);
  });
});
