/**
 * Where moments stand on a strip of so many cells. While there are few, each has a cell; then every
 * second, third, fourth, sixth, so that a picture stays where it is until the strip is full and folds.
 */

export interface Strip {
  /** Indices of the moments that are drawn, one per cell. */
  readonly cells: readonly number[];
  /** How much of the strip is filled, in [0, 1]. */
  readonly filled: number;
}

export function strip(moments: number, cells: number): Strip {
  const room = Math.max(1, cells);
  let stride = 1;
  for (let whole = 1; moments > room * stride; whole *= 2) {
    stride = moments > room * 2 * whole ? 3 * whole : 2 * whole;
  }
  const drawn = Math.ceil(moments / stride);
  return {
    cells: Array.from({ length: drawn }, (_, i) => i * stride),
    filled: moments / (room * stride),
  };
}

/** The moment at `share` of the strip, from its left; `moments` (now) right of them all. */
export function momentAt(share: number, filled: number, moments: number): number {
  if (moments === 0 || filled <= 0) return moments;
  return Math.min(moments, Math.max(0, Math.floor((share / filled) * moments)));
}

/** Where the needle stands, as a share of the strip: on the middle of a moment, or behind the last. */
export function shareOf(index: number, filled: number, moments: number): number {
  if (moments === 0) return 0;
  return index >= moments ? filled : (filled * (index + 0.5)) / moments;
}

/** `0:23`, `12:05`. */
export function clockWords(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

export function agoWords(seconds: number): string {
  if (seconds < 1) return "just now";
  return seconds < 90 ? `${Math.round(seconds)} s ago` : `${Math.round(seconds / 60)} min ago`;
}
