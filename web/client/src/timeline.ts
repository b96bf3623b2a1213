/**
 * The walk so far in thumbnails, in order. The server sends about one a second to who has the controls,
 * and all of them again after `opened` and when the controls are given. Going back cuts them: a thumbnail
 * voids those at its chunk and after it, so that a walk that was taken back unheard is right again, too.
 */

import type { Moment } from "./protocol.js";
import { Cell } from "./signals.js";

/** One thumbnail. `rewind({ chunk })` goes back to where it was taken. */
export interface Thumbnail {
  readonly chunk: number;
  /** From the walk's start. */
  readonly seconds: number;
  /** Of the picture that it shows. */
  readonly number: number;
  /** A small JPEG, as long as it is in the list. */
  readonly url: string;
}

/** Bytes to something an `img` can show, and back. */
export interface Urls {
  make(bytes: Uint8Array): string;
  free(url: string): void;
}

export const MOST = 240; // as on the server; beyond it every other of the older half goes

export class Timeline {
  readonly moments = new Cell<readonly Thumbnail[]>([]);
  readonly #urls: Urls;
  #gone: readonly Thumbnail[] = []; // not freed yet: a page may be about to draw them

  constructor(urls: Urls = BROWSER) {
    this.#urls = urls;
  }

  add({ chunk, seconds, number, picture }: Moment): void {
    const before = this.#upTo(chunk);
    const moment = { chunk, seconds, number, url: this.#urls.make(picture) };
    this.#become(thinned([...before, moment]));
  }

  /** The walk stands before `chunk` again. */
  cut(chunk: number): void {
    this.#become(this.#upTo(chunk));
  }

  clear(): void {
    this.#become([]);
  }

  /** Nobody looks any more. */
  close(): void {
    this.clear();
    this.#free();
  }

  #upTo(chunk: number): readonly Thumbnail[] {
    const all = this.moments.value;
    return (all.at(-1)?.chunk ?? -1) < chunk ? all : all.filter((moment) => moment.chunk < chunk);
  }

  #become(now: readonly Thumbnail[]): void {
    const before = this.moments.value;
    if (now === before) return;
    const kept = new Set(now);
    const gone = before.filter((moment) => !kept.has(moment));
    this.moments.value = now;
    if (gone.length === 0) return;
    this.#free();
    this.#gone = gone;
  }

  #free(): void {
    for (const { url } of this.#gone) this.#urls.free(url);
    this.#gone = [];
  }
}

function thinned(all: readonly Thumbnail[]): readonly Thumbnail[] {
  if (all.length <= MOST) return all;
  const half = Math.floor(all.length / 2);
  return all.filter((_, i) => i >= half || i % 2 === 0);
}

const BROWSER: Urls = {
  make: (bytes) => URL.createObjectURL(new Blob([bytes as Uint8Array<ArrayBuffer>], { type: "image/jpeg" })),
  free: (url) => URL.revokeObjectURL(url),
};
