/** What the HUD shows is counted here, from frames that were really drawn. */

const FPS_WINDOW_MS = 2000;
const STALL_MS = 400;
const MAX_SAMPLES = 4096;

/** Frames drawn per second over the last two seconds, and how evenly they came since the start. */
export class FrameMeter {
  #shown: number[] = [];
  #last: number | null = null;
  #longest = 0;
  #stalls = 0;

  shown(now: number): void {
    const gap = this.#last === null ? 0 : now - this.#last;
    this.#longest = Math.max(this.#longest, gap);
    if (gap > STALL_MS) this.#stalls++;
    this.#last = now;
    this.#shown.push(now);
    this.#forget(now);
  }

  /** Times that no frame was drawn for more than 400 ms. */
  get stalls(): number {
    return this.#stalls;
  }

  /** The longest time between two frames, in milliseconds. */
  get longest(): number {
    return this.#longest;
  }

  /** Null until two frames were drawn within the window. */
  fps(now: number): number | null {
    this.#forget(now);
    const first = this.#shown[0];
    if (first === undefined || this.#shown.length < 2) return null;
    const last = this.#shown.at(-1) as number;
    // Between frames the time since the last one says nothing yet; in a stall it lowers the figure.
    const end = now - last > STALL_MS ? now : last;
    return end > first ? (1000 * (this.#shown.length - 1)) / (end - first) : null;
  }

  #forget(now: number): void {
    while (this.#shown.length > 0 && now - (this.#shown[0] as number) > FPS_WINDOW_MS) {
      this.#shown.shift();
    }
  }
}

export interface Spread {
  readonly count: number;
  readonly median: number;
  readonly p95: number;
}

/** Time from an input to the first drawn frame that carries its id or a newer one. */
export class LatencyMeter {
  #waiting = new Map<number, number>();
  #samples: number[] = [];
  #last: number | null = null;

  get last(): number | null {
    return this.#last;
  }

  sent(eventId: number, now: number): void {
    this.#waiting.set(eventId, now);
  }

  /** Returns the ids that this frame answered. */
  shown(eventId: number | null, now: number): number[] {
    if (eventId === null) return [];
    const answered: number[] = [];
    for (const [id, at] of this.#waiting) {
      if (id > eventId) continue;
      this.#waiting.delete(id);
      this.#last = now - at;
      this.#samples.push(this.#last);
      answered.push(id);
    }
    if (this.#samples.length > MAX_SAMPLES) this.#samples.splice(0, MAX_SAMPLES / 2);
    return answered;
  }

  /** Over all inputs so far (the newest few thousand); null before the first. */
  spread(): Spread | null {
    const sorted = this.#samples.toSorted((a, b) => a - b);
    const rank = (share: number): number => sorted[Math.ceil(share * sorted.length) - 1] as number;
    return sorted.length > 0 ? { count: sorted.length, median: rank(0.5), p95: rank(0.95) } : null;
  }
}
