/** A world as a page sees it: signals to show, methods to call, a canvas to paint on. */

import type { Answered } from "./answers.js";
import { browserEnvironment, type Store } from "./environment.js";
import { WorldError } from "./errors.js";
import type { Figures } from "./figures.js";
import type { Hands } from "./hands/hands.js";
import { sizeOf } from "./media/codecs.js";
import type { PlayoutOptions } from "./media/playout.js";
import { socketUrl, timewarpOptions, type ConnectOptions, type TimewarpOptions } from "./options.js";
import { fitting, type Path } from "./path/path.js";
import type { PathRecorder } from "./path/recorder.js";
import { probe, type Probe } from "./probe.js";
import type * as Wire from "./protocol.js";
import type { Receipt } from "./receipts.js";
import { SeatBook, type Resumable } from "./seatbook.js";
import type { Ended, Phase, Retry } from "./session.js";
import type { Signal, Unsubscribe } from "./signals.js";
import type { Thumbnail } from "./timeline.js";
import { Visit, type DecoderState, type WorldEvents } from "./visit.js";

/** Enters, watches or comes back to a world. Returns at once; `phase` says how it goes. */
export function connect(url: string | URL, options: ConnectOptions): World {
  return new World(socketUrl(url), options);
}

/** The world that a refreshed page can come back to: `connect(found.url, { start: { rejoin: found.token } })`. */
export function resumable(storage?: Store | null): Resumable | null {
  const store = storage === undefined ? browserEnvironment().store : storage;
  return new SeatBook(store).read();
}

export class World {
  readonly #visit: Visit;
  #cancelFrame: (() => void) | null = null;

  /** Use `connect`. */
  constructor(url: string, options: ConnectOptions) {
    this.#visit = new Visit(url, options);
  }

  /** What is held and turned, by any device. */
  get hands(): Hands {
    return this.#visit.hands;
  }

  get phase(): Signal<Phase> {
    return this.#visit.session.phase;
  }

  get state(): Signal<Wire.State | null> {
    return this.#visit.session.state;
  }

  get ready(): Signal<Wire.Ready | null> {
    return this.#visit.session.ready;
  }

  get queue(): Signal<Wire.Queued | null> {
    return this.#visit.session.queue;
  }

  get seat(): Signal<Wire.Seat | null> {
    return this.#visit.session.seat;
  }

  get opened(): Signal<Wire.Opened | null> {
    return this.#visit.session.opened;
  }

  get control(): Signal<Wire.ControlOf | null> {
    return this.#visit.session.control;
  }

  get retry(): Signal<Retry | null> {
    return this.#visit.session.retry;
  }

  get ended(): Signal<Ended | null> {
    return this.#visit.session.ended;
  }

  get decoder(): Signal<DecoderState | null> {
    return this.#visit.decoder;
  }

  get recording(): Signal<Wire.Recording | null> {
    return this.#visit.recording;
  }

  /** The walk so far in thumbnails, in order; empty for who has no controls. */
  get moments(): Signal<readonly Thumbnail[]> {
    return this.#visit.timeline.moments;
  }

  get figures(): Signal<Figures> {
    return this.#visit.figures;
  }

  /** Of the picture that is painted; null before the first. */
  get size(): Signal<{ readonly width: number; readonly height: number } | null> {
    return this.#visit.screen.size;
  }

  on<Name extends keyof WorldEvents>(name: Name, listener: (event: WorldEvents[Name]) => void): Unsubscribe {
    return this.#visit.events.on(name, listener);
  }

