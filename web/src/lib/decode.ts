/** Frame batches to bitmaps. Encoded images go through the browser's own decoders, off this thread. */

import { splitPayload, type FrameHeader } from "./wire";

const EXACT: ImageBitmapOptions = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

export async function decodeBatch(header: FrameHeader, payload: Uint8Array): Promise<ImageBitmap[]> {
  const parts = splitPayload(header, payload);
  const raw = header.contentType === "application/x-raw-rgb";
  return Promise.all(
    parts.map((part) => (raw ? rawFrame(header, part) : encodedFrame(header.contentType, part))),
  );
}

function encodedFrame(type: string, bytes: Uint8Array): Promise<ImageBitmap> {
  return createImageBitmap(new Blob([bytes as Uint8Array<ArrayBuffer>], { type }), EXACT);
}

function rawFrame(header: FrameHeader, rgb: Uint8Array): Promise<ImageBitmap> {
  const image = new ImageData(header.width, header.height);
  image.data.set(rgbToRgba(rgb));
  return createImageBitmap(image, EXACT);
}

export function rgbToRgba(rgb: Uint8Array): Uint8ClampedArray {
  const rgba = new Uint8ClampedArray((rgb.length / 3) * 4);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    rgba[to] = rgb[from] as number;
    rgba[to + 1] = rgb[from + 1] as number;
    rgba[to + 2] = rgb[from + 2] as number;
    rgba[to + 3] = 255;
  }
  return rgba;
}
