/**
 * One visit, joined together: the session (what the server says), the screen (what is seen), the hands
 * (what is asked for) and the ledger (how long it took); each of them knows nothing of the others.
 * `World` is what a page sees of it.
 */

import { browserEnvironment, type Environment } from "./environment.js";
import { WorldError } from "./errors.js";
import { figures, NO_FIGURES, type Figures } from "./figures.js";
import { Hands } from "./hands/hands.js";
import type { Port } from "./hands/outgoing.js";
import type { Draft } from "./inputs.js";
import { Ledger } from "./ledger.js";
import { browserCodecs, supported, type Codecs } from "./media/codecs.js";
import { PLAYOUT } from "./media/playout.js";
import { rtcAvailable, RtcPictures } from "./media/rtc.js";
import { timewarpOptions, type ConnectOptions } from "./options.js";
import { PathRecorder } from "./path/recorder.js";
import { PaintedLog } from "./probe.js";
import type * as Wire from "./protocol.js";
import { Screen, type Painted } from "./screen.js";
import { SeatBook } from "./seatbook.js";
import { Session } from "./session.js";
import { Cell, Emitter } from "./signals.js";
import { Timeline } from "./timeline.js";

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
  /** The walk went back, by whoever asked; the next picture is the first after it. */
  rewound: Wire.Rewound;
  branched: Wire.Branched;
  saved: Wire.Saved;
  /** Every message of the server but frames. */
  message: Exclude<Wire.ServerMessage, Wire.Frame>;
}

/** How pictures are decoded here; `reason` says in words why not in the best way. */
export interface DecoderState {
  readonly format: Wire.Format;
  readonly kind: "webcodecs" | "images" | "raw" | "webrtc";
  readonly reason: string | null;
}

export class Visit {
  readonly environment: Environment;
  readonly codecs: Codecs;
  readonly options: ConnectOptions;
  readonly session: Session;
  readonly screen: Screen;
  readonly hands: Hands;
  readonly ledger: Ledger;
  readonly recorder = new PathRecorder();
  readonly timeline = new Timeline();
  readonly painted = new PaintedLog();
  readonly events = new Emitter<WorldEvents>();
  readonly figures = new Cell<Figures>(NO_FIGURES);
  readonly recording = new Cell<Wire.Recording | null>(null);
  readonly decoder = new Cell<DecoderState | null>(null);
  #reason: string | null = null;
  #chunk: Wire.Chunk | null = null;
  #rtc: RtcPictures | null = null;
  #figuresMs = 0;
  #playedMs = 0;
  #playingSince: number | null = null;
  readonly #stopWaking: () => void;

