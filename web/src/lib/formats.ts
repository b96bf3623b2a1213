/** Which picture formats this browser can show here, and why not the best one. */

import { signal, type ReadonlySignal } from "@preact/signals";
import { browserCodecs, supported, type Format, type Support } from "@worldline/client";

const PICTURES: Support = { formats: ["jpeg", "webp", "raw"], reason: null };

/** Asks the browser; until it has answered single pictures are all there is. */
export function askFormats(): ReadonlySignal<Support> {
  const support = signal(PICTURES);
  void supported(browserCodecs(), globalThis.isSecureContext).then((found) => (support.value = found));
  return support;
}

/**
 * What to ask the server for: `wish` first, and what else can be shown should it not have that. Null
 * leaves it to the client library, which asks the browser itself: a world may begin before it answered.
 */
export function wanted(wish: Format | "auto", support: Support): readonly Format[] | null {
  if (wish === "auto" || !support.formats.includes(wish)) return null;
  return [wish, ...support.formats.filter((format) => format !== wish)];
}
