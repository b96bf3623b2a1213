/** Turns key and button changes into `camera_actions` transitions, one message per burst. */

import {
  compact,
  heldActions,
  NOTHING_HELD,
  reduce,
  sameActions,
  type Action,
  type ControlInput,
} from "./keys";
import type { Transition } from "./wire";

const MAX_PENDING = 8;

export interface ControlSink {
  /** Sends one message; false when it could not be sent. */
  send(transitions: readonly Transition[]): boolean;
  changed(actions: readonly Action[]): void;
}

export class Controls {
  readonly #sink: ControlSink;
  readonly #now: () => number;
  readonly #later: (task: () => void) => void;
  #held = NOTHING_HELD;
  #level: Action[] = [];
  #pending: Transition[] = [];
  #scheduled = false;

  constructor(
    sink: ControlSink,
    now: () => number = () => Date.now(),
    later: (task: () => void) => void = (task) => queueMicrotask(task),
  ) {
    this.#sink = sink;
    this.#now = now;
    this.#later = later;
  }

  apply(input: ControlInput): void {
    this.#held = reduce(this.#held, input);
    const level = heldActions(this.#held);
    if (sameActions(level, this.#level)) return;
    this.#level = level;
    this.#sink.changed(level);
    this.#pending.push({ actions: level, client_ts_ms: this.#now() });
    if (this.#pending.length > MAX_PENDING) this.#pending = compact(this.#pending);
    this.flushSoon();
  }

  /** Sends what waits at the end of this task; what could not be sent stays and is compacted. */
  flushSoon(): void {
    if (this.#scheduled || this.#pending.length === 0) return;
    this.#scheduled = true;
    this.#later(() => {
      this.#scheduled = false;
      if (this.#pending.length > 0 && this.#sink.send(this.#pending)) this.#pending = [];
    });
  }

  /** Forgets everything without telling the server: for a new session, where nothing is held. */
  reset(): void {
    this.#held = NOTHING_HELD;
    this.#level = [];
    this.#pending = [];
    this.#sink.changed([]);
  }
}
