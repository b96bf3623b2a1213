/** Start pictures: from the server's gallery, or anything a visitor drops, pastes or chooses. */

const MAX_SIDE = 1280; // more than any model takes; keeps the upload small
const JPEG_QUALITY = 0.95;

export interface Picture {
  readonly name: string;
  /** What is looked at; it may be a larger rendering of what is sent. */
  readonly url: string;
  readonly own: boolean;
  readonly portrait: boolean;
  readonly bytes: () => Promise<Uint8Array>;
}

export interface GalleryEntry {
  readonly name: string;
  readonly file: string;
  readonly prompt: string;
  readonly seed: number;
  /** A larger rendering of the same view, and a small one; both are only looked at. */
  readonly preview?: string;
  readonly tile?: string;
  /** Which world this is, and what worlds of the same shapes have in common. */
  readonly world?: string;
  readonly layout?: string;
}

export function galleryUrl(file: string): string {
  return new URL(`gallery/${encodeURIComponent(file)}`, document.baseURI).href;
}

/** Every file of the gallery is sent as it lies on the server, so a walk can be repeated exactly. */
export function galleryPicture(entry: GalleryEntry): Picture {
  const url = galleryUrl(entry.preview ?? entry.file);
  const bytes = async (): Promise<Uint8Array> => {
    const reply = await fetch(galleryUrl(entry.file));
    if (!reply.ok) throw new Error(`the start picture could not be fetched (${reply.status})`);
    return new Uint8Array(await reply.arrayBuffer());
  };
  return { name: entry.name, url, own: false, portrait: false, bytes };
}

/**
 * Redraws a visitor's picture as a JPEG of at most 1280 pixels a side: turned upright, without its
 * metadata, and in a format the server reads even if only this browser knew the original one.
 */
export async function ownPicture(file: Blob, name: string): Promise<Picture> {
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error("This file is not a picture that this browser can read.");
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser cannot draw pictures.");
  context.fillStyle = "#fff"; // what shows through transparent pictures
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise<Blob | null>((resolve) =>
    canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY),
  );
  if (!blob) throw new Error("This picture could not be prepared.");
  return {
    name,
    url: URL.createObjectURL(blob),
    own: true,
    portrait: canvas.height > canvas.width,
    bytes: async () => new Uint8Array(await blob.arrayBuffer()),
  };
}

export function firstImage(data: DataTransfer | null): File | null {
  if (!data) return null;
  return [...data.files].find((file) => file.type.startsWith("image/")) ?? data.files[0] ?? null;
}
