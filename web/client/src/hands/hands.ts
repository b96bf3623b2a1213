/**
 * The hands: every device folded into one control vector, and that into messages. Whatever takes the
 * hands off (blur, a hidden page, a lost connection, the end of listening) releases everything.
 */

import type { Action } from "../protocol.js";
import { Cell, type Signal } from "../signals.js";
import { listenTo, TUNING, type Grip, type Tuning } from "./devices.js";
import { Gamepads, type PadLike } from "./gamepad.js";
import { actionsOf, lifted, NOTHING_HELD, pressed, sameActions, type Held } from "./held.js";
import { listenKeyboard } from "./keyboard.js";
import { fromActions, isStill, rounded, sameMotion, scaled, STILL, together, type Motion } from "./motion.js";
import { listenMouse, type MouseLook } from "./mouse.js";
import { Outgoing, type Port } from "./outgoing.js";
import { listenTouch, NO_STICKS, type Sticks } from "./touch.js";

export interface ListenOptions {
  readonly keyboard?: boolean;
  readonly mouse?: boolean;
  readonly touch?: boolean;
  readonly gamepad?: boolean;
}

/** What the timewarp and the path recorder hear: the vector and the turns, as the hand makes them. */
export interface HandListener {
  moved(motion: Motion, atMs: number): void;
  turned(yaw: number, pitch: number, atMs: number): void;
}

export class Hands implements Grip {
  readonly #port: Port;
  readonly #outgoing: Outgoing;
  readonly #listener: HandListener;
  readonly #held = new Cell<readonly Action[]>([]);
  readonly #motion = new Cell<Motion>(STILL);
  readonly #sticks = new Cell<Sticks>(NO_STICKS);
  readonly #locked = new Cell(false);
  readonly #gamepad = new Cell<string | null>(null);
  #sources: Held = NOTHING_HELD;
  #pads = new Map<string, Motion>();
  #slow = new Set<string>();
  #tuning: Tuning = TUNING;
  #mouse: MouseLook | null = null;
  #pollers = new Set<Gamepads>();
  #able = false;

  constructor(port: Port, listener: HandListener) {
    this.#port = port;
    this.#listener = listener;
    this.#outgoing = new Outgoing(port);
  }

  /** The actions held, for a key overlay. */
  get held(): Signal<readonly Action[]> {
    return this.#held;
  }

  /** All devices together. */
  get motion(): Signal<Motion> {
    return this.#motion;
  }

  get sticks(): Signal<Sticks> {
    return this.#sticks;
  }

  /** True while the mouse is locked to the picture. */
  get locked(): Signal<boolean> {
    return this.#locked;
  }

  /** The name of the gamepad that is read. */
  get gamepad(): Signal<string | null> {
    return this.#gamepad;
  }

  get tuning(): Tuning {
    return this.#tuning;
  }

  tune(change: Partial<Tuning>): void {
    this.#tuning = { ...this.#tuning, ...change };
  }

  /** True when the server may still believe another level than what is held. */
  get unsettled(): boolean {
    return this.#outgoing.unsettled;
  }

