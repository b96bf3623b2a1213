/** What this browser can decode, and the browser's own decoders behind a small interface for tests. */

import type { Format } from "../protocol.js";

const EXACT: ImageBitmapOptions = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
// Constrained baseline 3.1, the least that the server's stream can be.
const PROBE: VideoDecoderConfig = { codec: "avc1.42E01F", optimizeForLatency: true };

/** What is painted. A video frame is lent by its decoder, which has few; both are closed after use. */
export type Picture = ImageBitmap | VideoFrame;

/** In pixels, as it is to be shown. */
export function sizeOf(picture: Picture): { width: number; height: number } {
  if ("displayWidth" in picture) return { width: picture.displayWidth, height: picture.displayHeight };
  return { width: picture.width, height: picture.height };
}

export interface Codecs {
  /** An encoded picture, `type` as a MIME type. */
  image(bytes: Uint8Array, type: string): Promise<ImageBitmap>;
  /** Packed RGB rows. */
  raw(rgb: Uint8Array, width: number, height: number): Promise<ImageBitmap>;
  /** A copy of a video frame, whose own memory goes back to the decoder. */
  still(frame: VideoFrame): Promise<ImageBitmap>;
  /** Null where the browser hides its video decoder. */
  video: { new (init: VideoDecoderInit): VideoDecoder } | null;
  chunk(init: EncodedVideoChunkInit): EncodedVideoChunk;
}

export function browserCodecs(): Codecs {
  return {
    image: (bytes, type) =>
      createImageBitmap(new Blob([bytes as Uint8Array<ArrayBuffer>], { type }), EXACT),
    raw: (rgb, width, height) => {
      if (rgb.length !== width * height * 3) {
        throw new RangeError(`raw picture: expected ${width * height * 3} bytes, got ${rgb.length}`);
      }
      return createImageBitmap(new ImageData(rgbToRgba(rgb), width, height), EXACT);
    },
    still: async (frame) => {
      try {
        return await createImageBitmap(frame);
      } finally {
        frame.close();
      }
    },
    video: typeof VideoDecoder === "undefined" ? null : VideoDecoder,
    chunk: (init) => new EncodedVideoChunk(init),
  };
}

export function rgbToRgba(rgb: Uint8Array): Uint8ClampedArray<ArrayBuffer> {
  const rgba = new Uint8ClampedArray((rgb.length / 3) * 4);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    rgba[to] = rgb[from] as number;
    rgba[to + 1] = rgb[from + 1] as number;
    rgba[to + 2] = rgb[from + 2] as number;
    rgba[to + 3] = 255;
  }
  return rgba;
}

export interface Support {
  /** Best first. */
  readonly formats: readonly Format[];
  /** Why H.264 is not among them, in words for a visitor; null when it is. */
  readonly reason: string | null;
}

const PICTURES: readonly Format[] = ["jpeg", "webp", "raw"];

/** What can be decoded here. `secure` is the page's `isSecureContext`. */
export async function supported(codecs: Codecs, secure: boolean): Promise<Support> {
  if (!codecs.video) {
    const reason = secure
      ? "This browser has no video decoder for pages, so the world is sent as single pictures."
      : "This page came over plain http from another machine, where browsers hide their video decoder. " +
        "The world is sent as single pictures; open it over https for video.";
    return { formats: PICTURES, reason };
  }
  const known = codecs.video as unknown as typeof VideoDecoder;
  const answer = await known.isConfigSupported?.(PROBE).catch(() => null);
  if (answer?.supported === true) return { formats: ["h264", ...PICTURES], reason: null };
  return { formats: PICTURES, reason: "This browser cannot decode H.264, so the world is sent as single pictures." };
}
