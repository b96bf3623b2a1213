/**
 * The life of one visit over as many sockets as it takes: connecting, waiting in the queue, the world,
 * the way back after a break, the end. Holds what the server said last as signals, counts input ids,
 * and settles receipts. Knows nothing of pictures and hands.
 */

import { Answers, type Answer, type Answered } from "./answers.js";
import { Backoff } from "./backoff.js";
import { ClockSync } from "./clock.js";
import type { Environment } from "./environment.js";
import { asWorldError, WorldError } from "./errors.js";
import type { Draft, Input } from "./inputs.js";
import { Link } from "./link.js";
import type { ConnectOptions, Start } from "./options.js";
import type { Bye, ClientMessage, ControlOf, Format, Opened, Queued, Ready } from "./protocol.js";
import type { Seat, ServerMessage, State } from "./protocol.js";
import { Receipts, type Receipt } from "./receipts.js";
import type { SeatBook } from "./seatbook.js";
import { Cell } from "./signals.js";

export type Phase = "connecting" | "queued" | "opening" | "live" | "paused" | "reconnecting" | "ended";

/** Why it is over. `error` is null for an end that somebody wanted. */
export interface Ended {
  readonly code: string;
  readonly message: string;
  readonly error: WorldError | null;
}

export interface Retry {
  readonly attempt: number;
  readonly inMs: number;
  readonly error: WorldError;
}

export interface SessionEvents {
  /** Every message of the server, after the session's own signals are set. */
  message(message: ServerMessage, receivedMs: number): void;
  /** Input `id` was sent. */
  sent(id: number, draft: Draft, atMs: number): void;
  /** The connection is gone; whatever was held or under way is not any more. */
  lost(): void;
  refused(error: WorldError): void;
}

const MAX_BUFFERED = 1 << 16; // bytes of small messages: more means that the network is behind

export class Session {
  readonly phase = new Cell<Phase>("connecting");
  readonly state = new Cell<State | null>(null);
  readonly ready = new Cell<Ready | null>(null);
  readonly queue = new Cell<Queued | null>(null);
  readonly seat = new Cell<Seat | null>(null);
  readonly opened = new Cell<Opened | null>(null);
  readonly control = new Cell<ControlOf | null>(null);
  readonly retry = new Cell<Retry | null>(null);
  readonly ended = new Cell<Ended | null>(null);
  readonly clock = new ClockSync();
  readonly #url: string;
  readonly #options: ConnectOptions;
  readonly #environment: Environment;
  readonly #book: SeatBook;
  readonly #events: SessionEvents;
  readonly #receipts = new Receipts();
  readonly #answers = new Answers();
  readonly #backoff: Backoff;
  #start: Start;
  #formats: readonly Format[] = ["jpeg"];
  #link: Link | null = null;
  #inWorld = false; // over this connection, not an earlier one
  #bye: Bye | null = null;
  #cancel: (() => void) | null = null;

  constructor(
    url: string,
    options: ConnectOptions,
    shared: { environment: Environment; book: SeatBook; events: SessionEvents },
  ) {
    this.#url = url;
    this.#options = options;
    this.#environment = shared.environment;
    this.#book = shared.book;
    this.#events = shared.events;
    this.#start = options.start;
    this.#backoff = new Backoff(options.reconnect || {}, () => this.#environment.random());
  }

  /** Begins, with what this browser decodes, best first. */
  begin(formats: readonly Format[]): void {
    this.#formats = formats;
    if (this.phase.value !== "ended") this.#connect();
  }

  /** The format that is asked for. */
  get format(): Format {
    const offered = this.ready.value?.formats ?? [];
    return this.#formats.find((format) => offered.includes(format)) ?? "jpeg";
  }

  /** Ask for `format` first from now on. */
  prefer(format: Format): void {
    this.#formats = [format, ...this.#formats.filter((known) => known !== format)];
  }

  /** Never ask for `format` again. */
  without(format: Format): void {
    this.#formats = this.#formats.filter((known) => known !== format);
  }

  /** True between `opened` and the end of a connection. */
  get inWorld(): boolean {
    return this.#inWorld && this.#link?.open === true;
  }

  /** True while inputs of this visitor count. */
  get holds(): boolean {
    if (!this.inWorld) return false;
    return this.control.value?.yours ?? this.opened.value?.controls ?? false;
  }

