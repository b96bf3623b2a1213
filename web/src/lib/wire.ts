/**
 * Messages of `/v1/realtime_video/generate`. Every message is a MessagePack map, except the payload
 * half of a split frame batch: after a `frame_batch_header` the next message is the bytes themselves.
 */

import { decode, type Packable } from "./msgpack";

export const OUTPUT_FORMATS = ["jpeg", "webp", "raw"] as const;
export type OutputFormat = (typeof OUTPUT_FORMATS)[number];

export interface InitOptions {
  readonly prompt: string;
  readonly firstFrame: Uint8Array;
  readonly size: string;
  readonly seed: number;
  readonly format: OutputFormat;
  readonly quality: number;
}

export interface Transition {
  readonly actions: readonly string[];
  readonly client_ts_ms: number;
}

export interface FrameHeader {
  readonly chunkIndex: number;
  readonly contentType: string;
  readonly numFrames: number;
  readonly totalSize: number;
  readonly eventId: number | null;
  readonly width: number;
  readonly height: number;
  readonly payloadLengths: readonly number[] | null;
}

export interface ChunkStats {
  readonly chunkIndex: number;
  readonly numFrames: number;
  readonly chunkTotalMs: number;
  readonly forwardMs: number;
  readonly paceWaitMs: number;
}

export type ServerMessage =
  | { readonly type: "frames"; readonly header: FrameHeader; readonly payload: Uint8Array }
  | { readonly type: "stats"; readonly stats: ChunkStats }
  | { readonly type: "error"; readonly error: ServerError };

/** `content` is the protocol's own short text; `detail` says what was expected and what came. */
export interface ServerError {
  readonly content: string;
  readonly code: string | null;
  readonly detail: string | null;
}

/** The bytes on the wire are not what the protocol allows. */
export class WireError extends Error {
  override readonly name = "WireError";
}

export function initMessage(options: InitOptions): Packable {
  return {
    type: "init",
    prompt: options.prompt,
    first_frame: options.firstFrame,
    size: options.size,
    seed: options.seed,
    realtime_output_format: options.format,
    // The server holds frames back to the stream's own rate, so nothing piles up in front of the viewer.
    realtime_output_pacing: true,
    output_compression: options.format === "raw" ? undefined : options.quality,
  };
}

export function cameraEvent(transitions: readonly Transition[], eventId: number): Packable {
  const list = transitions.map((t) => ({ actions: [...t.actions], client_ts_ms: t.client_ts_ms }));
  return {
    type: "event",
    kind: "camera_actions",
    payload: { mode: "state", transitions: list },
    event_id: eventId,
  };
}

export function promptEvent(prompt: string, eventId: number): Packable {
  return { type: "event", kind: "prompt", payload: prompt, event_id: eventId };
}

/** Joins split frame batches; one reader per connection. */
export class MessageReader {
  #pending: FrameHeader | null = null;

  /** Returns the finished message, or null after the first half of a split batch. */
  read(bytes: Uint8Array): ServerMessage | null {
    const header = this.#pending;
    if (header) {
      this.#pending = null;
      return { type: "frames", header, payload: checkedSize(header, bytes) };
    }
    const map = asMap(decode(bytes));
    switch (map["type"]) {
      case "frame_batch_header":
        this.#pending = parseHeader(map);
        return null;
      case "frame_batch": {
        const found = parseHeader(map);
        return { type: "frames", header: found, payload: checkedSize(found, asBytes(map["payload"])) };
      }
      case "chunk_stats":
        return { type: "stats", stats: parseStats(map) };
      case "error":
        return { type: "error", error: parseError(map) };
      default:
        throw new WireError(`unknown message type ${JSON.stringify(map["type"])}`);
    }
  }
}

/** Cuts a payload into its frames: encoded images by their lengths, raw frames by their size. */
export function splitPayload(header: FrameHeader, payload: Uint8Array): Uint8Array[] {
  const lengths = header.payloadLengths ?? equalLengths(header, payload);
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const length of lengths) {
    parts.push(payload.subarray(at, at + length));
    at += length;
  }
  if (at !== payload.length || parts.length !== header.numFrames) {
    throw new WireError(`payload of ${payload.length} bytes does not hold ${header.numFrames} frames`);
  }
  return parts;
}

function equalLengths(header: FrameHeader, payload: Uint8Array): number[] {
  const raw = header.contentType === "application/x-raw-rgb";
  const length = raw ? header.width * header.height * 3 : payload.length;
  return Array.from({ length: header.numFrames }, () => length);
}

function parseHeader(map: Record<string, unknown>): FrameHeader {
  const lengths = map["payload_lengths"];
  const eventId = map["event_id"];
  return {
    chunkIndex: asCount(map, "chunk_index"),
    contentType: String(map["content_type"]),
    numFrames: asCount(map, "num_frames"),
    totalSize: asCount(map, "total_size"),
    eventId: typeof eventId === "number" ? eventId : null,
    width: asCount(map, "width"),
    height: asCount(map, "height"),
    payloadLengths: Array.isArray(lengths) ? lengths.map(Number) : null,
  };
}

function parseStats(map: Record<string, unknown>): ChunkStats {
  return {
    chunkIndex: asCount(map, "chunk_index"),
    numFrames: asCount(map, "num_frames"),
    chunkTotalMs: asCount(map, "chunk_total_ms"),
    forwardMs: asCount(map, "scheduler_forward_ms"),
    paceWaitMs: asCount(map, "pace_wait_ms"),
  };
}

function parseError(map: Record<string, unknown>): ServerError {
  const text = (key: string): string | null => (typeof map[key] === "string" ? map[key] : null);
  const [expected, got] = [text("expected"), text("got")];
  const parts = [text("message"), expected && `expected ${expected}`, got && `got ${got}`];
  const detail = parts.filter((part) => part).join("; ");
  return { content: text("content") ?? "unknown error", code: text("code"), detail: detail || null };
}

function checkedSize(header: FrameHeader, payload: Uint8Array): Uint8Array {
  if (payload.length === header.totalSize) return payload;
  throw new WireError(`frame payload: expected ${header.totalSize} bytes, got ${payload.length}`);
}

function asCount(map: Record<string, unknown>, key: string): number {
  const value = map[key];
  if (typeof value === "number" && Number.isFinite(value) && value >= 0) return value;
  throw new WireError(`${key}: expected a count, got ${JSON.stringify(value)}`);
}

function asMap(value: unknown): Record<string, unknown> {
  if (value !== null && typeof value === "object" && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw new WireError("message is not a map");
}

function asBytes(value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value;
  throw new WireError("payload is not binary");
}
