/**
 * From frames to the canvas: decoding, the queue, the timewarp, painting, and the reports the server
 * needs (playhead, key frames). One per world; it lives through reconnects, so the last frame stays.
 */

import type { Environment } from "./environment.js";
import { sizeOf, type Codecs } from "./media/codecs.js";
import { Decoders, type Decoded, type DecoderEvents } from "./media/decoders.js";
import { Playout, type PlayoutOptions } from "./media/playout.js";
import { FrameMeter, RateMeter } from "./meters.js";
import type { TimewarpOptions } from "./options.js";
import type { Frame, Opened } from "./protocol.js";
import { Cell } from "./signals.js";
import { PLAIN, type Drawing, type Painter, type PainterKind } from "./view/drawing.js";
import { Gaze } from "./view/gaze.js";
import { homography, IDENTITY, normalised, type Intrinsics, type Mat3, type View } from "./view/homography.js";
import { createPainter } from "./view/painter.js";

const REPORT_MS = 100;
const FLAT_MS = 30; // between turns without a graphics card: the model may need that processor
const TURN_EPSILON = 0.02; // degrees that nobody sees; saves drawing

/** A frame that was painted. */
export interface Painted {
  readonly number: number;
  readonly chunk: number;
  readonly latentFrame: number;
  readonly input: number;
  readonly yaw: number;
  readonly pitch: number;
  readonly width: number;
  readonly height: number;
  /** Local ms; `encodedMs` is server time. */
  readonly encodedMs: number;
  readonly receivedMs: number;
  readonly decodedMs: number;
  readonly paintedMs: number;
  /** How long until the display shows what was painted, by its refresh rate. */
  readonly displayMs: number;
  readonly jump: boolean;
}

export interface ScreenEvents {
  painted(painted: Painted): void;
  /** The playhead is to be reported. */
  report(frame: number, leadMs: number, counts: { stalls: number; dropped: number }): void;
  decoder: Pick<DecoderEvents, "needKey" | "dead" | "lost">;
}

export interface ScreenOptions {
  readonly environment: Environment;
  readonly codecs: Codecs;
  readonly painter: "auto" | PainterKind;
  readonly playout: PlayoutOptions;
  readonly timewarp: TimewarpOptions | null;
}

export class Screen {
  readonly size = new Cell<{ readonly width: number; readonly height: number } | null>(null);
  readonly frames = new FrameMeter();
  readonly rate = new RateMeter();
  readonly #options: ScreenOptions;
  readonly #events: ScreenEvents;
  #playoutOptions: PlayoutOptions;
  #timewarp: TimewarpOptions | null;
  #playout: Playout<Decoded>;
  #decoders: Decoders;
  #painter: Painter | null = null;
  #canvas: HTMLCanvasElement | null = null;
  #opened: Opened | null = null;
  #from = 0; // pictures before this number are no part of the walk any more
  #lens: Intrinsics = [1, 1, 0.5, 0.5];
  #gaze: Gaze | null = null;
  #speed = 1;
  #newest: Painted | null = null;
  #before: View | null = null;
  #blendFrom = Number.NEGATIVE_INFINITY;
  #drawn: Drawing | null = null;
  #drawnMs = Number.NEGATIVE_INFINITY;
  #dirty = false;
  #active = false;
  #reportedMs = Number.NEGATIVE_INFINITY;
  #tickMs: number | null = null;
  #refreshMs = 16;

  constructor(options: ScreenOptions, events: ScreenEvents) {
    this.#options = options;
    this.#events = events;
    this.#playoutOptions = options.playout;
    this.#timewarp = options.timewarp;
    this.#playout = this.#newPlayout(16);
    this.#decoders = this.#newDecoders();
  }

  get gaze(): Gaze | null {
    return this.#gaze;
  }

  get newest(): Painted | null {
    return this.#newest;
  }

  get playout(): Playout<Decoded> {
    return this.#playout;
  }

  get canvas(): HTMLCanvasElement | null {
    return this.#canvas;
  }

  get painter(): Painter | null {
    return this.#painter;
  }

