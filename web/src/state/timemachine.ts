/** The way back, the other way and the way home of one walk: going back, branching, saving. */

import { signal } from "@preact/signals";
import type { Thumbnail, World } from "@worldline/client";

import { fetchFile, stamp } from "../lib/download";
import { branchUrl, takeUrl } from "../lib/server";
import { sizeWords } from "../lib/worldfile";
import type { Toasts } from "./toasts";

/** What is under way: its thumbnail is shown until a picture from there is. */
export interface Going {
  readonly to: Thumbnail;
  /** The first picture from there; null until the server says so. */
  readonly number: number | null;
}

export class TimeMachine {
  readonly moments = signal<readonly Thumbnail[]>([]);
  /** The moment that is looked at; null for now. */
  readonly looked = signal<Thumbnail | null>(null);
  readonly going = signal<Going | null>(null);
  /** Asked for and not answered. */
  readonly branching = signal(false);
  readonly saving = signal(false);
  /** Where a branch can be entered that could not be opened by itself. */
  readonly door = signal<string | null>(null);
  readonly #world: World;
  readonly #toasts: Toasts;
  readonly #access: string | null;
  readonly #open: (url: string) => boolean;

  /** `open` shows an address in another tab; false where the browser forbids it. */
  constructor(world: World, toasts: Toasts, access: string | null, open = openTab) {
    this.#world = world;
    this.#toasts = toasts;
    this.#access = access;
    this.#open = open;
  }

  /** Follows the world until the returned functions are called. */
  listen(): (() => void)[] {
    const world = this.#world;
    return [
      world.moments.subscribe((moments) => {
        this.moments.value = moments;
        if (this.looked.value && !moments.includes(this.looked.value)) this.looked.value = null;
      }),
      world.on("rewound", ({ number }) => {
        if (this.going.value) this.going.value = { ...this.going.value, number };
      }),
      world.on("painted", ({ number }) => {
        const from = this.going.value?.number;
        if (from != null && number >= from) this.going.value = null;
      }),
      world.phase.subscribe((phase) => {
        if (phase !== "live" && phase !== "paused") this.going.value = this.looked.value = null;
      }),
      world.hands.motion.subscribe(({ x, z, yaw, pitch }) => {
        if (x || z || yaw || pitch) this.looked.value = null; // who walks looks ahead
      }),
    ];
  }

  /** Shows the moment of this index large; the length of the list is now. */
  look(index: number): void {
    this.looked.value = this.moments.value[index] ?? null;
  }

  /** Goes back to what is looked at, and walks on from there. */
  goBack(): void {
    const to = this.looked.value;
    this.looked.value = null;
    if (!to) return;
    const going = (this.going.value = { to, number: null });
    this.#world.rewind({ chunk: to.chunk }).shown.catch(() => {
      if (this.going.value?.to === going.to) this.going.value = null; // `refused` says why
    });
  }

  /** A second world that begins at what is looked at, or here. */
  async branch(): Promise<void> {
    if (this.branching.value) return;
    this.branching.value = true;
    this.door.value = null;
    try {
      const { url } = await this.#world.branch(this.looked.value?.chunk).answer;
      this.looked.value = null;
      const address = branchUrl(url);
      if (this.#open(address)) this.#toasts.say("The branch goes on in another tab. This world is still yours.");
      else this.door.value = address;
    } catch {
      // `refused` says why
    } finally {
      this.branching.value = false;
    }
  }

  /** The walk as a file in the visitor's downloads. */
  async save(): Promise<void> {
    if (this.saving.value) return;
    this.saving.value = true;
    try {
      const { url, bytes, seconds } = await this.#world.save().answer;
      try {
        await fetchFile(takeUrl(url, null), `worldline-${stamp(new Date())}.wl`, this.#access);
        const length = `${seconds.toFixed(1)} s in ${sizeWords(bytes)}`;
        this.#toasts.say(`This world is in your downloads: ${length}. Drop it on this page to walk it again.`);
      } catch {
        this.#toasts.say("This world could not be fetched.", { tone: "warning" });
      }
    } catch {
      // `refused` says why
    } finally {
      this.saving.value = false;
    }
  }
}

/** The tab keeps its opener, and with it what this one knows: the key of a server that asks for one. */
function openTab(url: string): boolean {
  return window.open(url, "_blank") !== null;
}
