/**
 * The queue between frames that arrive in bursts and a screen that wants them evenly.
 *
 * It plays at the stream's rate and keeps little queued, because every queued frame is delay between
 * the hand and the eye. A frame that shows a newer input replaces older ones still queued. Only when
 * the queue ran dry does it play at the rate frames are really produced: as long as there is enough,
 * the server follows this queue, and following the server in turn would let both slow down together.
 */

export interface PlayoutOptions {
  /** Video to have queued before playing (after a start or a stall), in ms. */
  readonly leadMs: number;
  /** Drop queued frames when one that shows a newer input arrives. */
  readonly dropOld: boolean;
  /** How long such a jump is blended, in ms; 0 for a hard cut. */
  readonly blendMs: number;
}

export const PLAYOUT: PlayoutOptions = { leadMs: 120, dropOld: true, blendMs: 90 };

/** What the queue knows of a frame. */
export interface Queued {
  readonly info: { readonly number: number; readonly chunk: number; readonly input: number };
}

export interface Taken<T> {
  readonly item: T;
  /** Frames before it were dropped: the picture jumps. */
  readonly jump: boolean;
}

interface Burst {
  readonly at: number;
  readonly chunk: number;
  frames: number;
}

const MAX_QUEUED_S = 4; // a sleeping tab, or a spectator nobody waits for
const RATE_WINDOW_MS = 6000;
const TICK_TOLERANCE_MS = 4; // a display tick this early still counts as on time
const CATCH_UP = 1.1;
const SLOW_GAIN = 0.06; // per frame that is left when the next chunk begins

export class Playout<T extends Queued> {
  readonly #fps: number;
  readonly #drop: (item: T) => void;
  #options: PlayoutOptions;
  #queue: { item: T; jump: boolean; at: number }[] = [];
  #bursts: Burst[] = [];
  #newestInput = 0;
  #rate: number;
  #slow = false;
  #buffering = true;
  #due = Number.NEGATIVE_INFINITY;
  #dryMs: number | null = null;
  #dropped = 0;
  #stalls = 0;
  #stalledMs = 0;

  /** `fps` is the stream's rate; `drop` releases frames that will never be shown. */
  constructor(fps: number, options: PlayoutOptions, drop: (item: T) => void = () => undefined) {
    this.#fps = this.#rate = fps;
    this.#options = options;
    this.#drop = drop;
  }

  get length(): number {
    return this.#queue.length;
  }

  get options(): PlayoutOptions {
    return this.#options;
  }

  set options(options: PlayoutOptions) {
    this.#options = options;
  }

  /** Frames per second it plays at now. */
  get rate(): number {
    return this.#rate;
  }

  /** Frames that were dropped, in favour of a newer input or because too many waited. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Times that no frame was there when one was due, and the time lost to that. */
  get stalls(): { readonly count: number; readonly ms: number } {
    return { count: this.#stalls, ms: this.#stalledMs };
  }

  push(item: T, nowMs: number): void {
    this.#note(item.info.chunk, nowMs);
    const jump = item.info.input > this.#newestInput && this.#answer(item.info, nowMs);
    this.#discard(Math.max(0, this.#queue.length + 1 - Math.ceil(this.#fps * MAX_QUEUED_S)));
    this.#queue.push({ item, jump, at: nowMs });
  }

  /** A frame shows a newer input: its chunk goes before older ones. True when it is next, after a jump. */
  #answer({ chunk, input }: Queued["info"], nowMs: number): boolean {
    this.#newestInput = input;
    if (!this.#options.dropOld) return false;
    // Within a chunk inputs follow each other in time: dropping there would swallow a short press.
    const rest = this.#queue.findIndex(({ item }) => item.info.chunk >= chunk);
    const dropped = this.#discard(rest < 0 ? this.#queue.length : rest) > 0;
    const [next] = this.#queue;
    if (dropped || !next) this.#due = Math.min(this.#due, nowMs); // no waiting for the beat
    if (!next) return dropped;
    next.jump ||= dropped;
    return false;
  }

  /** The frame to show at `now`, or null when it is too early or there is none. */
  take(nowMs: number): Taken<T> | null {
    if (nowMs + TICK_TOLERANCE_MS < this.#due) return null;
    const [first] = this.#queue;
    if (!first) {
      this.#dryMs ??= this.#due === Number.NEGATIVE_INFINITY ? null : nowMs;
      return null;
    }
    if (this.#buffering && !this.#enough(nowMs - first.at)) return null;
    this.#queue.shift();
    this.#endStall(nowMs);
    const period = 1000 / this.#rate;
    // Keep the beat when a tick was a little late; begin a new one after a stall.
    const late = nowMs - this.#due;
    this.#due = (late < period ? this.#due : nowMs) + period;
    return { item: first.item, jump: first.jump };
  }

  /** Playing stops on purpose (a pause, a lost connection): what follows is no stall. */
  rest(): void {
    this.#dryMs = null;
    this.#due = Number.NEGATIVE_INFINITY;
    this.#buffering = true;
    this.#bursts = [];
  }

  clear(): void {
    this.#discard(this.#queue.length);
    this.rest();
  }

  #enough(waitedMs: number): boolean {
    const wanted = Math.max(1, Math.round((this.#options.leadMs * this.#fps) / 1000));
    return this.#queue.length >= wanted || waitedMs >= this.#options.leadMs;
  }

  #endStall(nowMs: number): void {
    const period = 1000 / this.#rate;
    if (this.#dryMs !== null && nowMs - this.#dryMs > period / 2) {
      this.#stalls++;
      this.#stalledMs += nowMs - this.#dryMs;
    }
    this.#dryMs = null;
    this.#buffering = false;
  }

  #discard(count: number): number {
    const old = this.#queue.splice(0, count);
    for (const { item } of old) this.#drop(item);
    this.#dropped += old.length;
    return old.length;
  }

  #note(chunk: number, nowMs: number): void {
    const last = this.#bursts.at(-1);
    if (last?.chunk === chunk) {
      last.frames++;
      return;
    }
    if (last) this.#adapt(nowMs);
    this.#bursts.push({ at: nowMs, chunk, frames: 1 });
    this.#bursts = this.#bursts.filter((burst) => nowMs - burst.at <= RATE_WINDOW_MS || burst === last);
  }

  /** At the start of a chunk the queue says whether the rate was right. */
  #adapt(nowMs: number): void {
    const dry = this.#dryMs !== null && nowMs - this.#dryMs > 500 / this.#fps;
    const produced = this.#produced(nowMs);
    if (dry) {
      this.#buffering = true;
      this.#slow = produced !== null && produced < this.#fps;
    }
    const left = this.#queue.length;
    if (this.#slow && produced !== null) {
      // A little slower than that while there is nothing to spare, a little faster when there is.
      this.#rate = Math.min(this.#fps, produced * Math.min(1.15, Math.max(0.85, 1 + SLOW_GAIN * (left - 1))));
      this.#slow = this.#rate < this.#fps;
    } else {
      const spare = left - (this.#options.leadMs * this.#fps) / 1000;
      this.#rate = spare > this.#fps / 4 ? this.#fps * CATCH_UP : this.#fps;
    }
  }

  /** Frames per second since the first chunk of the window. */
  #produced(nowMs: number): number | null {
    const first = this.#bursts[0];
    if (!first || nowMs <= first.at) return null;
    const frames = this.#bursts.reduce((sum, burst) => sum + burst.frames, 0);
    return (1000 * frames) / (nowMs - first.at);
  }
}
