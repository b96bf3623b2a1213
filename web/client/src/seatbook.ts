/**
 * What a page must remember across a refresh to come back to its world: where, with which token, and
 * up to which number input ids may have been used. Ids must rise over the life of a world, so they are
 * reserved in blocks: a page that comes back goes on behind the last block.
 */

import type { Store } from "./environment.js";

const KEY = "worldline.seat";
const BLOCK = 1024;

/** A world that can be come back to. `token` is a secret. */
export interface Resumable {
  readonly url: string;
  readonly token: string;
  readonly world: string;
}

interface Entry extends Resumable {
  readonly ids: number;
}

export class SeatBook {
  readonly #store: Store | null;
  #entry: Entry | null = null;
  #nextId = 1;

  constructor(store: Store | null) {
    this.#store = store;
  }

  /** What was written down, here or before a refresh. */
  read(): Resumable | null {
    const found = this.#load();
    return found && { url: found.url, token: found.token, world: found.world };
  }

  /** A seat was given. The same world as before goes on with its ids. */
  sit(seat: Resumable): void {
    const old = this.#load();
    if (old?.world === seat.world) this.#nextId = Math.max(this.#nextId, old.ids + 1);
    this.#entry = { ...seat, ids: 0 };
    this.#reserve();
  }

  /** The world is gone, or is left for good. */
  forget(): void {
    this.#entry = null;
    this.#write(null);
  }

  nextId(): number {
    const id = this.#nextId++;
    if (this.#entry && id >= this.#entry.ids) this.#reserve();
    return id;
  }

  /** Input `id` was used before, by whoever held the controls. */
  used(id: number): void {
    if (id >= this.#nextId) this.#nextId = id + 1;
  }

  #reserve(): void {
    if (!this.#entry) return;
    this.#entry = { ...this.#entry, ids: this.#nextId + BLOCK };
    this.#write(this.#entry);
  }

  #load(): Entry | null {
    if (this.#entry) return this.#entry;
    try {
      const found = JSON.parse(this.#store?.getItem(KEY) ?? "null") as Partial<Entry> | null;
      const texts = [found?.url, found?.token, found?.world].every((text) => typeof text === "string");
      return texts && Number.isSafeInteger(found?.ids) ? (found as Entry) : null;
    } catch {
      return null;
    }
  }

  #write(entry: Entry | null): void {
    try {
      if (entry) this.#store?.setItem(KEY, JSON.stringify(entry));
      else this.#store?.removeItem(KEY);
    } catch {
      // Storage may be full or forbidden: then a refresh cannot resume, and nothing else changes.
    }
  }
}
