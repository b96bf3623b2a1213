/** What a painter is told, and the size it draws at. */

import { sizeOf, type Picture } from "../media/codecs.js";
import { IDENTITY, type Mat3 } from "./homography.js";

/** How the newest frame, and the one before while they are blended, are drawn. */
export interface Drawing {
  /** Weight of the newest frame; below 1 the one before shines through. */
  readonly share: number;
  /** Where each point of the view is in the newest frame, in shares of the picture. */
  readonly turn: Mat3;
  readonly turnBefore: Mat3;
}

export const PLAIN: Drawing = { share: 1, turn: IDENTITY, turnBefore: IDENTITY };

export type PainterKind = "webgl" | "2d";

export interface Painter {
  readonly kind: PainterKind;
  /** The newest frame, which stays the painter's own. */
  readonly frame: Picture | null;
  /** Takes ownership of a new frame; the one before can still be blended. */
  take(frame: Picture): void;
  draw(drawing: Drawing): void;
  dispose(): void;
}

/** Size of the drawing buffer: the shown size in device pixels, capped, in the frame's own shape. */
export function bufferSize(
  frame: { width: number; height: number },
  shown: { width: number; height: number },
  options: { ratio: number; maxSide: number },
): { width: number; height: number } {
  const fit = Math.min(shown.width / frame.width, shown.height / frame.height) * options.ratio;
  const cap = options.maxSide / Math.max(frame.width, frame.height);
  const scale = Math.max(1, Math.min(fit, cap));
  return { width: Math.round(frame.width * scale), height: Math.round(frame.height * scale) };
}

export function resize(canvas: HTMLCanvasElement, frame: Picture, maxSide: number): void {
  const shown = { width: canvas.clientWidth, height: canvas.clientHeight };
  const size = bufferSize(sizeOf(frame), shown, { ratio: globalThis.devicePixelRatio || 1, maxSide });
  if (canvas.width !== size.width) canvas.width = size.width;
  if (canvas.height !== size.height) canvas.height = size.height;
}
