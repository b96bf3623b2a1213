/**
 * One walk: the connection, the playback queue, the held keys and the figures of the HUD.
 * The page reads its signals; nothing here knows how the page looks.
 */

import { signal } from "@preact/signals";

import { Connection, socketUrl } from "./lib/connection";
import { Controls } from "./lib/controls";
import { decodeBatch } from "./lib/decode";
import { explain, retryDelay, type Ended, type Ending } from "./lib/endings";
import type { Action, ControlInput } from "./lib/keys";
import { FrameMeter, LatencyMeter, type Spread } from "./lib/meters";
import { createPainter, type Painter } from "./lib/painter";
import type { Picture } from "./lib/picture";
import { Playback, type Queued } from "./lib/playback";
import { isReady, requestedSize, type ModelInfo } from "./lib/server";
import {
  cameraEvent,
  initMessage,
  promptEvent,
  type ChunkStats,
  type OutputFormat,
  type ServerMessage,
  type Transition,
} from "./lib/wire";

export interface WalkRequest {
  readonly picture: Picture;
  readonly prompt: string;
  /** The gallery's world that this begins in; null for a picture or words of one's own. */
  readonly place: string | null;
  readonly seed: number;
  readonly format: OutputFormat;
  readonly quality: number;
  readonly model: ModelInfo | null;
}

export type Phase = "idle" | "opening" | "waiting" | "live" | "ended";

export interface Hud {
  readonly fps: number | null;
  readonly chunkMs: number | null;
  readonly latencyMs: number | null;
  readonly latency: Spread | null;
  readonly stalls: number;
  readonly longestGapMs: number;
  readonly size: string | null;
  readonly stalled: boolean;
}

export type PromptState = { readonly phase: "sent" | "shown"; readonly ms: number } | null;

interface Shown {
  readonly bitmap: ImageBitmap;
}

const NO_HUD: Hud = {
  fps: null,
  chunkMs: null,
  latencyMs: null,
  latency: null,
  stalls: 0,
  longestGapMs: 0,
  size: null,
  stalled: false,
};
const HUD_PERIOD_MS = 250;
const STALL_MS = 2500;
const MAX_BUFFERED = 1 << 20;
const READY_POLL_MS = 1000;
const LATE_POLLS = 4;

export class World {
  readonly phase = signal<Phase>("idle");
  readonly ending = signal<Ending | null>(null);
  readonly retryIn = signal<number | null>(null);
  readonly hud = signal<Hud>(NO_HUD);
  readonly held = signal<readonly Action[]>([]);
  readonly promptState = signal<PromptState>(null);
  /** The gallery's world that the newest prompt names, if it names one. */
  readonly place = signal<string | null>(null);
  readonly notice = signal<string | null>(null);
  readonly warmingUp = signal(false);
  /** The first frame is late although the model is warm: most likely the seats are taken. */
  readonly late = signal(false);
  readonly request: WalkRequest;

