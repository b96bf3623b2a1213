/** What the HUD shows is counted here, from frames that were really drawn. */

const FPS_WINDOW_MS = 2000;
const STALL_MS = 400;

/** Frames drawn per second over the last two seconds. */
export class FrameMeter {
  #shown: number[] = [];

  shown(now: number): void {
    this.#shown.push(now);
    this.#forget(now);
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

/** Time from an input to the first drawn frame that carries its id or a newer one. */
export class LatencyMeter {
  #waiting = new Map<number, number>();
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
      answered.push(id);
    }
    return answered;
  }
}