  get congested(): boolean {
    return (this.#link?.buffered ?? 0) > MAX_BUFFERED;
  }

  /** Sends a message that has no id; false when there is no connection. */
  send(message: ClientMessage): boolean {
    return this.#link?.send(message) ?? false;
  }

  /** Sends an input; its receipt rejects when there is no world to receive it. */
  input(draft: Draft): Receipt {
    const id = this.#book.nextId();
    const atMs = draft.at_ms ?? this.#environment.now();
    const receipt = this.#receipts.open(id, draft.type);
    if (this.#inWorld && this.send({ ...draft, id, at_ms: atMs } as Input)) this.#events.sent(id, draft, atMs);
    else {
      const details = { id, retryable: true };
      this.#receipts.failed(id, new WorldError("not_open", "no world is open to receive this", details));
    }
    return receipt;
  }

  /** Sends an input that is answered by more than receipts. */
  ask<A extends Answer>(draft: Draft): Answered<A> {
    return this.#answers.of<A>(this.input(draft));
  }

  /** A picture is on screen; returns the ids of the inputs that it shows first. */
  painted(at: { chunk: number; latent_frame: number; input: number; number: number }, atMs: number): number[] {
    return this.#receipts.shown(at, { frame: at.number, chunk: at.chunk, paintedMs: atMs });
  }

  /** Does not wait any longer; also begins anew after an end whose error is retryable. */
  retryNow(): void {
    const again = this.ended.value?.error?.retryable === true;
    if (this.phase.value !== "reconnecting" && !again) return;
    if (again) this.#backoff.reset();
    this.ended.value = null;
    this.#cancel?.();
    if (!this.#link) this.#connect();
  }

  /** Breaks the connection and comes back at once, for instance with another format. */
  restart(): void {
    this.#link?.abort(new WorldError("connection_lost", "the connection is made anew", { retryable: true }));
    this.retryNow();
  }

  /** Ends the world (its holder) or stops watching. */
  leave(): void {
    this.send({ type: "leave" });
    this.#book.forget();
    this.#finish({ code: "left", message: "you left", error: null });
  }

  /** Closes this connection only; the world waits its grace time. */
  disconnect(): void {
    this.#finish({ code: "closed", message: "the connection was closed", error: null });
  }

  #go(phase: Phase): void {
    if (phase !== "reconnecting") this.retry.value = null;
    this.phase.value = phase;
  }

  #connect(): void {
    this.#cancel = null;
    this.#bye = null;
    this.clock.reset();
    this.#go(this.opened.value || this.#backoff.attempt > 0 ? "reconnecting" : "connecting");
    const { token = null, client = "@worldline/client" } = this.#options;
    const link = { url: this.#url, token, client };
    try {
      this.#link = new Link(
        { ...link, formats: this.#formats, first: () => this.#first() },
        {
          ready: (ready) => {
            this.ready.value = ready;
            this.#backoff.grace = ready.limits.grace_ms;
          },
          message: (message, at) => this.#message(message, at),
          end: (error) => this.#lost(error),
        },
        { environment: this.#environment, clock: this.clock },
      );
    } catch (thrown) {
      const error = asWorldError(thrown, "unreachable");
      this.#finish({ code: error.code, message: error.message, error });
    }
  }

  #first(): ClientMessage {
    const { format } = this;
    if ("watch" in this.#start) return { type: "watch", world: this.#start.watch, format };
    if ("rejoin" in this.#start) return { type: "rejoin", token: this.#start.rejoin, format };
    const leadMs = this.#options.playout?.leadMs;
    return { type: "enter", ...(leadMs === undefined ? {} : { lead_ms: leadMs }), ...this.#start.enter, format };
  }

  #message(message: ServerMessage, at: number): void {
    switch (message.type) {
      case "seat": this.#seated(message); break;
      case "queued": this.queue.value = message; this.#go("queued"); break;
      case "opened": this.#opened(message); break;
      case "state": this.#state(message.state); break;
      case "control": this.control.value = message; break;
      case "received": this.#receipts.received(message); break;
      case "applied": this.#receipts.applied(message); this.#book.used(message.id); break;
      case "frame": this.#book.used(message.input); break;
      case "branched":
      case "saved": this.#answers.settle(message); break;
      case "bye": this.#bye = message; break;
      case "error": this.#error(WorldError.of(message)); break;
    }
    this.#events.message(message, at);
  }

  #seated(seat: Seat): void {
    this.seat.value = seat;
    this.queue.value = null;
    if (!this.opened.value) this.#go("opening");
    if (seat.token === undefined) return;
    this.#start = { rejoin: seat.token };
    this.#book.sit({ url: this.#url, token: seat.token, world: seat.world });
  }

  #opened(opened: Opened): void {
    this.control.value = null;
    this.#inWorld = true;
    this.opened.value = opened;
    this.#backoff.reset();
    this.#state(opened.state);
  }

  #state(state: State): void {
    this.state.value = state;
    if (state === "queued") this.#go("queued");
    else if (!this.#inWorld) this.#go("opening");
    else if (state === "paused" || state === "parked") this.#go("paused");
    else if (state === "live" || state === "draining") this.#go("live");
  }

  #error(error: WorldError): void {
    if (error.id !== undefined) {
      this.#receipts.failed(error.id, error);
      this.#answers.failed(error.id, error);
    } else if (!this.#inWorld && !error.fatal) return this.#link?.abort(error); // there is no other start to try
    if (!error.fatal) this.#events.refused(error);
  }

  /** The socket is gone. What comes next depends on why, and on whether there is a world to go to. */
  #lost(error: WorldError | null): void {
    this.#link = null;
    this.#inWorld = false;
    const wasOpen = this.opened.value !== null;
    const broken = error ?? new WorldError("closed", "the connection was closed");
    this.#receipts.clear(broken);
    this.#answers.clear(broken);
    this.#events.lost();
    if (this.phase.value === "ended") return;
    if (error === null) {
      const { code, message } = this.#bye ?? { code: "closed", message: "the server closed the connection" };
      this.#book.forget();
      this.#finish({ code, message, error: null });
      return;
    }
    const placed = wasOpen || this.seat.value !== null || this.queue.value !== null;
    const known = placed || this.#backoff.attempt > 0 || "rejoin" in this.#start;
    const pause =
      known && error.retryable && this.#options.reconnect !== false
        ? this.#backoff.next(this.#environment.now(), error.retryAfterMs)
        : null;
    if (pause === null) {
      if (!error.retryable) this.#book.forget();
      this.#finish({ code: error.code, message: error.message, error });
      return;
    }
    this.retry.value = { attempt: this.#backoff.attempt, inMs: pause, error };
    this.#go("reconnecting");
    this.#cancel = this.#environment.after(pause, () => this.#connect());
  }

  #finish(ended: Ended): void {
    this.#cancel?.();
    this.queue.value = null;
    this.ended.value = ended; // first: who hears of the phase wants to know why
    this.#go("ended");
    this.#link?.abort(null);
    this.#link = null;
  }
}