  readonly #controls = new Controls({
    send: (transitions) => this.#sendControls(transitions),
    changed: (actions) => (this.held.value = actions),
  });
  #connection: Connection | null = null;
  #playback = new Playback<Shown>(16);
  #frames = new FrameMeter();
  #latency = new LatencyMeter();
  #prompts = new LatencyMeter();
  #stats: ChunkStats | null = null;
  #decoding: Promise<void> = Promise.resolve();
  #painter: Painter | null = null;
  #canvas: HTMLCanvasElement | null = null;
  #ambient: CanvasRenderingContext2D | null = null;
  #eventId = 0;
  #drawn = 0;
  #lastFrameAt = 0;
  #size: string | null = null;
  #attempt = 0;
  #generation = 0;
  #tick = 0;
  #hudAt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(request: WalkRequest) {
    this.request = request;
  }

  /** Gives the world its canvases; returns a function that takes them away. */
  attach(canvas: HTMLCanvasElement, ambient: HTMLCanvasElement): () => void {
    this.#canvas = canvas;
    this.#painter = createPainter(canvas);
    this.#ambient = ambient.getContext("2d");
    canvas.dataset["painter"] = this.#painter.kind;
    const observer = new ResizeObserver(() => this.#painter?.redraw());
    observer.observe(canvas);
    this.#tick = requestAnimationFrame(this.#onTick);
    return () => {
      observer.disconnect();
      cancelAnimationFrame(this.#tick);
      this.#painter?.dispose();
      this.#painter = null;
    };
  }

  async start(): Promise<void> {
    const generation = ++this.#generation;
    clearTimeout(this.#timer);
    this.retryIn.value = null;
    this.phase.value = "opening";
    this.ending.value = null;
    await this.#connection?.close();
    if (generation !== this.#generation) return;
    this.#reset();
    let bytes: Uint8Array;
    try {
      bytes = await this.request.picture.bytes();
    } catch (error) {
      const detail = error instanceof Error ? error.message : String(error);
      this.#finish({ title: "The start picture is missing", detail, automatic: false, retryable: true });
      return;
    }
    if (generation !== this.#generation) return;
    this.#connect(generation, bytes);
    void this.#watchWait(generation);
  }

  /** A start that the visitor asked for: the count of automatic attempts begins again. */
  restart(): Promise<void> {
    this.#attempt = 0;
    return this.start();
  }

  async stop(): Promise<void> {
    this.#generation++;
    clearTimeout(this.#timer);
    this.phase.value = "idle";
    this.#controls.reset();
    this.#playback.clear();
    await this.#connection?.close();
  }

  input(input: ControlInput): void {
    const walking = this.phase.value === "live" || this.phase.value === "waiting";
    if (walking || input.type !== "press") this.#controls.apply(input);
  }

  sendPrompt(prompt: string, place: string | null = null): boolean {
    const id = this.#eventId + 1;
    if (!this.#connection?.send(promptEvent(prompt, id))) return false;
    this.#eventId = id;
    this.#prompts.sent(id, performance.now());
    this.promptState.value = { phase: "sent", ms: 0 };
    this.place.value = place;
    return true;
  }

  #reset(): void {
    this.#playback.clear();
    this.#playback = new Playback<Shown>(this.request.model?.fps ?? 16, (old) => old.bitmap.close());
    this.#frames = new FrameMeter();
    this.#latency = new LatencyMeter();
    this.#prompts = new LatencyMeter();
    this.#stats = null;
    this.#eventId = 0;
    this.#size = null;
    this.#controls.reset();
    this.hud.value = NO_HUD;
    this.promptState.value = null;
    this.place.value = this.request.place;
    this.notice.value = null;
  }

  #connect(generation: number, firstFrame: Uint8Array): void {
    const { prompt, seed, format, quality, model, picture } = this.request;
    const size = requestedSize(model, picture.portrait);
    const init = initMessage({ prompt, firstFrame, size, seed, format, quality });
    const current = (): boolean => generation === this.#generation;
    this.#connection = new Connection(socketUrl(document.baseURI), init, {
      open: () => {
        if (current()) this.phase.value = "waiting";
      },
      message: (message) => {
        if (current()) this.#receive(message, generation);
      },
      end: (ended) => {
        if (current()) this.#ended(ended);
      },
    });
  }

  #receive(message: ServerMessage, generation: number): void {
    if (message.type === "stats") {
      this.#stats = message.stats;
    } else if (message.type === "error") {
      const { content, detail } = message.error;
      if (this.phase.value === "live") this.notice.value = detail ?? content;
      // An unusable init leaves the socket open and waiting for another one: this page has none.
      else if (content.startsWith("invalid generate request")) void this.#connection?.close();
    } else {
      const { header, payload } = message;
      const bitmaps = decodeBatch(header, payload);
      bitmaps.catch(() => undefined); // handled in order below
      this.#decoding = this.#decoding.then(async () => {
        try {
          const frames = (await bitmaps).map((bitmap) => ({ bitmap }));
          if (generation !== this.#generation) return frames.forEach((old) => old.bitmap.close());
          const { chunkIndex: chunk, eventId } = header;
          this.#playback.push(frames, { chunk, eventId, now: performance.now() });
        } catch (error) {
          this.notice.value = `frames dropped: ${error instanceof Error ? error.message : String(error)}`;
        }
      });
    }
  }

  #sendControls(transitions: readonly Transition[]): boolean {
    const connection = this.#connection;
    if (!connection || connection.buffered > MAX_BUFFERED) return false;
    const id = this.#eventId + 1;
    if (!connection.send(cameraEvent(transitions, id))) return false;
    this.#eventId = id;
    // Latency is of presses: the newest one of this message, as the hand made it.
    const press = transitions.findLast((transition) => transition.actions.length > 0);
    if (press) this.#latency.sent(id, performance.now() - Math.max(0, Date.now() - press.client_ts_ms));
    return true;
  }

  readonly #onTick = (): void => {
    this.#tick = requestAnimationFrame(this.#onTick);
    const now = performance.now();
    const next = this.phase.value === "ended" ? null : this.#playback.take(now);
    if (next) this.#show(next, now);
    this.#controls.flushSoon();
    if (now - this.#hudAt >= HUD_PERIOD_MS) this.#refreshHud(now);
  };

  #show({ frame: { bitmap }, chunk, eventId }: Queued<Shown>, now: number): void {
    if (!this.#painter || !this.#canvas) return bitmap.close();
    const size = `${bitmap.width} × ${bitmap.height}`;
    if (this.#drawn++ % 6 === 0) this.#ambient?.drawImage(bitmap, 0, 0, 20, 12);
    this.#canvas.style.setProperty("--ratio", String(bitmap.width / bitmap.height));
    this.#painter.draw(bitmap);
    this.#canvas.dataset["drawn"] = String(this.#drawn);
    this.#canvas.dataset["chunk"] = String(chunk);
    this.#canvas.dataset["event"] = String(eventId ?? 0);
    this.#size = size;
    this.#lastFrameAt = now;
    this.#frames.shown(now);
    this.#latency.shown(eventId, now);
    if (this.#prompts.shown(eventId, now).length > 0) {
      this.promptState.value = { phase: "shown", ms: this.#prompts.last ?? 0 };
    }
    if (this.phase.value === "waiting") {
      this.phase.value = "live";
      this.#attempt = 0;
    }
  }

  #refreshHud(now: number): void {
    this.#hudAt = now;
    if (this.phase.value !== "live") return;
    const stats = this.#stats;
    this.hud.value = {
      fps: this.#frames.fps(now),
      chunkMs: stats ? Math.max(0, stats.chunkTotalMs - stats.paceWaitMs) : null,
      latencyMs: this.#latency.last,
      latency: this.#latency.spread(),
      stalls: this.#frames.stalls,
      longestGapMs: this.#frames.longest,
      size: this.#size,
      stalled: now - this.#lastFrameAt > STALL_MS,
    };
  }

  #ended(ended: Ended): void {
    this.#controls.reset();
    this.#finish(explain(ended));
  }

  #finish(ending: Ending): void {
    this.phase.value = "ended";
    this.ending.value = ending;
    const delay = ending.automatic || this.#attempt > 0 ? retryDelay(this.#attempt) : null;
    if (delay === null || !ending.retryable) return;
    this.#attempt++;
    this.retryIn.value = delay;
    this.#timer = setTimeout(() => void this.start(), delay);
  }

  /** Says what the wait is for, as long as the first frame has not come. */
  async #watchWait(generation: number): Promise<void> {
    this.warmingUp.value = false;
    this.late.value = false;
    let polls = 0;
    const waiting = (): boolean =>
      generation === this.#generation && ["opening", "waiting"].includes(this.phase.value);
    while (waiting()) {
      const ready = await isReady();
      if (!waiting()) return;
      this.warmingUp.value = !ready;
      this.late.value = ready && ++polls > LATE_POLLS;
      await new Promise((resolve) => setTimeout(resolve, READY_POLL_MS));
    }
  }
}