  /** Video that is queued, in ms. */
  get leadMs(): number {
    const waiting = this.#playout.length + this.#decoders.pending;
    return (1000 * waiting) / (this.#opened?.fps ?? 16);
  }

  set playoutOptions(options: PlayoutOptions) {
    this.#playoutOptions = this.#playout.options = options;
  }

  get playoutOptions(): PlayoutOptions {
    return this.#playoutOptions;
  }

  set timewarp(options: TimewarpOptions | null) {
    this.#timewarp = options;
    this.#makeGaze();
    this.#dirty = true;
  }

  get timewarp(): TimewarpOptions | null {
    return this.#timewarp;
  }

  get speed(): number {
    return this.#speed;
  }

  /** Scales what the hand's motions turn, as the world's own setting does. */
  set speed(speed: number) {
    this.#speed = speed;
    if (this.#gaze) this.#gaze.speed = speed;
  }

  /** Paints on `canvas` from now on. */
  attach(canvas: HTMLCanvasElement): () => void {
    this.#painter?.dispose();
    this.#canvas = canvas;
    const painter = (this.#painter = createPainter(canvas, this.#options.painter));
    const observer = new ResizeObserver(() => (this.#dirty = true));
    observer.observe(canvas);
    return () => {
      observer.disconnect();
      painter.dispose();
      if (this.#painter !== painter) return;
      this.#painter = this.#canvas = null;
      this.#newest = null;
    };
  }

  /** The world is open, for the first time or again. */
  open(opened: Opened): void {
    this.#playout.clear();
    this.#from = 0;
    if (this.#opened?.fps !== opened.fps) this.#playout = this.#newPlayout(opened.fps);
    this.#opened = opened;
    this.#lens = normalised(opened.intrinsics, opened.width, opened.height);
    this.#decoders.close();
    this.#decoders = this.#newDecoders();
    this.#makeGaze();
    this.#active = true;
  }

  /** The world stands still on purpose, or is not there: no frame is late now. */
  rest(): void {
    this.#active = false;
    this.#playout.rest();
    this.frames.rest();
  }

  /** The world goes on. */
  wake(): void {
    if (!this.#active) this.#gaze?.forget();
    this.#active = true;
  }

  /** The walk went back: the next picture to show is `number`, whatever was made before it. */
  cut(number: number): void {
    this.#from = number;
    this.#playout.clear();
    this.#gaze?.reset();
    this.#report(this.#options.environment.now(), true); // nothing is queued: the server need not wait
  }

  /** A picture that was decoded elsewhere. */
  push(decoded: Decoded): void {
    if (decoded.info.number < this.#from) return decoded.picture.close();
    this.#playout.push(decoded, this.#options.environment.now());
  }

  take(frame: Frame, receivedMs: number): void {
    this.rate.add(frame.payload.length, receivedMs);
    this.#decoders.take(frame, receivedMs);
  }

  /** Once per picture of the display. */
  tick(nowMs: number): void {
    this.#measureRefresh(nowMs);
    const taken = this.#painter ? this.#playout.take(nowMs) : null;
    if (this.#gaze && this.#opened) this.#gaze.fps = Math.min(this.#opened.fps, this.#playout.rate);
    if (taken) this.#show(taken.item, taken.jump, nowMs);
    this.#draw(nowMs);
    if (taken || nowMs - this.#reportedMs > 10 * REPORT_MS) this.#report(nowMs, taken?.item.info.first === true);
  }

  /** Draws now what was drawn last; null before the first frame. */
  redraw(): HTMLCanvasElement | null {
    if (!this.#drawn || !this.#painter) return null;
    this.#painter.draw(this.#drawn);
    return this.#canvas;
  }

  close(): void {
    this.#decoders.close();
    this.#playout.clear();
  }

  #show(decoded: Decoded, jump: boolean, nowMs: number): void {
    const { info, picture } = decoded;
    this.#before = this.#newest;
    const { number, chunk, input, yaw, pitch } = info;
    const size = sizeOf(picture);
    const times = { encodedMs: info.encoded_ms, receivedMs: decoded.receivedMs, decodedMs: decoded.decodedMs };
    const place = { number, chunk, latentFrame: info.latent_frame, input, yaw, pitch, ...size };
    this.#newest = { ...place, ...times, paintedMs: nowMs, displayMs: this.#refreshMs, jump };
    this.#painter?.take(picture);
    if (jump) this.#blendFrom = nowMs;
    this.#dirty = true;
    this.frames.painted(nowMs);
    this.#gaze?.painted({ yaw, pitch, input }, nowMs);
    const old = this.size.value;
    if (old?.width !== size.width || old.height !== size.height) this.size.value = size;
    this.#events.painted(this.#newest);
  }

  /** Draws when something changed: a frame, its turn, or a blend under way. */
  #draw(nowMs: number): void {
    const frame = this.#newest;
    if (!this.#painter || !frame) return;
    const blendMs = this.#playoutOptions.blendMs;
    const share = blendMs > 0 ? Math.min(1, (nowMs - this.#blendFrom + this.#refreshMs) / blendMs) : 1;
    const asked = this.#active ? this.#gaze?.at(nowMs) : null;
    const drawing = this.#gaze ? this.#turned(frame, asked ?? frame, share) : { ...PLAIN, share };
    if (!this.#dirty && this.#drawn && sameDrawing(this.#drawn, drawing)) return;
    const busy = this.#painter.kind === "2d" && nowMs - this.#drawnMs < FLAT_MS;
    if (!this.#dirty && busy && share === 1) return;
    this.#painter.draw(drawing);
    this.#drawn = drawing;
    this.#drawnMs = nowMs;
    this.#dirty = false;
  }

  #turned(frame: Painted, view: View, share: number): Drawing {
    const zoom = 1 + (this.#timewarp?.overscan ?? 0);
    const from = (taken: View): Mat3 => {
      const near = Math.abs(view.yaw - taken.yaw) + Math.abs(view.pitch - taken.pitch) < TURN_EPSILON;
      if (near && zoom === 1) return IDENTITY;
      return homography(this.#lens, taken, near ? taken : view, zoom);
    };
    return { share, turn: from(frame), turnBefore: share < 1 && this.#before ? from(this.#before) : IDENTITY };
  }

  #report(nowMs: number, atOnce: boolean): void {
    if (!this.#newest || !this.#active) return;
    if (!atOnce && nowMs - this.#reportedMs < REPORT_MS) return;
    this.#reportedMs = nowMs;
    const { stalls, dropped } = this.#playout;
    const frame = Math.max(this.#newest.number, this.#from - 1);
    this.#events.report(frame, this.leadMs, { stalls: stalls.count, dropped });
  }

  /** The shortest time between two ticks of late is the display's refresh. */
  #measureRefresh(nowMs: number): void {
    const ms = this.#tickMs === null ? 0 : nowMs - this.#tickMs;
    this.#tickMs = nowMs;
    if (ms <= 2 || ms >= 100) return;
    const weight = ms < this.#refreshMs ? 0.2 : 0.02;
    this.#refreshMs += (Math.min(ms, 50) - this.#refreshMs) * weight;
  }

  #makeGaze(): void {
    if (!this.#timewarp || !this.#opened) {
      this.#gaze = null;
      return;
    }
    const { rig, fps, latent_frames } = this.#opened;
    const { maxDegrees } = this.#timewarp;
    this.#gaze = new Gaze({ rig, fps, latentFrames: latent_frames, maxDegrees, speed: this.#speed });
  }

  #newPlayout(fps: number): Playout<Decoded> {
    return new Playout<Decoded>(fps, this.#playoutOptions, (old) => old.picture.close());
  }

  #newDecoders(): Decoders {
    const now = this.#options.environment.now;
    return new Decoders(this.#options.codecs, {
      ...this.#events.decoder,
      now,
      decoded: (decoded) => this.push(decoded),
    });
  }
}

function sameDrawing(a: Drawing, b: Drawing): boolean {
  return a.share === b.share && a.turn.every((value, i) => Math.abs(value - (b.turn[i] as number)) < 1e-5);
}
