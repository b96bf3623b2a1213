/** Counting what was really painted, and how long things took. */

const FPS_WINDOW_MS = 2000;
const GAP_MS = 400; // a rate says nothing any more when the last frame is so old
const MAX_SAMPLES = 2048;

export interface Spread {
  readonly count: number;
  readonly last: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

/** The newest samples of one figure. */
export class Samples {
  #values: number[] = [];
  #next = 0;
  #count = 0;
  #last = 0;

  add(value: number): void {
    this.#last = value;
    this.#count++;
    this.#values[this.#next] = value;
    this.#next = (this.#next + 1) % MAX_SAMPLES;
  }

  /** Nearest-rank percentiles over the newest couple of thousand; null before the first. */
  spread(): Spread | null {
    if (this.#values.length === 0) return null;
    const sorted = this.#values.toSorted((a, b) => a - b);
    const rank = (share: number): number => sorted[Math.ceil(share * sorted.length) - 1] as number;
    return { count: this.#count, last: this.#last, p50: rank(0.5), p95: rank(0.95), p99: rank(0.99) };
  }
}

/** Frames painted per second over the last two seconds, and the longest time between two. */
export class FrameMeter {
  #painted: number[] = [];
  #last: number | null = null;
  #longest = 0;

  painted(nowMs: number): void {
    if (this.#last !== null) this.#longest = Math.max(this.#longest, nowMs - this.#last);
    this.#last = nowMs;
    this.#painted.push(nowMs);
    this.#forget(nowMs);
  }

  /** Painting stopped on purpose: the gap that follows does not count. */
  rest(): void {
    this.#last = null;
    this.#painted = [];
  }

  get longestGapMs(): number {
    return this.#longest;
  }

  /** Null until two frames were painted within the window. */
  fps(nowMs: number): number | null {
    this.#forget(nowMs);
    const first = this.#painted[0];
    if (first === undefined || this.#painted.length < 2) return null;
    const last = this.#painted.at(-1) as number;
    // Between frames the time since the last one says nothing yet; in a stall it lowers the figure.
    const end = nowMs - last > GAP_MS ? nowMs : last;
    return end > first ? (1000 * (this.#painted.length - 1)) / (end - first) : null;
  }

  #forget(nowMs: number): void {
    while (this.#painted.length > 0 && nowMs - (this.#painted[0] as number) > FPS_WINDOW_MS) {
      this.#painted.shift();
    }
  }
}

/** Bits per second over the last two seconds. */
export class RateMeter {
  #arrivals: { at: number; bytes: number }[] = [];

  add(bytes: number, nowMs: number): void {
    this.#arrivals.push({ at: nowMs, bytes });
    while (nowMs - (this.#arrivals[0] as { at: number }).at > FPS_WINDOW_MS) this.#arrivals.shift();
  }

  kbps(nowMs: number): number | null {
    const all = this.#arrivals.filter((arrival) => nowMs - arrival.at <= FPS_WINDOW_MS);
    const first = all[0];
    if (!first || all.length < 2 || nowMs - first.at < 500) return null;
    return (8 * all.reduce((sum, { bytes }) => sum + bytes, 0)) / (nowMs - first.at);
  }
}
