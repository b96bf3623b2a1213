/** What is said quietly at the edge of the stage, and goes away by itself. */

import { signal } from "@preact/signals";

export interface Toast {
  readonly id: number;
  readonly tone: "notice" | "warning";
  readonly text: string;
  /** What it is about, for who can settle it. */
  readonly about: string;
  /** Clock time of what is announced; null when it has happened. */
  readonly until: number | null;
}

interface Time {
  now(): number;
  later(task: () => void, ms: number): void;
}

const STAYS_MS = 6000;
const MOST = 3;
const BROWSER: Time = { now: () => performance.now(), later: (task, ms) => void setTimeout(task, ms) };

export class Toasts {
  readonly list = signal<readonly Toast[]>([]);
  readonly #time: Time;
  #next = 1;

  constructor(time: Time = BROWSER) {
    this.#time = time;
  }

  /** Shows `text`; the same text again replaces itself. `inMs` counts down to what will happen. */
  say(
    text: string,
    { tone = "notice", inMs = 0, about = "" }: { tone?: Toast["tone"]; inMs?: number; about?: string } = {},
  ): void {
    const id = this.#next++;
    const until = inMs > 0 ? this.#time.now() + inMs : null;
    const others = this.list.value.filter((one) => one.text !== text);
    this.list.value = [...others, { id, tone, text, about, until }].slice(-MOST);
    this.#time.later(() => this.dismiss(id), Math.max(STAYS_MS, inMs));
  }

  dismiss(id: number): void {
    this.list.value = this.list.value.filter((one) => one.id !== id);
  }

  /** What `about` announced does not come. */
  settle(about: string): void {
    if (this.list.value.some((one) => one.about === about)) {
      this.list.value = this.list.value.filter((one) => one.about !== about);
    }
  }
}
