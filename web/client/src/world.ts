/**
 * A world as a page sees it: signals to show, methods to call, a canvas to paint on. It joins the
 * session (what the server says), the screen (what is seen), the hands (what is asked for) and the
 * ledger (how long it took); each of them knows nothing of the others.
 */

import { SeatBook, type Resumable } from "./seatbook.js";
import { browserEnvironment, type Environment, type Store } from "./environment.js";
import { WorldError } from "./errors.js";
import { figures, NO_FIGURES, type Figures } from "./figures.js";
import { Hands } from "./hands/hands.js";
import type { Port } from "./hands/outgoing.js";
import type { Draft } from "./inputs.js";
import { Ledger } from "./ledger.js";
import { browserCodecs, supported, type Codecs } from "./media/codecs.js";
import { PLAYOUT, type PlayoutOptions } from "./media/playout.js";
import { socketUrl, timewarpOptions, type ConnectOptions, type TimewarpOptions } from "./options.js";
import { fitting, type Path } from "./path/path.js";
import { PathRecorder } from "./path/recorder.js";
import { PaintedLog, probe, type Probe } from "./probe.js";
import type * as Wire from "./protocol.js";
import type { Receipt } from "./receipts.js";
import { Screen, type Painted } from "./screen.js";
import { Session, type Ended, type Phase, type Retry } from "./session.js";
import { Cell, Emitter, type Signal, type Unsubscribe } from "./signals.js";

const FIGURES_MS = 250;

export interface WorldEvents {
  notice: Wire.Notice;
  /** An input was refused, or something else that ends nothing. */
  refused: WorldError;
  received: Wire.Received;
  applied: Wire.Applied;
  chunk: Wire.Chunk;
  painted: Painted;
  traced: Wire.Traced;
  recorded: Wire.Recording;
  /** Every message of the server but frames. */
  message: Exclude<Wire.ServerMessage, Wire.Frame>;
}

