/** Records the path that is walked: one pose per latent frame, as the frames say. What is taken back is not in it. */

import type { FrameInfo } from "../media/decoders.js";
import { Cell, type Signal } from "../signals.js";
import type { Path, Pose } from "./path.js";

const MAX_RECORDED = 1 << 17; // hours

interface Step {
  readonly pose: Pose;
  /** Running number of the chunk. */
  readonly chunk: number;
  /** Its place in the walk, once somebody needs to know. */
  place: number | null;
}

export class PathRecorder {
  readonly #on = new Cell(false);
  #steps: Step[] = [];
  #since = 0; // the number of the picture that the walk goes on with
  #ahead: number | null = 0; // how far chunks' running numbers are ahead of their places in the walk
  #last = "";
  #rate = 4;

  get recording(): Signal<boolean> {
    return this.#on;
  }

  /** Poses so far. */
  get length(): number {
    return this.#steps.length;
  }

  start(): void {
    this.#steps = [];
    this.#last = "";
    this.#on.value = true;
  }

  /** What was walked since `start`. A path of fewer than two poses cannot be played. */
  stop(): Path {
    this.#on.value = false;
    return { poses: this.#steps.map(({ pose }) => pose), rate: this.#rate };
  }

  /** A frame arrived; `rate` is latent frames per second of video. */
  take(info: FrameInfo, rate: number): void {
    if (!this.#on.value || info.pose === undefined || this.#steps.length >= MAX_RECORDED) return;
    if (info.number < this.#since) return;
    const place = `${info.chunk}/${info.latent_frame}`;
    if (place === this.#last) return;
    this.#last = place;
    this.#rate = rate;
    this.#steps.push({ pose: info.pose, chunk: info.chunk, place: null });
  }

  /** Chunk `index` was made, and where it is in the walk. */
  made(index: number, place: number | undefined): void {
    if (place !== undefined) this.#ahead = index - place;
  }

  /** The walk stands before `chunk` again, and goes on with picture `number`. */
  back(chunk: number, number: number): void {
    const ahead = this.#ahead;
    for (const step of this.#steps) step.place ??= ahead === null ? Number.POSITIVE_INFINITY : step.chunk - ahead;
    this.#steps = this.#steps.filter(({ place }) => place !== null && place < chunk);
    this.#since = number;
    this.#ahead = null; // the next chunk says
  }

  /** Over another connection pictures may be numbered anew. */
  opened(): void {
    this.#since = 0;
  }
}
