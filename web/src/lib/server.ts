/** The server's plain HTTP answers: which model it serves, whether it is ready, its gallery. */

import type { GalleryEntry } from "./picture";

const DEFAULT_FPS = 16;

export interface ModelInfo {
  readonly id: string;
  readonly family: string;
  readonly fps: number;
  readonly sizes: readonly (readonly [number, number])[];
  readonly notice: string | null;
}

/** `access` is the key of a server that asks for one. */
export async function fetchModel(access: string | null): Promise<ModelInfo | null> {
  const body = await json("v1/models", access);
  const list = field(body, "data");
  const entry: unknown = Array.isArray(list) ? list[0] : null;
  const id = field(entry, "id");
  if (typeof id !== "string") return null;
  const info = field(entry, "info");
  const family = field(info, "family");
  const sizes = field(info, "sizes");
  const notice = field(info, "notice");
  return {
    id,
    family: typeof family === "string" ? family : id,
    fps: count(field(info, "fps")) ?? DEFAULT_FPS,
    sizes: Array.isArray(sizes) ? sizes.filter(isSize) : [],
    notice: typeof notice === "string" ? notice : null,
  };
}

export async function fetchGallery(): Promise<GalleryEntry[]> {
  const body = await json("gallery/gallery.json");
  return Array.isArray(body) ? body.filter(isEntry) : [];
}

/** The world file that the server was started with; throws where it has none. */
export async function fetchWorldFile(): Promise<Uint8Array> {
  const reply = await fetch(address("v1/world.wl"), { cache: "no-store" });
  if (!reply.ok) throw new Error("This server has no world to walk into. Choose where to begin.");
  return new Uint8Array(await reply.arrayBuffer());
}

/** True once the model has run its warm-up; false while it has not or nobody answers. */
export async function isReady(): Promise<boolean> {
  try {
    return (await fetch(address("readyz"), { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

/** The size to ask for: null for the model's own; its upright one, if it has one, for a tall picture. */
export function requestedSize(model: ModelInfo | null, portrait: boolean): readonly [number, number] | null {
  return (portrait && model?.sizes.find(([width, height]) => height > width)) || null;
}

/** Where worlds are live. */
export function liveUrl(): string {
  return address("v1/worlds/live");
}

/** The page's own address that leads a spectator to a world. */
export function watchUrl(world: string): string {
  const url = new URL(document.baseURI);
  url.search = "";
  url.hash = `watch=${encodeURIComponent(world)}`;
  return url.href;
}

/** The page's own address that walks into a branch; `url` is what the server said of it. */
export function branchUrl(url: string): string {
  const found = new URL(document.baseURI);
  found.search = "";
  found.hash = new URL(url, document.baseURI).hash;
  return found.href;
}

/** One file of a recording, or with null all of them; `url` is what the server said of it. */
export function takeUrl(url: string, file: string | null): string {
  const take = new URL(url, document.baseURI);
  if (file !== null) take.pathname += `/${file}`;
  return take.href;
}

async function json(path: string, access: string | null = null): Promise<unknown> {
  const headers: HeadersInit = access === null ? {} : { Authorization: `Bearer ${access}` };
  try {
    const reply = await fetch(address(path), { headers });
    return reply.ok ? ((await reply.json()) as unknown) : null;
  } catch {
    return null;
  }
}

function address(path: string): string {
  return new URL(path, document.baseURI).href;
}

function field(value: unknown, key: string): unknown {
  return value !== null && typeof value === "object" ? (value as Record<string, unknown>)[key] : undefined;
}

function count(value: unknown): number | null {
  return typeof value === "number" && value > 0 ? value : null;
}

function isSize(value: unknown): value is [number, number] {
  return Array.isArray(value) && value.length === 2 && value.every((n) => count(n) !== null);
}

function isEntry(value: unknown): value is GalleryEntry {
  return (
    typeof field(value, "name") === "string" &&
    typeof field(value, "file") === "string" &&
    typeof field(value, "prompt") === "string" &&
    typeof field(value, "seed") === "number" &&
    ["preview", "tile", "world", "layout"].every((name) =>
      ["string", "undefined"].includes(typeof field(value, name)),
    )
  );
}
