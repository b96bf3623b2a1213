/** The ways into a world. */

import type { Picture } from "../lib/picture";

export interface EnterRequest {
  readonly picture: Picture;
  readonly prompt: string;
  /** The gallery's world that this begins in; null for a picture or words of one's own. */
  readonly place: string | null;
  readonly seed: number;
  /** Width and height in pixels; null leaves them to the model. */
  readonly size: readonly [number, number] | null;
}

export type Way =
  | { readonly kind: "enter"; readonly request: EnterRequest; readonly image: Uint8Array }
  /** A world file: what was walked in it is walked again, until somebody takes the keys. */
  | { readonly kind: "file"; readonly world: Uint8Array }
  /** The world of this tab before it was loaded anew. */
  | { readonly kind: "rejoin"; readonly token: string; readonly url: string; readonly place: string | null }
  /** Somebody else's world. */
  | { readonly kind: "watch"; readonly world: string };