  constructor(url: string, options: ConnectOptions) {
    const environment = options.environment ?? browserEnvironment();
    this.environment = environment;
    this.codecs = options.codecs ?? browserCodecs();
    this.options = options;
    this.screen = new Screen(
      {
        environment,
        codecs: this.codecs,
        painter: options.painter ?? "auto",
        playout: { ...PLAYOUT, ...options.playout },
        timewarp: timewarpOptions(options.timewarp),
      },
      {
        painted: (painted) => this.#onPainted(painted),
        report: (frame, lead_ms, counts) => {
          this.session.send({ type: "playhead", frame, lead_ms, at_ms: environment.now(), ...counts });
        },
        decoder: {
          needKey: () => this.session.send({ type: "key_frame" }),
          dead: (format, error) => this.#giveUp(format, error),
          lost: (info, error) => {
            const words = `picture ${info.number} could not be decoded: ${error.message}`;
            this.events.emit("refused", new WorldError("unreadable", words, { retryable: true }));
          },
        },
      },
    );
    const store = options.storage === undefined ? environment.store : options.storage;
    this.session = new Session(url, options, {
      environment,
      book: new SeatBook(store),
      events: {
        message: (message, at) => this.#onMessage(message, at),
        sent: (id, draft, atMs) => this.#onSent(id, draft, atMs),
        lost: () => this.#onLost(),
        refused: (error) => this.events.emit("refused", error),
      },
    });
    this.ledger = new Ledger((serverMs) => this.session.clock.toLocal(serverMs));
    this.hands = new Hands(this.#port(), {
      moved: (motion, atMs) => this.screen.gaze?.moved(motion, atMs),
      turned: (yaw, pitch, atMs) => this.screen.gaze?.turned(yaw, pitch, atMs),
    });
    if ("enter" in options.start) this.screen.speed = options.start.enter.speed ?? 1;
    this.#stopWaking = environment.woken(() => this.session.phase.value === "reconnecting" && this.session.retryNow());
    void this.#begin();
  }

  async #begin(): Promise<void> {
    const support = await supported(this.codecs, this.environment.secure);
    this.#reason = support.reason;
    this.session.begin(this.options.formats ?? support.formats);
  }

  #onMessage(message: Wire.ServerMessage, at: number): void {
    if (message.type === "frame") {
      if (message.payload.length === 0) this.#rtc?.say(message, at);
      else this.screen.take(message, at);
      const opened = this.session.opened.value;
      if (opened) this.recorder.take(message, opened.fps / opened.latent_frames);
      this.#decodes(message.format, message.payload.length === 0);
      return;
    }
    switch (message.type) {
      case "opened":
        if (message.speed !== undefined) this.screen.speed = message.speed;
        this.timeline.clear(); // all are sent again
        this.recorder.opened();
        this.screen.open(message);
        this.#follow();
        this.#offerRtc(message.fps);
        break;
      case "control":
        if (!message.yours) this.timeline.clear(); // where they become ours, they came before this
        this.#follow();
        break;
      case "state":
        this.#follow();
        break;
      case "moment":
        this.timeline.add(message);
        break;
      case "rewound":
        this.timeline.cut(message.chunk);
        this.recorder.back(message.chunk, message.number);
        this.screen.cut(message.number);
        break;
      case "rtc_answer":
        this.#rtc?.answer(message.sdp);
        break;
      case "received":
        this.ledger.received(message);
        this.hands.received(message.id);
        break;
      case "applied":
        this.ledger.applied(message);
        break;
      case "chunk":
        this.#chunk = message;
        this.recorder.made(message.index, message.place);
        this.ledger.chunk(message);
        break;
      case "error":
        if (message.id !== undefined) this.hands.refused(message.id, message.retryable, message.retry_after_ms);
        break;
      case "recording":
        this.recording.value = message;
        this.events.emit("recorded", message);
        break;
    }
    this.#tell(message);
  }

  #tell(message: Exclude<Wire.ServerMessage, Wire.Frame>): void {
    this.events.emit("message", message);
    switch (message.type) {
      case "notice": return this.events.emit("notice", message);
      case "received": return this.events.emit("received", message);
      case "applied": return this.events.emit("applied", message);
      case "chunk": return this.events.emit("chunk", message);
      case "traced": return this.events.emit("traced", message);
      case "rewound": return this.events.emit("rewound", message);
      case "branched": return this.events.emit("branched", message);
      case "saved": return this.events.emit("saved", message);
    }
  }

  /** Hands and screen do what the world's state and the controls allow. */
  #follow(): void {
    const live = this.session.phase.value === "live";
    if (live) this.screen.wake();
    else this.screen.rest();
    const limit = this.session.ready.value?.limits.inputs_per_second ?? 0;
    if (this.session.holds) this.hands.open(limit);
    else this.hands.shut();
    this.#play(live);
  }

  #play(on: boolean): void {
    const now = this.environment.now();
    if (this.#playingSince !== null) this.#playedMs += now - this.#playingSince;
    this.#playingSince = on && this.screen.newest ? now : null;
  }

  #onLost(): void {
    this.#endRtc();
    this.screen.rest();
    this.#play(false);
    this.hands.shut();
  }

  #onSent(id: number, draft: Draft, atMs: number): void {
    this.ledger.sent(id, draft.type, { madeMs: atMs, sentMs: this.environment.now() });
  }

  #onPainted(painted: Painted): void {
    const { number, chunk, input } = painted;
    if (this.#playingSince === null && this.session.phase.value === "live") this.#playingSince = painted.paintedMs;
    const ids = this.session.painted({ number, chunk, latent_frame: painted.latentFrame, input }, painted.paintedMs);
    const encodedMs = this.session.clock.toLocal(painted.encodedMs);
    this.ledger.painted(ids, { ...painted, encodedMs });
    const newest = ids.at(-1);
    if (newest !== undefined) {
      const { paintedMs, receivedMs, decodedMs } = painted;
      const times = { at_ms: paintedMs, received_ms: receivedMs, decoded_ms: decodedMs };
      this.session.send({ type: "shown", id: newest, frame: number, ...times });
    }
    this.painted.add(painted);
    this.events.emit("painted", painted);
  }

  /** Once per picture of the display. */
  tick(nowMs: number): void {
    this.hands.tick(nowMs);
    this.screen.tick(nowMs);
    if (nowMs - this.#figuresMs < FIGURES_MS) return;
    this.#figuresMs = nowMs;
    const playing = this.#playingSince === null ? 0 : nowMs - this.#playingSince;
    this.figures.value = figures(
      {
        screen: this.screen,
        ledger: this.ledger,
        clock: this.session.clock.state,
        chunk: this.#chunk,
        targetFps: this.session.opened.value?.fps ?? null,
        playedMs: this.#playedMs + playing,
      },
      nowMs,
    );
  }

  #port(): Port {
    const { now, after } = this.environment;
    return {
      now,
      after,
      congested: () => this.session.congested,
      send: (input) => {
        if (!this.session.holds) return null;
        const { id } = this.session.input(input);
        this.screen.gaze?.sent(id);
        return id;
      },
    };
  }

  /** A decoder failed for good: the world is asked for in another format. */
  #giveUp(format: Wire.Format, error: Error): void {
    this.session.without(format);
    this.#reason =
      `This browser cannot decode the ${format} stream (${error.message}), ` +
      "so the world is sent as single pictures.";
    const next = this.session.format;
    if (this.session.inWorld) this.session.input({ type: "settings", format: next });
    else this.session.restart();
  }

  #decodes(format: Wire.Format, byRtc: boolean): void {
    const kind = byRtc ? "webrtc" : format === "h264" ? "webcodecs" : format === "raw" ? "raw" : "images";
    const old = this.decoder.value;
    if (old?.format === format && old.kind === kind) return;
    // A stream may begin with a picture; one that comes after video is there because the network is slow.
    const stepped = this.session.format === "h264" && old?.format === "h264";
    const behind = stepped ? "The connection is slow, so single pictures are sent for the moment." : null;
    this.decoder.value = { format, kind, reason: format === "h264" ? null : (behind ?? this.#reason) };
  }

  /** Asks for pictures by WebRTC; until they come, and if they never do, the socket carries them. */
  #offerRtc(fps: number): void {
    this.#endRtc();
    const offered = this.session.ready.value?.transports.includes("webrtc") === true;
    if (this.options.transport !== "webrtc" || !offered || !rtcAvailable()) return;
    const rtc: RtcPictures = new RtcPictures(fps, {
      now: this.environment.now,
      after: this.environment.after,
      offer: (sdp) => this.session.send({ type: "rtc_offer", sdp }),
      decoded: (decoded) => this.screen.push(decoded),
      ended: () => {
        if (this.#rtc === rtc) this.#rtc = null;
      },
    });
    this.#rtc = rtc;
  }

  #endRtc(): void {
    this.#rtc?.close();
    this.#rtc = null;
  }

  close(): void {
    this.#stopWaking();
    this.#endRtc();
    this.hands.shut();
    this.#play(false);
    this.timeline.close();
    this.screen.close();
  }
}
