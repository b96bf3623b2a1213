/**
 * Which message belongs to which picture, when pictures come by WebRTC and what is said about them by
 * the socket. A picture's RTP time is its number times 90000 / fps plus an offset that is not told. As
 * messages are hardly ever later than pictures and often just as far, the offset is near the least
 * difference seen between the newest number and a picture's time.
 */

import type { FrameInfo } from "./decoders.js";

const RTP_HZ = 90_000;
const WRAP = 2 ** 32;
const SAMPLES = 48;
const LOW = 0.2; // a message can be late now and then: not the least, but one of the lowest
const KEPT = 240;

export interface Said {
  readonly info: FrameInfo;
  readonly receivedMs: number;
}

export class Pairing {
  readonly #fps: number;
  readonly #said = new Map<number, Said>();
  #newest: number | null = null;
  #samples: number[] = [];
  #rtp: number | null = null;

  constructor(fps: number) {
    this.#fps = fps;
  }

  /** A message about a picture that comes, or came, by WebRTC. */
  say(info: FrameInfo, receivedMs: number): void {
    this.#said.set(info.number, { info, receivedMs });
    this.#newest = Math.max(this.#newest ?? 0, info.number);
    const [oldest] = this.#said.keys();
    if (this.#said.size > KEPT && oldest !== undefined) this.#said.delete(oldest);
  }

  /** What was said of the picture of this RTP time; null when nothing was. */
  picture(rtp: number): Said | null {
    if (this.#newest === null) return null;
    const time = (this.#unwrapped(rtp) * this.#fps) / RTP_HZ;
    this.#samples = [...this.#samples, this.#newest - time].slice(-SAMPLES);
    const sorted = this.#samples.toSorted((a, b) => a - b);
    const offset = sorted[Math.floor(LOW * sorted.length)] as number;
    return this.#said.get(Math.round(time + offset)) ?? null;
  }

  /** RTP times have 32 bits; they go on from where they were. */
  #unwrapped(rtp: number): number {
    if (this.#rtp !== null) {
      const turns = Math.round((this.#rtp - rtp) / WRAP);
      this.#rtp = rtp + turns * WRAP;
    } else this.#rtp = rtp;
    return this.#rtp;
  }
}