  press(source: string, action: Action, atMs: number = this.#port.now()): void {
    if (this.#able) this.#hold(pressed(this.#sources, source, action), atMs);
  }

  lift(source: string, atMs: number = this.#port.now()): void {
    this.#hold(lifted(this.#sources, source), atMs);
  }

  liftAll(prefix: string, atMs: number = this.#port.now()): void {
    this.#hold(new Map([...this.#sources].filter(([source]) => !source.startsWith(prefix))), atMs);
  }

  /** A stick of the page's own; `stick("my stick", motion)`. */
  stick(source: string, motion: Motion, atMs: number = this.#port.now()): void {
    const old = this.#pads.get(source) ?? STILL;
    const next = this.#able ? rounded(motion) : STILL;
    if (sameMotion(old, next)) return;
    if (isStill(next)) this.#pads.delete(source);
    else this.#pads.set(source, next);
    this.#changed(atMs);
  }

  /** Turns the view by degrees, right and up. */
  turn(yaw: number, pitch: number, atMs: number = this.#port.now()): void {
    if (!this.#able || (yaw === 0 && pitch === 0)) return;
    this.#listener.turned(yaw, pitch, atMs);
    this.#outgoing.turn(yaw, pitch, atMs);
  }

  /** Walk slowly while any source says so. */
  slow(source: string, on: boolean, atMs: number = this.#port.now()): void {
    if (this.#slow.has(source) === on) return;
    if (on) this.#slow.add(source);
    else this.#slow.delete(source);
    this.#changed(atMs);
  }

  /** Lets go of keys, sticks and waiting turns. */
  releaseAll(atMs: number = this.#port.now()): void {
    this.#sources = NOTHING_HELD;
    this.#pads.clear();
    this.#slow.clear();
    this.#outgoing.dropTurns();
    this.#changed(atMs);
  }

  lock(): Promise<boolean> {
    return this.#mouse?.lock() ?? Promise.resolve(false);
  }

  unlock(): void {
    this.#mouse?.unlock();
  }

  /** Listens to the devices of a page; returns the way to stop. */
  listen(element: HTMLElement, options: ListenOptions = {}): () => void {
    const page = element.ownerDocument;
    const frame = page.defaultView ?? globalThis.window;
    const now = this.#port.now;
    const tuning = (): Tuning => this.#tuning;
    const letGo = (): void => this.releaseAll();
    const stops = [
      listenTo(frame, { blur: letGo, pagehide: letGo }),
      listenTo(page, { visibilitychange: () => page.visibilityState === "hidden" && letGo() }),
    ];
    if (options.keyboard !== false) stops.push(listenKeyboard(frame, this, now));
    if (options.mouse !== false) {
      const mouse = listenMouse(element, { grip: this, now, tuning, locked: (on) => (this.#locked.value = on) });
      this.#mouse = mouse;
      stops.push(() => mouse.stop());
    }
    if (options.touch !== false) {
      stops.push(listenTouch(element, { grip: this, now, tuning, changed: (s) => (this.#sticks.value = s) }));
    }
    if (options.gamepad !== false) stops.push(this.readGamepads(() => padsOf(frame.navigator)));
    return () => {
      for (const stop of stops) stop();
      this.#mouse = null;
      this.#locked.value = false;
      this.releaseAll();
    };
  }

  /** Reads gamepads from `read` with each picture; returns the way to stop. */
  readGamepads(read: () => readonly (PadLike | null)[]): () => void {
    const tuning = (): Tuning => this.#tuning;
    const connected = (name: string | null): void => void (this.#gamepad.value = name);
    const pads = new Gamepads({ grip: this, tuning, read, connected });
    this.#pollers.add(pads);
    return () => {
      this.#pollers.delete(pads);
      pads.stop(this.#port.now());
    };
  }

  /** Once per picture of the display. */
  tick(nowMs: number): void {
    for (const pads of this.#pollers) pads.poll(nowMs);
    this.#outgoing.flush();
  }

  /** A server listens and has let go of everything. */
  open(inputsPerSecond: number): void {
    if (this.#able) return; // it knows already what is held
    this.#able = true;
    this.#outgoing.open(inputsPerSecond);
  }

  /** Nobody listens; whatever was held is let go of. */
  shut(): void {
    if (!this.#able) return;
    this.#able = false;
    this.#outgoing.shut();
    this.releaseAll();
  }

  received(id: number): void {
    this.#outgoing.received(id);
  }

  refused(id: number, retryable: boolean, retryAfterMs?: number): void {
    this.#outgoing.refused(id, retryable, retryAfterMs);
  }

  #hold(sources: Held, atMs: number): void {
    if (sources === this.#sources) return;
    this.#sources = sources;
    this.#changed(atMs);
  }

  #changed(atMs: number): void {
    const held = actionsOf(this.#sources);
    const pads = together(STILL, ...this.#pads.values());
    const walk = this.#slow.size > 0 ? this.#tuning.slowSpeed : 1;
    const all = rounded(scaled(together(fromActions(held), pads), walk));
    if (!sameActions(held, this.#held.value)) this.#held.value = held;
    if (!sameMotion(all, this.#motion.value)) {
      this.#motion.value = all;
      this.#listener.moved(all, atMs);
    }
    // At full speed keys go as keys, which is exact; slowed they are one more stick.
    this.#outgoing.setKeys(walk === 1 ? held : [], atMs);
    this.#outgoing.setPad(walk === 1 ? rounded(pads) : all, atMs);
  }
}

function padsOf(browser: Navigator): readonly (PadLike | null)[] {
  try {
    return browser.getGamepads?.() ?? [];
  } catch {
    return []; // a page without permission
  }
}