/** How pictures are decoded here; `reason` says in words why not in the best way. */
export interface DecoderState {
  readonly format: Wire.Format;
  readonly kind: "webcodecs" | "images" | "raw";
  readonly reason: string | null;
}

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
  readonly hands: Hands;
  readonly #environment: Environment;
  readonly #codecs: Codecs;
  readonly #options: ConnectOptions;
  readonly #session: Session;
  readonly #screen: Screen;
  readonly #ledger: Ledger;
  readonly #recorder = new PathRecorder();
  readonly #painted = new PaintedLog();
  readonly #events = new Emitter<WorldEvents>();
  readonly #figures = new Cell<Figures>(NO_FIGURES);
  readonly #recording = new Cell<Wire.Recording | null>(null);
  readonly #decoder = new Cell<DecoderState | null>(null);
  #reason: string | null = null;
  #chunk: Wire.Chunk | null = null;
  #figuresMs = 0;
  #playedMs = 0;
  #playingSince: number | null = null;
  #cancelFrame: (() => void) | null = null;

  /** Use `connect`. */
  constructor(url: string, options: ConnectOptions) {
    const environment = options.environment ?? browserEnvironment();
    this.#environment = environment;
    this.#codecs = options.codecs ?? browserCodecs();
    this.#options = options;
    this.#screen = new Screen(
      {
        environment,
        codecs: this.#codecs,
        painter: options.painter ?? "auto",
        playout: { ...PLAYOUT, ...options.playout },
        timewarp: timewarpOptions(options.timewarp),
      },
      {
        painted: (painted) => this.#onPainted(painted),
        report: (frame, lead_ms, counts) => {
          this.#session.send({ type: "playhead", frame, lead_ms, at_ms: environment.now(), ...counts });
        },
        decoder: {
          needKey: () => this.#session.send({ type: "key_frame" }),
          dead: (format, error) => this.#giveUp(format, error),
          lost: (info, error) => {
            const words = `picture ${info.number} could not be decoded: ${error.message}`;
            this.#events.emit("refused", new WorldError("unreadable", words, { retryable: true }));
          },
        },
      },
    );
    const store = options.storage === undefined ? environment.store : options.storage;
    this.#session = new Session(url, options, {
      environment,
      book: new SeatBook(store),
      events: {
        message: (message, at) => this.#onMessage(message, at),
        sent: (id, draft, atMs) => this.#onSent(id, draft, atMs),
        lost: () => this.#onLost(),
        refused: (error) => this.#events.emit("refused", error),
      },
    });
    this.#ledger = new Ledger((serverMs) => this.#session.clock.toLocal(serverMs));
    this.hands = new Hands(this.#port(), {
      moved: (motion, atMs) => this.#screen.gaze?.moved(motion, atMs),
      turned: (yaw, pitch, atMs) => this.#screen.gaze?.turned(yaw, pitch, atMs),
    });
    void this.#begin();
  }

  get phase(): Signal<Phase> {
    return this.#session.phase;
  }

  get state(): Signal<Wire.State | null> {
    return this.#session.state;
  }

  get ready(): Signal<Wire.Ready | null> {
    return this.#session.ready;
  }

  get queue(): Signal<Wire.Queued | null> {
    return this.#session.queue;
  }

  get seat(): Signal<Wire.Seat | null> {
    return this.#session.seat;
  }

  get opened(): Signal<Wire.Opened | null> {
    return this.#session.opened;
  }

  get control(): Signal<Wire.ControlOf | null> {
    return this.#session.control;
  }

  get retry(): Signal<Retry | null> {
    return this.#session.retry;
  }

  get ended(): Signal<Ended | null> {
    return this.#session.ended;
  }

  get decoder(): Signal<DecoderState | null> {
    return this.#decoder;
  }

  get recording(): Signal<Wire.Recording | null> {
    return this.#recording;
  }

  get figures(): Signal<Figures> {
    return this.#figures;
  }

  /** Of the picture that is painted; null before the first. */
  get size(): Signal<{ readonly width: number; readonly height: number } | null> {
    return this.#screen.size;
  }

  on<Name extends keyof WorldEvents>(name: Name, listener: (event: WorldEvents[Name]) => void): Unsubscribe {
    return this.#events.on(name, listener);
  }

  /** Paints on `canvas` from now on; returns the way to stop. */
  attach(canvas: HTMLCanvasElement): () => void {
    const detach = this.#screen.attach(canvas);
    this.#cancelFrame?.();
    const tick = (): void => {
      this.#cancelFrame = this.#environment.frame(tick);
      this.#tick(this.#environment.now());
    };
    this.#cancelFrame = this.#environment.frame(tick);
    return () => {
      detach();
      if (this.#screen.canvas) return; // another canvas took over
      this.#cancelFrame?.();
      this.#cancelFrame = null;
    };
  }

  /** New words; `shown` of the receipt resolves when they are on screen. */
  prompt(text: string, { blendChunks = 0 }: { blendChunks?: number } = {}): Receipt {
    return this.#session.input({ type: "prompt", text, blend_chunks: blendChunks });
  }

  pause(): Receipt {
    return this.#session.input({ type: "pause" });
  }

  resume(): Receipt {
    return this.#session.input({ type: "resume" });
  }

  /** Back to the start picture, with the same seed or another. */
  reset(seed?: number): Receipt {
    this.#screen.gaze?.reset();
    return this.#session.input({ type: "reset", ...(seed === undefined ? {} : { seed }) });
  }

  settings(change: Omit<Wire.Settings, "type" | "id" | "at_ms">): Receipt {
    if (typeof change.speed === "number") this.#screen.speed = change.speed;
    return this.#session.input({ type: "settings", ...change });
  }

  /** Walks a camera path, relative to where the camera is. */
  play(path: Path, { loop = false }: { loop?: boolean } = {}): Receipt {
    const { poses, rate } = fitting(path);
    return this.#session.input({ type: "camera", poses, rate, loop });
  }

  /** Actions per latent frame, then standing still. */
  script(frames: readonly (readonly Wire.Action[])[]): Receipt {
    return this.#session.input({ type: "script", frames });
  }

  /** Lets go of everything, paths and scripts too. */
  release(): Receipt {
    this.hands.releaseAll();
    return this.#session.input({ type: "release" });
  }

  /** Begins or ends a recording on the server. */
  record(on: boolean): Receipt {
    return this.#session.input({ type: "record", on });
  }

  /** Begins or ends a Chrome trace of this session. */
  trace(on: boolean): Receipt {
    return this.#session.input({ type: "trace", on });
  }

  askControl(): Receipt {
    return this.#session.input({ type: "ask_control" });
  }

  giveControl(viewer: string): Receipt {
    return this.#session.input({ type: "give_control", viewer });
  }

  /** Records the path that is walked. */
  recorder(): PathRecorder {
    return this.#recorder;
  }

  /** The newest true frame, as it came, not turned and not blended. */
  async screenshot(type = "image/png"): Promise<Blob> {
    const frame = this.#screen.painter?.frame;
    if (!frame) throw new WorldError("not_open", "there is no picture yet", { retryable: true });
    const canvas = new OffscreenCanvas(frame.width, frame.height);
    canvas.getContext("2d")?.drawImage(frame, 0, 0);
    return canvas.convertToBlob({ type });
  }

  setTimewarp(wish: boolean | Partial<TimewarpOptions>): void {
    this.#screen.timewarp = timewarpOptions(wish);
  }

  /** The timewarp as it is set; null while it is off. */
  get timewarp(): TimewarpOptions | null {
    return this.#screen.timewarp;
  }

  setPlayout(change: Partial<PlayoutOptions>): void {
    this.#screen.playoutOptions = { ...this.#screen.playoutOptions, ...change };
    if (change.leadMs !== undefined && this.#session.holds) this.settings({ lead_ms: change.leadMs });
  }

  get playout(): PlayoutOptions {
    return this.#screen.playoutOptions;
  }

  /** Does not wait for the next attempt; after a retryable end it begins anew. */
  retryNow(): void {
    this.#session.retryNow();
  }

  /** Ends the world (its holder) or stops watching. */
  leave(): void {
    this.#session.leave();
    this.#close();
  }

  /** Closes this connection only; the world waits its grace time, and `resumable()` finds it. */
  disconnect(): void {
    this.#session.disconnect();
    this.#close();
  }

  /** What a measuring browser reads. */
  probe(): Probe {
    return probe({
      world: this,
      painted: this.#painted,
      inputs: () => this.#ledger.inputs,
      clock: () => this.#session.clock.state,
      now: () => this.#environment.now(),
      redraw: () => this.#screen.redraw(),
    });
  }

  async #begin(): Promise<void> {
    const support = await supported(this.#codecs, this.#environment.secure);
    this.#reason = support.reason;
    this.#session.begin(this.#options.formats ?? support.formats);
  }

  #onMessage(message: Wire.ServerMessage, at: number): void {
    if (message.type === "frame") {
      this.#screen.take(message, at);
      const opened = this.#session.opened.value;
      if (opened) this.#recorder.take(message, opened.fps / opened.latent_frames);
      if (this.#decoder.value?.format !== message.format) this.#decoder.value = this.#decoderState(message.format);
      return;
    }
    switch (message.type) {
      case "opened":
        this.#screen.open(message);
        this.#follow();
        break;
      case "state":
      case "control":
        this.#follow();
        break;
      case "received":
        this.#ledger.received(message);
        this.hands.received(message.id);
        break;
      case "applied":
        this.#ledger.applied(message);
        break;
      case "chunk":
        this.#chunk = message;
        this.#ledger.chunk(message);
        break;
      case "error":
        if (message.id !== undefined) this.hands.refused(message.id, message.retryable, message.retry_after_ms);
        break;
      case "recording":
        this.#recording.value = message;
        this.#events.emit("recorded", message);
        break;
    }
    this.#tell(message);
  }

  #tell(message: Exclude<Wire.ServerMessage, Wire.Frame>): void {
    this.#events.emit("message", message);
    switch (message.type) {
      case "notice": return this.#events.emit("notice", message);
      case "received": return this.#events.emit("received", message);
      case "applied": return this.#events.emit("applied", message);
      case "chunk": return this.#events.emit("chunk", message);
      case "traced": return this.#events.emit("traced", message);
    }
  }

  /** Hands and screen do what the world's state and the controls allow. */
  #follow(): void {
    const live = this.#session.phase.value === "live";
    if (live) this.#screen.wake();
    else this.#screen.rest();
    const limit = this.#session.ready.value?.limits.inputs_per_second ?? 0;
    if (this.#session.holds) this.hands.open(limit);
    else this.hands.shut();
    this.#play(live);
  }

  #play(on: boolean): void {
    const now = this.#environment.now();
    if (this.#playingSince !== null) this.#playedMs += now - this.#playingSince;
    this.#playingSince = on && this.#screen.newest ? now : null;
  }

  #onLost(): void {
    this.#screen.rest();
    this.#play(false);
    this.hands.shut();
  }

  #onSent(id: number, draft: Draft, atMs: number): void {
    this.#ledger.sent(id, draft.type, { madeMs: atMs, sentMs: this.#environment.now() });
  }

  #onPainted(painted: Painted): void {
    const { number, chunk, input } = painted;
    if (this.#playingSince === null && this.#session.phase.value === "live") this.#playingSince = painted.paintedMs;
    const ids = this.#session.painted({ number, chunk, latent_frame: painted.latentFrame, input }, painted.paintedMs);
    const encodedMs = this.#session.clock.toLocal(painted.encodedMs);
    this.#ledger.painted(ids, { ...painted, encodedMs });
    const newest = ids.at(-1);
    if (newest !== undefined) {
      const { paintedMs, receivedMs, decodedMs } = painted;
      const times = { at_ms: paintedMs, received_ms: receivedMs, decoded_ms: decodedMs };
      this.#session.send({ type: "shown", id: newest, frame: number, ...times });
    }
    this.#painted.add(painted);
    this.#events.emit("painted", painted);
  }

  #tick(nowMs: number): void {
    this.hands.tick(nowMs);
    this.#screen.tick(nowMs);
    if (nowMs - this.#figuresMs < FIGURES_MS) return;
    this.#figuresMs = nowMs;
    const playing = this.#playingSince === null ? 0 : nowMs - this.#playingSince;
    this.#figures.value = figures(
      {
        screen: this.#screen,
        ledger: this.#ledger,
        clock: this.#session.clock.state,
        chunk: this.#chunk,
        targetFps: this.#session.opened.value?.fps ?? null,
        playedMs: this.#playedMs + playing,
      },
      nowMs,
    );
  }

  #port(): Port {
    const { now, after } = this.#environment;
    return {
      now,
      after,
      congested: () => this.#session.congested,
      send: (input) => {
        if (!this.#session.holds) return null;
        const { id } = this.#session.input(input);
        if (input.type === "pointer" || input.type === "pad" || input.type === "keys") this.#screen.gaze?.sent(id);
        return id;
      },
    };
  }

  /** A decoder failed for good: the world is asked for in another format. */
  #giveUp(format: Wire.Format, error: Error): void {
    this.#session.without(format);
    this.#reason = `This browser cannot decode the ${format} stream (${error.message}), so the world is sent as single pictures.`;
    const next = this.#session.format;
    if (this.#session.holds) this.#session.input({ type: "settings", format: next });
    else this.#session.restart();
  }

  #decoderState(format: Wire.Format): DecoderState {
    const kind = format === "h264" ? "webcodecs" : format === "raw" ? "raw" : "images";
    const stepped = format !== "h264" && this.#session.format === "h264";
    const behind = stepped ? "The connection is slow, so single pictures are sent for the moment." : null;
    return { format, kind, reason: format === "h264" ? null : (behind ?? this.#reason) };
  }

  #close(): void {
    this.hands.shut();
    this.#play(false);
    this.#screen.close();
  }
}
