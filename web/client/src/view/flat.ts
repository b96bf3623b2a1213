/**
 * The painter without a graphics card: nearly the same on the processor, at fewer pixels, because the
 * model may be running on that very processor. A turn is drawn as its nearest affine map.
 */

import type { Picture } from "../media/codecs.js";
import { resize, type Drawing, type Painter } from "./drawing.js";
import { affineAt, IDENTITY, type Mat3 } from "./homography.js";

const MAX_SIDE = 960;

export class FlatPainter implements Painter {
  readonly kind = "2d";
  readonly #canvas: HTMLCanvasElement;
  readonly #context: CanvasRenderingContext2D;
  #frame: Picture | null = null;
  #before: Picture | null = null;

  constructor(canvas: HTMLCanvasElement, context: CanvasRenderingContext2D) {
    this.#canvas = canvas;
    this.#context = context;
  }

  get frame(): Picture | null {
    return this.#frame;
  }

  take(frame: Picture): void {
    this.#before?.close();
    this.#before = this.#frame;
    this.#frame = frame;
  }

  draw({ share, turn, turnBefore }: Drawing): void {
    if (!this.#frame) return;
    resize(this.#canvas, this.#frame, MAX_SIDE);
    this.#context.imageSmoothingQuality = "high";
    if (share < 1 && this.#before) this.#put(this.#before, turnBefore, 1);
    this.#put(this.#frame, turn, share < 1 && this.#before ? share : 1);
  }

  dispose(): void {
    this.#frame?.close();
    this.#before?.close();
    this.#frame = this.#before = null;
  }

  #put(frame: Picture, turn: Mat3, alpha: number): void {
    const { width, height } = this.#canvas;
    const context = this.#context;
    context.globalAlpha = alpha;
    if (turn !== IDENTITY) {
      // The map says where a point comes from; the canvas wants to know where it goes.
      context.drawImage(frame, 0, 0, width, height); // what the turned frame does not cover
      const inverse = inverted(affineAt(turn, 0.5, 0.5));
      const [a, b, c, d, e, f] = inverse;
      context.setTransform(a, (b * height) / width, (c * width) / height, d, e * width, f * height);
    }
    context.drawImage(frame, 0, 0, width, height);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalAlpha = 1;
  }
}

type Affine = readonly [number, number, number, number, number, number];

function inverted([a, b, c, d, e, f]: Affine): Affine {
  const area = a * d - b * c;
  return [d / area, -b / area, -c / area, a / area, (c * f - d * e) / area, (b * e - a * f) / area];
}
