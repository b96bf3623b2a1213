/** Records the path that is walked: one pose per latent frame, as the frames that are painted say. */

import type { FrameInfo } from "../media/decoders.js";
import { Cell, type Signal } from "../signals.js";
import type { Path, Pose } from "./path.js";

const MAX_RECORDED = 1 << 17; // hours

export class PathRecorder {
  readonly #on = new Cell(false);
  #poses: Pose[] = [];
  #last = "";
  #rate = 4;

  get recording(): Signal<boolean> {
    return this.#on;
  }

  /** Poses so far. */
  get length(): number {
    return this.#poses.length;
  }

  start(): void {
    this.#poses = [];
    this.#last = "";
    this.#on.value = true;
  }

  /** What was walked since `start`. A path of fewer than two poses cannot be played. */
  stop(): Path {
    this.#on.value = false;
    return { poses: this.#poses, rate: this.#rate };
  }

  /** A frame arrived; `rate` is latent frames per second of video. */
  take(info: FrameInfo, rate: number): void {
    if (!this.#on.value || info.pose === undefined || this.#poses.length >= MAX_RECORDED) return;
    const place = `${info.chunk}/${info.latent_frame}`;
    if (place === this.#last) return;
    this.#last = place;
    this.#rate = rate;
    this.#poses.push(info.pose);
  }
}
