/**
 * From levels and turns to messages: at most so many a second as the server allows, later when the
 * network is behind, in an order that keeps each level true. Knows nothing of devices or sockets.
 */

import type { Action } from "../protocol.js";
import { sameActions } from "./held.js";
import { Level } from "./level.js";
import { isStill, sameMotion, STILL, type Motion } from "./motion.js";

const TURN_MS = 30; // pointer moves and sticks are gathered for so long
const MAX_TURN = 3600; // degrees in one message, the wire's own limit
const SHARE = 0.8; // of the allowed rate: the rest is for prompts and settings
const RETRY_MS = 400;

/** What is sent; the fields of `Keys`, `Pad` and `Pointer` without their id. */
export type HandInput =
  | { readonly type: "keys"; readonly at_ms: number; readonly held: readonly Action[] }
  | ({ readonly type: "pad"; readonly at_ms: number } & Motion)
  | { readonly type: "pointer"; readonly at_ms: number; readonly yaw: number; readonly pitch: number };

export interface Port {
  /** Sends one input; returns its id, or null when nothing can be sent. */
  send(input: HandInput): number | null;
  /** True while the browser still holds much of what was sent before. */
  congested(): boolean;
  now(): number;
  after(ms: number, task: () => void): () => void;
}

const KEYS = { rest: [] as readonly Action[], same: sameActions };
const PAD = { rest: STILL, same: sameMotion };

export class Outgoing {
  readonly #port: Port;
  readonly #keys = new Level<readonly Action[]>(KEYS);
  readonly #pad = new Level<Motion>(PAD);
  #turn: { yaw: number; pitch: number; atMs: number } | null = null;
  #open = false;
  #perSecond = Number.POSITIVE_INFINITY;
  #budget = 0;
  #countedMs = 0;
  #padMs = Number.NEGATIVE_INFINITY;
  #turnMs = Number.NEGATIVE_INFINITY;
  #cancel: (() => void) | null = null;

  constructor(port: Port) {
    this.#port = port;
  }

  /** True when the server may believe another level than what is. */
  get unsettled(): boolean {
    return this.#keys.unsettled || this.#pad.unsettled;
  }

  setKeys(held: readonly Action[], atMs: number): void {
    if (this.#keys.set(held, atMs)) this.flush();
  }

  setPad(motion: Motion, atMs: number): void {
    if (this.#pad.set(motion, atMs)) this.flush();
  }

  /** Adds a turn of the view in degrees. */
  turn(yaw: number, pitch: number, atMs: number): void {
    if (!this.#open) return;
    const old = this.#turn;
    const clamp = (value: number): number => Math.min(MAX_TURN, Math.max(-MAX_TURN, value));
    this.#turn = {
      yaw: clamp((old?.yaw ?? 0) + yaw),
      pitch: clamp((old?.pitch ?? 0) + pitch),
      atMs: old?.atMs ?? atMs,
    };
    this.flush();
  }

  /** A server listens from now on, and believes that nothing is held. `perSecond` 0 means no limit. */
  open(perSecond: number): void {
    const now = this.#port.now();
    this.#open = true;
    this.#perSecond = perSecond > 0 ? perSecond * SHARE : Number.POSITIVE_INFINITY;
    this.#budget = this.#perSecond;
    this.#countedMs = now;
    this.#keys.restart(now);
    this.#pad.restart(now);
    this.flush();
  }

  /** Nobody listens: the connection broke, or somebody else holds the controls. */
  shut(): void {
    this.#open = false;
    this.#turn = null;
    this.#cancel?.();
    this.#cancel = null;
  }

  /** Forgets turns that wait. */
  dropTurns(): void {
    this.#turn = null;
  }

  received(id: number): void {
    this.#keys.received(id);
    this.#pad.received(id);
  }

  /** The server refused input `id`. A level is said again later if that can help. */
  refused(id: number, retryable: boolean, retryAfterMs = 0): void {
    const at = retryable ? this.#port.now() + Math.max(RETRY_MS, retryAfterMs) : null;
    const ours = [this.#keys.refused(id, at), this.#pad.refused(id, at)].includes(true);
    if (ours && at !== null) this.#later(at - this.#port.now());
  }

  /** Sends what can be sent now. Call it after changes and with every picture. */
  flush(): void {
    if (!this.#open) return;
    const now = this.#port.now();
    this.#refill(now);
    this.#sendKeys(now);
    // Where few messages are allowed, sticks and pointer take turns.
    const padFirst = this.#padMs <= this.#turnMs;
    if (padFirst) this.#sendPad(now);
    this.#sendTurn(now);
    if (!padFirst) this.#sendPad(now);
    if (this.unsettled || this.#turn) this.#later(TURN_MS);
  }

  #sendKeys(now: number): void {
    this.#sendAll(this.#keys, (value, at_ms) => ({ type: "keys", at_ms, held: value }), now);
  }

  #sendPad(now: number): void {
    // Beginning and end of a motion go at once, what lies between is gathered.
    if (now - this.#padMs < TURN_MS && !isStill(this.#pad.value)) return;
    if (this.#sendAll(this.#pad, (value, at_ms) => ({ type: "pad", at_ms, ...value }), now, true)) this.#padMs = now;
  }

  #sendTurn(now: number): void {
    const turn = this.#turn;
    if (!turn || now - this.#turnMs < TURN_MS || !this.#may()) return;
    const { yaw, pitch, atMs } = turn;
    if (this.#send({ type: "pointer", at_ms: atMs, yaw, pitch }) === null) return;
    this.#turn = null;
    this.#turnMs = now;
  }

  /** Returns true when something was sent; what cannot be sent stays. */
  #sendAll<T>(level: Level<T>, input: (value: T, atMs: number) => HandInput, now: number, merge = false): boolean {
    for (let sent = false; ; sent = true) {
      const change = level.next(now, merge || !this.#may());
      const id = change && this.#may() ? this.#send(input(change.value, change.atMs)) : null;
      if (!change || id === null) return sent;
      level.sent(change, id, now);
    }
  }

  #send(input: HandInput): number | null {
    const id = this.#port.send(input);
    if (id !== null) this.#budget -= 1;
    return id;
  }

  #may(): boolean {
    return this.#budget >= 1 && !this.#port.congested();
  }

  #refill(now: number): void {
    const gained = ((now - this.#countedMs) / 1000) * this.#perSecond;
    this.#budget = Number.isFinite(gained) ? Math.min(this.#perSecond, this.#budget + gained) : Number.MAX_VALUE;
    this.#countedMs = now;
  }

  #later(ms: number): void {
    this.#cancel ??= this.#port.after(Math.max(1, ms), () => {
      this.#cancel = null;
      this.flush();
    });
  }
}
