/**
 * The server's clock, seen from here. Each ping gives a round trip and an offset whose error is at
 * most half of it, so of the newest samples the one with the shortest round trip is believed.
 */

const SAMPLES = 24;
const MAX_AGE_MS = 120_000; // clocks of two machines drift apart by some ms in this time

interface Sample {
  readonly at: number;
  readonly rtt: number;
  readonly offset: number;
}

/** What is known of the server's clock, in ms. */
export interface ClockState {
  /** Server time minus local time. */
  readonly offsetMs: number;
  /** The shortest round trip of late; half of it bounds the offset's error. */
  readonly rttMs: number;
  /** The newest round trip. */
  readonly lastRttMs: number;
  readonly samples: number;
}

export class ClockSync {
  #samples: Sample[] = [];
  #best: Sample | null = null;

  /** Takes a `pong`: sent and received by the local clock, answered at `serverMs`. */
  pong(sentMs: number, serverMs: number, receivedMs: number): void {
    const rtt = receivedMs - sentMs;
    if (!Number.isFinite(serverMs) || !(rtt >= 0)) return;
    this.#samples.push({ at: receivedMs, rtt, offset: serverMs - (sentMs + receivedMs) / 2 });
    this.#samples = this.#samples.slice(-SAMPLES).filter((s) => receivedMs - s.at <= MAX_AGE_MS);
    // Among equals the newest: it knows most of the drift.
    this.#best = this.#samples.reduce((best, s) => (s.rtt <= best.rtt ? s : best));
  }

  /** Null before the first answer. */
  get state(): ClockState | null {
    const last = this.#samples.at(-1);
    if (!this.#best || !last) return null;
    const { offset, rtt } = this.#best;
    return { offsetMs: offset, rttMs: rtt, lastRttMs: last.rtt, samples: this.#samples.length };
  }

  /** Local time of a moment of the server's clock; null before the first answer. */
  toLocal(serverMs: number): number | null {
    return this.#best ? serverMs - this.#best.offset : null;
  }

  /** Another server may answer after a reconnect: begin anew. */
  reset(): void {
    this.#samples = [];
    this.#best = null;
  }
}