  /** Paints on `canvas` from now on; returns the way to stop. */
  attach(canvas: HTMLCanvasElement): () => void {
    const detach = this.#visit.screen.attach(canvas);
    this.#cancelFrame?.();
    const tick = (): void => {
      this.#cancelFrame = this.#visit.environment.frame(tick);
      this.#visit.tick(this.#visit.environment.now());
    };
    this.#cancelFrame = this.#visit.environment.frame(tick);
    return () => {
      detach();
      if (this.#visit.screen.canvas) return; // another canvas took over
      this.#cancelFrame?.();
      this.#cancelFrame = null;
    };
  }

  /** New words; `shown` of the receipt resolves when they are on screen. */
  prompt(text: string, { blendChunks = 0 }: { blendChunks?: number } = {}): Receipt {
    return this.#visit.session.input({ type: "prompt", text, blend_chunks: blendChunks });
  }

  pause(): Receipt {
    return this.#visit.session.input({ type: "pause" });
  }

  resume(): Receipt {
    return this.#visit.session.input({ type: "resume" });
  }

  /** Back to the start picture, with the same seed or another. */
  reset(seed?: number): Receipt {
    this.#visit.screen.gaze?.reset();
    const receipt = this.#visit.session.input({ type: "reset", ...(seed === undefined ? {} : { seed }) });
    void receipt.received.then(() => this.#visit.timeline.clear(), () => undefined);
    return receipt;
  }

  /** Back to before a chunk of the walk (of a moment), or by so many seconds; `rewound` says when it stands there. */
  rewind(to: { readonly chunk: number } | { readonly seconds: number }): Receipt {
    const place = "chunk" in to ? { chunk: to.chunk } : { seconds: to.seconds };
    return this.#visit.session.input({ type: "rewind", ...place });
  }

  /** A second world that begins here, or before `chunk`; this one goes on. Its token is a secret. */
  branch(chunk?: number): Answered<Wire.Branched> {
    return this.#visit.session.ask({ type: "branch", ...(chunk === undefined ? {} : { chunk }) });
  }

  /** The walk as a world file, which can be fetched at the answer's url. */
  save(): Answered<Wire.Saved> {
    return this.#visit.session.ask({ type: "save" });
  }

  settings(change: Omit<Wire.Settings, "type" | "id" | "at_ms">): Receipt {
    if (typeof change.speed === "number") this.#visit.screen.speed = change.speed;
    if (change.format) this.#visit.session.prefer(change.format);
    return this.#visit.session.input({ type: "settings", ...change });
  }

  /** Walks a camera path, relative to where the camera is. */
  play(path: Path, { loop = false }: { loop?: boolean } = {}): Receipt {
    const { poses, rate } = fitting(path);
    return this.#visit.session.input({ type: "camera", poses, rate, loop });
  }

  /** Actions per latent frame, then standing still. */
  script(frames: readonly (readonly Wire.Action[])[]): Receipt {
    return this.#visit.session.input({ type: "script", frames });
  }

  /** Lets go of everything, paths and scripts too. */
  release(): Receipt {
    this.hands.releaseAll();
    return this.#visit.session.input({ type: "release" });
  }

  /** Begins or ends a recording on the server. */
  record(on: boolean): Receipt {
    return this.#visit.session.input({ type: "record", on });
  }

  /** Begins or ends a Chrome trace of this session. */
  trace(on: boolean): Receipt {
    return this.#visit.session.input({ type: "trace", on });
  }

  askControl(): Receipt {
    return this.#visit.session.input({ type: "ask_control" });
  }

  giveControl(viewer: string): Receipt {
    return this.#visit.session.input({ type: "give_control", viewer });
  }

  /** Records the path that is walked. */
  recorder(): PathRecorder {
    return this.#visit.recorder;
  }

  /** The newest true frame, as it came, not turned and not blended. */
  async screenshot(type = "image/png"): Promise<Blob> {
    const frame = this.#visit.screen.painter?.frame;
    if (!frame) throw new WorldError("not_open", "there is no picture yet", { retryable: true });
    const { width, height } = sizeOf(frame);
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d")?.drawImage(frame, 0, 0);
    return canvas.convertToBlob({ type });
  }

  setTimewarp(wish: boolean | Partial<TimewarpOptions>): void {
    this.#visit.screen.timewarp = timewarpOptions(wish);
  }

  /** The timewarp as it is set; null while it is off. */
  get timewarp(): TimewarpOptions | null {
    return this.#visit.screen.timewarp;
  }

  setPlayout(change: Partial<PlayoutOptions>): void {
    this.#visit.screen.playoutOptions = { ...this.#visit.screen.playoutOptions, ...change };
    if (change.leadMs !== undefined && this.#visit.session.holds) this.settings({ lead_ms: change.leadMs });
  }

  get playout(): PlayoutOptions {
    return this.#visit.screen.playoutOptions;
  }

  /** Does not wait for the next attempt; after a retryable end it begins anew. */
  retryNow(): void {
    this.#visit.session.retryNow();
  }

  /** Ends the world (its holder) or stops watching. */
  leave(): void {
    this.#visit.session.leave();
    this.#visit.close();
  }

  /** Closes this connection only; the world waits its grace time, and `resumable()` finds it. */
  disconnect(): void {
    this.#visit.session.disconnect();
    this.#visit.close();
  }

  /** What a measuring browser reads. */
  probe(): Probe {
    return probe({
      world: this,
      painted: this.#visit.painted,
      inputs: () => this.#visit.ledger.inputs,
      clock: () => this.#visit.session.clock.state,
      now: () => this.#visit.environment.now(),
      redraw: () => this.#visit.screen.redraw(),
    });
  }
}
