/**
 * Frames to pictures, in the order they came, whatever their formats: a viewer that fell behind gets
 * single pictures between the frames of a video and returns to it at a key frame.
 */

import { asError } from "../errors.js";
import type { Format, Frame } from "../protocol.js";
import type { Codecs, Picture } from "./codecs.js";
import { VideoStream } from "./video.js";

/** A frame without its bytes. */
export type FrameInfo = Omit<Frame, "payload">;

export interface Decoded {
  readonly info: FrameInfo;
  readonly picture: Picture;
  readonly bytes: number;
  /** Local times in ms. */
  readonly receivedMs: number;
  readonly decodedMs: number;
}

export interface DecoderEvents {
  decoded(decoded: Decoded): void;
  needKey(): void;
  /** `format` cannot be decoded here: ask for another one. */
  dead(format: Format, error: Error): void;
  /** One picture was lost. */
  lost(info: FrameInfo, error: Error): void;
  now(): number;
}

interface Slot {
  readonly info: FrameInfo;
  readonly bytes: number;
  readonly receivedMs: number;
  picture: Picture | null;
  decodedMs: number;
  dropped: boolean;
}

const MAX_SLOTS = 240;
const MAX_LENT = 5; // decoders stall when they have lent all of their few frames
const TYPES: Readonly<Record<string, string>> = { jpeg: "image/jpeg", webp: "image/webp" };

export class Decoders {
  readonly #codecs: Codecs;
  readonly #events: DecoderEvents;
  readonly #video: VideoStream;
  #slots: Slot[] = [];
  #lent: VideoFrame[] = [];
  #closed = false;

  constructor(codecs: Codecs, events: DecoderEvents) {
    this.#codecs = codecs;
    this.#events = events;
    this.#video = new VideoStream(codecs, {
      output: (number, frame) => this.#fromVideo(number, frame),
      lost: () => this.#dropVideo(),
      needKey: () => events.needKey(),
      dead: (error) => events.dead("h264", error),
      now: () => events.now(),
    });
  }

  /** Pictures that are being decoded. */
  get pending(): number {
    return this.#slots.length;
  }

  take(frame: Frame, receivedMs: number): void {
    if (this.#closed) return;
    const { payload, ...info } = frame;
    const slot: Slot = { info, bytes: payload.length, receivedMs, picture: null, decodedMs: 0, dropped: false };
    if (this.#slots.length >= MAX_SLOTS) this.#overflow();
    this.#slots.push(slot);
    if (info.format === "h264") {
      if (!this.#video.decode(frame)) this.#drop(slot);
    } else {
      this.#video.interrupt();
      this.#settle(slot, this.#picture(frame));
    }
  }

  close(): void {
    this.#closed = true;
    this.#video.close();
    for (const slot of this.#slots) slot.picture?.close();
    this.#slots = [];
  }

  async #picture(frame: Frame): Promise<ImageBitmap> {
    if (frame.format === "raw") return this.#codecs.raw(frame.payload, frame.width, frame.height);
    return this.#codecs.image(frame.payload, TYPES[frame.format] ?? "");
  }

  #fromVideo(number: number, frame: VideoFrame): void {
    const slot = this.#slots.find((found) => found.info.format === "h264" && found.info.number === number);
    if (!slot || slot.dropped) return frame.close();
    // No B-frames: what went in before this and did not come out never will.
    for (const older of this.#slots) {
      if (older === slot) break;
      if (older.info.format === "h264" && older.decodedMs === 0) older.dropped = true;
    }
    slot.decodedMs = this.#events.now();
    this.#lent = this.#lent.filter((lent) => lent.codedWidth > 0); // 0 once it is closed
    if (this.#lent.length >= MAX_LENT) return this.#settle(slot, this.#codecs.still(frame));
    this.#lent.push(frame);
    slot.picture = frame;
    this.#deliver();
  }

  #settle(slot: Slot, picture: Promise<ImageBitmap>): void {
    picture.then(
      (bitmap) => {
        if (this.#closed || slot.dropped) return bitmap.close();
        slot.picture = bitmap;
        slot.decodedMs = this.#events.now();
        this.#deliver();
      },
      (error: unknown) => {
        if (this.#closed) return;
        this.#events.lost(slot.info, asError(error));
        this.#drop(slot);
      },
    );
  }

  #drop(slot: Slot): void {
    slot.dropped = true;
    this.#deliver();
  }

  #dropVideo(): void {
    for (const slot of this.#slots) {
      if (slot.info.format === "h264" && !slot.picture) slot.dropped = true;
    }
    this.#deliver();
  }

  /** So many pictures in a decoder mean that it hangs: begin again. */
  #overflow(): void {
    for (const slot of this.#slots) slot.dropped = true;
    this.#video.close();
    this.#deliver();
  }

  #deliver(): void {
    while (this.#slots[0]?.dropped || this.#slots[0]?.picture) {
      const slot = this.#slots.shift() as Slot;
      if (slot.dropped || !slot.picture) slot.picture?.close();
      else {
        const { info, picture, bytes, receivedMs, decodedMs } = slot;
        this.#events.decoded({ info, picture, bytes, receivedMs, decodedMs });
      }
    }
  }
}
