/** What `connect` is told, and what holds where it is told nothing. */

import type { BackoffOptions } from "./backoff.js";
import type { Environment, Store } from "./environment.js";
import type { Codecs } from "./media/codecs.js";
import type { PlayoutOptions } from "./media/playout.js";
import type { Enter, Format } from "./protocol.js";
import type { PainterKind } from "./view/drawing.js";

/** A world to enter; `format` is this package's to choose. */
export type EnterOptions = Omit<Enter, "type" | "format">;

export type Start =
  | { readonly enter: EnterOptions }
  | { readonly watch: string }
  | { readonly rejoin: string };

export interface TimewarpOptions {
  /** How much the picture is enlarged, so that a small turn shows no edge. */
  readonly overscan: number;
  /** The largest turn, in degrees. */
  readonly maxDegrees: number;
}

const TIMEWARP: TimewarpOptions = { overscan: 0.04, maxDegrees: 12 };

export interface ConnectOptions {
  readonly start: Start;
  /** The server's key, if it asks for one. */
  readonly token?: string | null;
  /** How pictures come; WebRTC where the server and this browser can, else the socket. Default: the socket. */
  readonly transport?: "websocket" | "webrtc";
  /** Best first; what this browser decodes where nothing is said. */
  readonly formats?: readonly Format[];
  /** Keeps the rejoin token; null for none. `sessionStorage` where nothing is said. */
  readonly storage?: Store | null;
  /** False ends the world's connection at its first break. */
  readonly reconnect?: BackoffOptions | false;
  readonly playout?: Partial<PlayoutOptions>;
  readonly timewarp?: boolean | Partial<TimewarpOptions>;
  readonly painter?: "auto" | PainterKind;
  /** A name for the server's logs. */
  readonly client?: string;
  readonly environment?: Environment;
  readonly codecs?: Codecs;
}

/** `http:` and `https:` become `ws:` and `wss:`; fragment and user are cut off. */
export function socketUrl(url: string | URL): string {
  const found = new URL(url);
  if (found.protocol === "http:") found.protocol = "ws:";
  if (found.protocol === "https:") found.protocol = "wss:";
  found.hash = "";
  return found.href;
}

export function timewarpOptions(wish: boolean | Partial<TimewarpOptions> | undefined): TimewarpOptions | null {
  if (wish === false) return null;
  return { ...TIMEWARP, ...(typeof wish === "object" ? wish : {}) };
}
