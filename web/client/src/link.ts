/**
 * One socket from `hello` to its close: sub-protocol, token, heartbeat and clock. It sends `first`
 * (enter, rejoin or watch) as soon as the server is `ready`, hands on every message in order, and
 * reports its end exactly once. Knows nothing of worlds or reconnects.
 */

import type { ClockSync } from "./clock.js";
import type { Environment, SocketLike } from "./environment.js";
import { asWorldError, WorldError } from "./errors.js";
import { readMessage } from "./incoming.js";
import { encode, type Packable } from "./msgpack.js";
import { SUBPROTOCOL, VERSION } from "./protocol.js";
import type { ClientMessage, Format, Ready, ServerMessage } from "./protocol.js";

const CONNECT_TIMEOUT_MS = 15_000;
const MAX_BEAT_MS = 5000;
const FIRST_BEATS = 6; // quick ones, so that the clock stands soon
const FIRST_BEAT_MS = 150;
const SILENCE = 2; // heartbeats without a word until the connection counts as dead
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/; // what a sub-protocol may hold (RFC 9110, token)

export interface LinkOptions {
  readonly url: string;
  readonly token: string | null;
  readonly client: string;
  readonly formats: readonly Format[];
  /** Sent when the server is ready; called then, so that it can heed the server's limits. */
  first(ready: Ready): ClientMessage;
}

export interface LinkEvents {
  ready(ready: Ready): void;
  message(message: ServerMessage, receivedMs: number): void;
  /** `error` is null after a close that both sides wanted. */
  end(error: WorldError | null): void;
}

export class Link {
  readonly #options: LinkOptions;
  readonly #events: LinkEvents;
  readonly #environment: Environment;
  readonly #clock: ClockSync;
  readonly #socket: SocketLike;
  #ready: Ready | null = null;
  #failure: WorldError | null = null;
  #bye = false;
  #over = false;
  #lastHeard: number;
  #lastSent = 0;
  #beats = 0;
  #cancel: () => void;

  constructor(options: LinkOptions, events: LinkEvents, shared: { environment: Environment; clock: ClockSync }) {
    this.#options = options;
    this.#events = events;
    this.#environment = shared.environment;
    this.#clock = shared.clock;
    this.#lastHeard = this.#environment.now();
    const { token } = options;
    const protocols = token !== null && TOKEN.test(token) ? [SUBPROTOCOL, `bearer.${token}`] : [SUBPROTOCOL];
    this.#socket = this.#environment.socket(options.url, protocols);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => this.#hello();
    this.#socket.onmessage = (event) => this.#receive(event.data);
    this.#socket.onclose = ({ code, reason }) => this.#closed(code, reason);
    this.#cancel = this.#environment.after(CONNECT_TIMEOUT_MS, () => {
      this.abort(new WorldError("unreachable", "the server did not answer", { retryable: true }));
    });
  }

  /** Bytes that the browser has not sent yet. */
  get buffered(): number {
    return this.#socket.bufferedAmount;
  }

  /** True between `ready` and the end. */
  get open(): boolean {
    return this.#ready !== null && !this.#over && this.#socket.readyState === 1;
  }

  /** Returns false when the connection does not stand; the message is then gone. */
  send(message: ClientMessage): boolean {
    if (!this.open) return false;
    this.#write(message);
    return true;
  }

  /** Ends the connection and reports `error` as the cause, without waiting for the other side. */
  abort(error: WorldError | null): void {
    this.#failure = error;
    try {
      this.#socket.close(error === null ? 1000 : 4000, error?.code ?? "closed");
    } catch {
      // A socket that was never open may refuse; it is forgotten either way.
    }
    this.#end(error);
  }

  /** Says something when nothing was said for a while: timers sleep in a hidden tab, messages do not. */
  keepAlive(): void {
    const now = this.#environment.now();
    if (this.open && now - this.#lastSent > this.#beatMs) this.#ping(now);
  }

  #hello(): void {
    const { token, client, formats } = this.#options;
    const inHello = token !== null && !TOKEN.test(token);
    this.#write({ type: "hello", version: VERSION, client, formats, ...(inHello ? { token } : {}) });
  }

  #write(message: ClientMessage): void {
    this.#lastSent = this.#environment.now();
    this.#socket.send(encode(message as unknown as Packable));
  }

  #receive(data: unknown): void {
    if (this.#over) return;
    const now = this.#environment.now();
    this.#lastHeard = now;
    try {
      const message = readMessage(data);
      if (message) this.#handle(message, now);
    } catch (error) {
      this.abort(asWorldError(error, "unreadable"));
    }
  }

  #handle(message: ServerMessage, now: number): void {
    if (message.type === "ready") this.#start(message);
    else if (message.type === "pong") this.#clock.pong(message.at_ms, message.server_ms, now);
    else if (message.type === "bye") this.#bye = true;
    else if (message.type === "error" && message.fatal) this.#failure = WorldError.of(message);
    this.#events.message(message, now);
    this.keepAlive();
  }

  #start(ready: Ready): void {
    if (ready.version !== VERSION) {
      throw new WorldError("wrong_server", "the server speaks another version of the protocol", {
        expected: String(VERSION),
        got: String(ready.version),
      });
    }
    this.#ready = ready;
    this.#cancel();
    this.#events.ready(ready);
    if (this.#over) return;
    this.#write(this.#options.first(ready));
    this.#beat();
  }

  get #beatMs(): number {
    const wish = this.#ready?.limits.heartbeat_ms ?? 0;
    return wish > 0 ? Math.min(MAX_BEAT_MS, wish / 2) : MAX_BEAT_MS;
  }

  #beat(): void {
    const now = this.#environment.now();
    const pause = this.#beats < FIRST_BEATS ? FIRST_BEAT_MS : this.#beatMs;
    this.#beats++;
    this.#ping(now);
    this.#cancel = this.#environment.after(pause, () => this.#check(now + pause));
  }

  /** Dead when a ping went unanswered; a late timer (the tab slept) gives another chance first. */
  #check(due: number): void {
    const now = this.#environment.now();
    const limit = Math.max(SILENCE * this.#beatMs, 2 * MAX_BEAT_MS);
    const slept = now - due > this.#beatMs;
    if (!slept && now - this.#lastHeard > limit) {
      this.abort(new WorldError("connection_lost", "the server fell silent", { retryable: true }));
      return;
    }
    if (slept) this.#lastHeard = Math.max(this.#lastHeard, now - limit + 2 * this.#beatMs);
    this.#beat();
  }

  #ping(now: number): void {
    if (this.open) this.#write({ type: "ping", at_ms: now });
  }

  #closed(code: number, reason: string): void {
    if (this.#bye && this.#failure === null) return this.#end(null);
    this.#end(this.#failure ?? closeError(code, reason, this.#ready !== null));
  }

  #end(error: WorldError | null): void {
    if (this.#over) return;
    this.#over = true;
    this.#cancel();
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#events.end(error);
  }
}

// Going away, no status, broken, restart, try later, bad gateway: they pass by themselves.
const PASSING = new Set([1001, 1005, 1006, 1011, 1012, 1013, 1014]);

/** The error that a close without an `error` message stands for; null when it is no failure. */
function closeError(code: number, reason: string, wasOpen: boolean): WorldError | null {
  if (code === 1000) return null;
  const details = { retryable: PASSING.has(code), closeCode: code };
  if (!wasOpen) {
    const words = reason || "the server cannot be reached";
    return new WorldError("unreachable", words, { ...details, retryable: true });
  }
  return new WorldError("connection_lost", reason || `the connection broke (${code})`, details);
}
