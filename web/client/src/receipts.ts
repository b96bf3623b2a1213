/**
 * What became of an input: `received` (read and valid), `applied` (from which chunk and latent frame
 * on it shapes the world), `shown` (painted here). Each is a promise; a refusal or a lost connection
 * rejects those that are still open. An input that a newer one of its kind replaced before it was
 * ever sampled counts as applied where the newer one is.
 */

import { WorldError } from "./errors.js";
import type { Input } from "./inputs.js";
import type { Applied, Received } from "./protocol.js";

/** Which frame showed an input first, and when (local clock, ms). */
export interface ShownAt {
  readonly frame: number;
  readonly chunk: number;
  readonly paintedMs: number;
}

export interface Receipt {
  readonly id: number;
  readonly received: Promise<Received>;
  readonly applied: Promise<Applied>;
  readonly shown: Promise<ShownAt>;
}

/** A moment of the picture: chunk and latent frame. */
export interface PictureAt {
  readonly chunk: number;
  readonly latent_frame: number;
}

class Deferred<T> {
  resolve!: (value: T) => void;
  reject!: (error: WorldError) => void;
  readonly promise = new Promise<T>((resolve, reject) => {
    this.resolve = resolve;
    this.reject = reject;
  });
}

class Pending {
  readonly id: number;
  readonly hand: boolean;
  readonly received = new Deferred<Received>();
  readonly applied = new Deferred<Applied>();
  readonly shown = new Deferred<ShownAt>();
  place: Applied | null = null;
  seen = false;

  constructor(id: number, hand: boolean) {
    this.id = id;
    this.hand = hand;
    // Nobody need listen: a receipt that nobody asked for is no unhandled rejection.
    for (const { promise } of this.#all) promise.catch(() => undefined);
  }

  reject(error: WorldError): void {
    for (const deferred of this.#all) deferred.reject(error);
  }

  get #all(): readonly { promise: Promise<unknown>; reject: (error: WorldError) => void }[] {
    return [this.received, this.applied, this.shown];
  }

  get receipt(): Receipt {
    const { id, received, applied, shown } = this;
    return { id, received: received.promise, applied: applied.promise, shown: shown.promise };
  }
}

const HAND: ReadonlySet<Input["type"]> = new Set(["keys", "pad", "pointer", "script", "camera", "release"]);
const MAX_PENDING = 2048; // far more than a server leaves open; bounds what a silent one costs

export class Receipts {
  #pending = new Map<number, Pending>();

  open(id: number, type: Input["type"]): Receipt {
    const pending = new Pending(id, HAND.has(type));
    this.#pending.set(id, pending);
    if (this.#pending.size > MAX_PENDING) {
      const [oldest] = this.#pending.keys();
      if (oldest !== undefined) this.failed(oldest, new WorldError("unanswered", "the server never answered this"));
    }
    return pending.receipt;
  }

  received(message: Received): void {
    this.#pending.get(message.id)?.received.resolve(message);
  }

  applied(message: Applied): void {
    const exact = this.#pending.get(message.id);
    if (exact) this.#place(exact, message);
    if (exact && !exact.hand) return;
    for (const pending of this.#pending.values()) {
      if (pending.hand && pending.id < message.id && !pending.place) this.#place(pending, message);
    }
  }

  /** Settles what this painted picture shows; returns the ids, oldest first. */
  shown(at: PictureAt & { readonly input: number }, where: ShownAt): number[] {
    const found: number[] = [];
    for (const pending of this.#pending.values()) {
      const seen = pending.place ? !before(at, pending.place) : pending.hand && pending.id <= at.input;
      if (!seen || pending.seen) continue;
      pending.seen = true;
      pending.shown.resolve(where);
      if (pending.place) this.#pending.delete(pending.id); // else its second receipt is still to come
      found.push(pending.id);
    }
    return found;
  }

  failed(id: number, error: WorldError): void {
    this.#pending.get(id)?.reject(error);
    this.#pending.delete(id);
  }

  #place(pending: Pending, message: Applied): void {
    pending.place = message;
    pending.applied.resolve(message);
    if (pending.seen) this.#pending.delete(pending.id);
  }

  /** Rejects all that is open: the connection is gone. */
  clear(error: WorldError): void {
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
  }
}

function before(a: PictureAt, b: PictureAt): boolean {
  return a.chunk < b.chunk || (a.chunk === b.chunk && a.latent_frame < b.latent_frame);
}
