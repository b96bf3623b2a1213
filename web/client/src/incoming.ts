/** Bytes to messages of the server. What the client relies on is checked, so that nothing later can trip. */

import { WorldError } from "./errors.js";
import { decode } from "./msgpack.js";
import type { ServerMessage } from "./protocol.js";

type Kind = "number" | "string" | "boolean" | "bytes" | "map" | "list" | "quad";
type Shape = Readonly<Record<string, Kind>>;

const SHAPES: Readonly<Record<ServerMessage["type"], Shape>> = {
  ready: { version: "number", model: "string", fps: "number", formats: "list", limits: "map" },
  seat: { world: "string", viewer: "string" },
  queued: { position: "number", ahead: "number", retry_after_ms: "number" },
  opened: {
    width: "number", height: "number", fps: "number", chunk: "number", latent_frames: "number", rig: "map",
    intrinsics: "quad", first_frame: "number", controls: "boolean", state: "string", prompt: "string",
  },
  state: { state: "string" },
  received: { id: "number", server_ms: "number" },
  applied: { id: "number", chunk: "number", latent_frame: "number", server_ms: "number" },
  frame: {
    number: "number", chunk: "number", latent_frame: "number", format: "string", width: "number", height: "number",
    payload: "bytes", input: "number", key: "boolean", yaw: "number", pitch: "number", encoded_ms: "number",
  },
  chunk: { index: "number", frames: "number", stages: "map", real_time_factor: "number", misses: "number" },
  pong: { at_ms: "number", server_ms: "number" },
  notice: { code: "string", message: "string", in_ms: "number" },
  control: { yours: "boolean", viewers: "number", asking: "list" },
  recording: { on: "boolean", url: "string" },
  traced: { on: "boolean", url: "string" },
  moment: { chunk: "number", seconds: "number", number: "number", picture: "bytes" },
  rewound: { chunk: "number", seconds: "number", number: "number", prompt: "string" },
  branched: { id: "number", world: "string", token: "string", url: "string", chunk: "number" },
  saved: { id: "number", url: "string", bytes: "number", chunks: "number", seconds: "number" },
  rtc_answer: { sdp: "string" },
  error: { code: "string", message: "string", retryable: "boolean" },
  bye: { code: "string", message: "string" },
};

/** Null for a type that this client does not know: servers may say more than it needs. Raises `WorldError`. */
export function readMessage(data: unknown): ServerMessage | null {
  if (!(data instanceof ArrayBuffer)) throw unreadable("a binary message", "text");
  const value = decode(new Uint8Array(data));
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw unreadable("a map", typeof value);
  const map = value as Record<string, unknown>;
  const type = map["type"];
  if (typeof type !== "string") throw unreadable("a message with a type", "none");
  if (!Object.hasOwn(SHAPES, type)) return null;
  for (const [field, kind] of Object.entries(SHAPES[type as ServerMessage["type"]])) {
    if (!fits(map[field], kind)) throw unreadable(`${type}.${field} as ${kind}`, describe(map[field]));
  }
  if (type === "opened" && !((map["fps"] as number) > 0 && (map["latent_frames"] as number) > 0)) {
    throw unreadable("opened with a rate", String(map["fps"]));
  }
  return value as ServerMessage;
}

function fits(value: unknown, kind: Kind): boolean {
  switch (kind) {
    case "number": return Number.isFinite(value);
    case "bytes": return value instanceof Uint8Array;
    case "list": return Array.isArray(value);
    case "quad": return Array.isArray(value) && value.length === 4 && value.every(Number.isFinite);
    case "map": return value !== null && typeof value === "object" && !Array.isArray(value);
    default: return typeof value === kind;
  }
}

function describe(value: unknown): string {
  return value === undefined ? "nothing" : value === null ? "null" : typeof value;
}

function unreadable(expected: string, got: string): WorldError {
  return new WorldError("unreadable", "the server sent what this client cannot read", { expected, got });
}
