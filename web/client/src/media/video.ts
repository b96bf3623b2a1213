/**
 * An H.264 stream (Annex B, no B-frames): the decoder is set up at a key frame from the codec string
 * it carries, deltas before one are dropped, and after an error the stream begins again at the next
 * key frame, which is asked for. Frames come out in the order they went in.
 */

import { asError } from "../errors.js";
import type { Frame } from "../protocol.js";
import type { Codecs } from "./codecs.js";

const MAX_FAILURES = 4; // within the window: then this decoder is given up
const FAILURE_WINDOW_MS = 20_000;
const KEY_EVERY_MS = 1000; // the server grants no more
const DEFAULT_CODEC = "avc1.42E01F";

export interface VideoEvents {
  /** Frame `number` is decoded. */
  output(number: number, frame: VideoFrame): void;
  /** What is still in the decoder will not come out. */
  lost(): void;
  /** A key frame is needed to go on. */
  needKey(): void;
  /** This browser cannot decode the stream. */
  dead(error: Error): void;
  now(): number;
}

export class VideoStream {
  readonly #codecs: Codecs;
  readonly #events: VideoEvents;
  #decoder: VideoDecoder | null = null;
  #codec = "";
  #needsKey = true;
  #askedMs = Number.NEGATIVE_INFINITY;
  #failures: number[] = [];

  constructor(codecs: Codecs, events: VideoEvents) {
    this.#codecs = codecs;
    this.#events = events;
  }

  /** Returns false when the frame cannot be decoded: it follows a gap, or the decoder failed. */
  decode(frame: Frame): boolean {
    if (this.#needsKey && !frame.key) {
      this.#askKey();
      return false;
    }
    try {
      if (frame.key) this.#configure(frame.codec ?? (this.#codec || DEFAULT_CODEC));
      const type = frame.key ? "key" : "delta";
      // The running number is the timestamp: it comes back with the decoded frame.
      this.#decoder?.decode(this.#codecs.chunk({ type, timestamp: frame.number, data: frame.payload as BufferSource }));
      this.#needsKey = false;
      return true;
    } catch (error) {
      this.#failed(error);
      return false;
    }
  }

  /** Other pictures came between: the next delta would refer to frames that never arrived here. */
  interrupt(): void {
    this.#needsKey = true;
  }

  close(): void {
    const decoder = this.#decoder;
    this.#decoder = null;
    this.#needsKey = true;
    if (decoder && decoder.state !== "closed") decoder.close();
  }

  #configure(codec: string): void {
    if (this.#decoder && this.#decoder.state === "configured" && codec === this.#codec) return;
    if (!this.#decoder || this.#decoder.state === "closed") this.#decoder = this.#create();
    this.#codec = codec;
    this.#decoder.configure({ codec, optimizeForLatency: true });
  }

  #create(): VideoDecoder {
    if (!this.#codecs.video) throw new Error("there is no video decoder");
    const decoder: VideoDecoder = new this.#codecs.video({
      output: (frame) => {
        if (decoder === this.#decoder) this.#events.output(frame.timestamp, frame);
        else frame.close();
      },
      error: (error) => {
        if (decoder === this.#decoder) this.#failed(error);
      },
    });
    return decoder;
  }

  #failed(error: unknown): void {
    this.close();
    this.#events.lost();
    const now = this.#events.now();
    this.#failures = [...this.#failures.filter((at) => now - at < FAILURE_WINDOW_MS), now];
    if (this.#failures.length >= MAX_FAILURES) this.#events.dead(asError(error));
    else this.#askKey();
  }

  #askKey(): void {
    const now = this.#events.now();
    if (now - this.#askedMs < KEY_EVERY_MS) return;
    this.#askedMs = now;
    this.#events.needKey();
  }
}
