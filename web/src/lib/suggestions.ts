/** Prompts to offer while walking: the other worlds of the gallery, in the gallery's own words. */

import type { GalleryEntry } from "./picture";

export interface Suggestion {
  readonly world: string;
  readonly prompt: string;
}

/**
 * At most `count` worlds other than `here`: first the same place in another light, then those that
 * follow `here` in the gallery, so that every world offers others.
 */
export function suggestions(
  gallery: readonly GalleryEntry[],
  here: string | null,
  count: number,
): Suggestion[] {
  const worlds = new Map<string, GalleryEntry>();
  for (const entry of gallery) {
    if (entry.world !== undefined && !worlds.has(entry.world)) worlds.set(entry.world, entry);
  }
  const all = [...worlds.values()];
  const at = all.findIndex((entry) => entry.world === here);
  const others = at < 0 ? all : [...all.slice(at + 1), ...all.slice(0, at)];
  const layout = all[at]?.layout;
  const twin = (entry: GalleryEntry): boolean => layout !== undefined && entry.layout === layout;
  return [...others.filter(twin), ...others.filter((entry) => !twin(entry))]
    .slice(0, count)
    .map((entry) => ({ world: entry.world ?? entry.name, prompt: entry.prompt }));
}
