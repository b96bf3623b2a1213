/**
 * The queue between frames that arrive in bursts and a screen that wants them evenly.
 *
 * It plays at the rate frames are really produced, never above the stream's rate by more than a
 * small catch-up, and aims to run almost dry when the next chunk lands: every queued frame is delay
 * between the hand and the eye. A batch that shows a newer input replaces what is still queued.
 */

const TARGET_LEFT = 1; // frames still queued when the next chunk arrives
const MAX_LEAD_S = 0.35;
const RATE_WINDOW_MS = 4000;
const TICK_TOLERANCE_MS = 4; // a display tick this early still counts as on time

export interface Queued<T> {
  readonly frame: T;
  readonly chunk: number;
  readonly eventId: number | null;
}

interface Arrival {
  readonly chunk: number;
  readonly at: number;
  frames: number;
}

export class Playback<T> {
  readonly #fps: number;
  readonly #drop: (frame: T) => void;
  #queue: Queued<T>[] = [];
  #arrivals: Arrival[] = [];
  #newestEvent = 0;
  #correction = 1;
  #due = Number.NEGATIVE_INFINITY;

  /** `fps` is the stream's rate; `drop` releases frames that will never be shown. */
  constructor(fps: number, drop: (frame: T) => void = () => undefined) {
    this.#fps = fps;
    this.#drop = drop;
  }

  get length(): number {
    return this.#queue.length;
  }

  /** Frames per second that the queue is played at now. */
  get rate(): number {
    return Math.min(this.#fps, this.#produced() ?? this.#fps) * this.#correction;
  }

  push(frames: readonly T[], batch: { chunk: number; eventId: number | null; now: number }): void {
    this.#noteArrival(batch.chunk, frames.length, batch.now);
    const eventId = batch.eventId;
    if (eventId !== null && eventId > this.#newestEvent) {
      this.#newestEvent = eventId;
      this.#trim(0);
    }
    for (const frame of frames) this.#queue.push({ frame, chunk: batch.chunk, eventId });
    this.#trim(frames.length + Math.ceil(this.#fps * MAX_LEAD_S));
  }

  /** The frame to show at `now`, or null when it is too early or the queue is empty. */
  take(now: number): Queued<T> | null {
    if (now + TICK_TOLERANCE_MS < this.#due) return null;
    const next = this.#queue.shift();
    if (!next) return null;
    const period = 1000 / this.rate;
    // Keep the beat when a tick was a little late; start a new one after a stall.
    const late = now - this.#due;
    this.#due = (late < period ? this.#due : now) + period;
    return next;
  }

  clear(): void {
    this.#trim(0);
  }

  #trim(keep: number): void {
    while (this.#queue.length > keep) {
      const old = this.#queue.shift();
      if (old) this.#drop(old.frame);
    }
  }

  #noteArrival(chunk: number, frames: number, now: number): void {
    const last = this.#arrivals.at(-1);
    if (last && last.chunk === chunk) {
      last.frames += frames;
      return;
    }
    if (last) {
      const error = this.#queue.length - TARGET_LEFT;
      this.#correction = Math.min(1.25, Math.max(0.85, 1 + 0.1 * error));
    }
    this.#arrivals.push({ chunk, at: now, frames });
    this.#arrivals = this.#arrivals.filter((a) => now - a.at <= RATE_WINDOW_MS || a === last);
  }

  /** Frames per second between the first and the last arrival of the window. */
  #produced(): number | null {
    const first = this.#arrivals[0];
    const last = this.#arrivals.at(-1);
    if (!first || !last || this.#arrivals.length < 3 || last.at <= first.at) return null;
    // The frames of an arrival fill the time until the next one, so the last arrival is left out.
    const frames = this.#arrivals.slice(0, -1).reduce((sum, a) => sum + a.frames, 0);
    return (1000 * frames) / (last.at - first.at);
  }
}
