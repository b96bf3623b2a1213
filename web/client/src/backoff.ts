/** How long to wait before trying again. */

export interface BackoffOptions {
  /** The first pause; each further one doubles. Default 250 ms. */
  readonly firstMs?: number;
  /** The longest pause. Default 8 s. */
  readonly maxMs?: number;
  /** Give up after so long without a connection. Default: as long as the server keeps a world, or 60 s. */
  readonly giveUpMs?: number;
}

export class Backoff {
  readonly #first: number;
  readonly #max: number;
  readonly #wished: number | undefined;
  #giveUp: number;
  readonly #random: () => number;
  #attempt = 0;
  #since: number | null = null;

  constructor(options: BackoffOptions, random: () => number) {
    this.#first = options.firstMs ?? 250;
    this.#max = options.maxMs ?? 8000;
    this.#wished = options.giveUpMs;
    this.#giveUp = options.giveUpMs ?? 60_000;
    this.#random = random;
  }

  /** How long the server keeps a world; heeded where nothing else was asked for. */
  set grace(ms: number) {
    if (this.#wished === undefined && ms > 0) this.#giveUp = ms;
  }

  get attempt(): number {
    return this.#attempt;
  }

  /** The pause before the next attempt in ms, or null when it is time to stop. */
  next(now: number, serverWishMs = 0): number | null {
    this.#since ??= now;
    if (now - this.#since > this.#giveUp) return null;
    const base = Math.min(this.#max, this.#first * 2 ** this.#attempt++);
    // Spread over half the pause: a server that comes back is not met by everybody at once.
    return Math.max(serverWishMs, base * (0.5 + this.#random() / 2));
  }

  /** The connection stands again. */
  reset(): void {
    this.#attempt = 0;
    this.#since = null;
  }
}
