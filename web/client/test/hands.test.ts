import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { actionsOf, KEY_ACTIONS, lifted, NOTHING_HELD, pressed } from "../src/hands/held.js";
import { Hands } from "../src/hands/hands.js";
import { listenKeyboard } from "../src/hands/keyboard.js";
import { fromActions, rounded, STILL, throughDeadZone, together, type Motion } from "../src/hands/motion.js";
import { padMotion } from "../src/hands/gamepad.js";
import { TUNING } from "../src/hands/devices.js";
import type { HandInput } from "../src/hands/outgoing.js";
import type { Action } from "../src/protocol.js";
import { FakeClock } from "./fakes.js";

/** A network and a server: what it holds, and what is on the way in both directions. */
class Far {
  readonly clock = new FakeClock();
  readonly hands: Hands;
  readonly log: HandInput[] = [];
  keys: readonly Action[] = [];
  pad: Motion = STILL;
  up = false;
  congested = false;
  #way: { id: number; input: HandInput }[] = [];
  #back: (() => void)[] = [];
  #id = 0;

  constructor() {
    const { now, after } = this.clock;
    const send = (input: HandInput): number | null => {
      if (!this.up) return null;
      this.#way.push({ id: ++this.#id, input });
      this.log.push(input);
      return this.#id;
    };
    const port = { now, after, send, congested: () => this.congested };
    this.hands = new Hands(port, { moved: () => undefined, turned: () => undefined });
  }

  connect(perSecond = 60): void {
    if (this.up) return;
    this.up = true;
    this.hands.open(perSecond);
  }

  drop(): void {
    if (!this.up) return;
    this.up = false;
    this.#way = [];
    this.#back = [];
    this.keys = [];
    this.pad = STILL;
    this.hands.shut();
  }

  /** One message arrives; the server may refuse it, which changes nothing. */
  arrive(refuse = false): boolean {
    const next = this.#way.shift();
    if (!next) return false;
    const { id, input } = next;
    if (refuse) {
      this.#back.push(() => this.hands.refused(id, true, 100));
      return true;
    }
    if (input.type === "keys") this.keys = input.held;
    if (input.type === "pad") this.pad = { x: input.x, z: input.z, yaw: input.yaw, pitch: input.pitch };
    this.#back.push(() => this.hands.received(id));
    return true;
  }

  answer(): boolean {
    const next = this.#back.shift();
    next?.();
    return next !== undefined;
  }

  /** All that is on the way arrives, for as long as anything is still to be said. */
  settle(): void {
    for (let i = 0; i < 400; i++) {
      const busy = [this.arrive(), this.answer()].includes(true);
      if (!busy && !this.hands.unsettled) return;
      this.clock.advance(20);
    }
    throw new Error("the hands never came to rest");
  }
}

function key(type: "keydown" | "keyup", code: string, change: object = {}): Event {
  return Object.assign(new Event(type, { cancelable: true }), { code, repeat: false, metaKey: false, ctrlKey: false, altKey: false, ...change });
}

const CODES = ["KeyW", "KeyA", "ArrowLeft", "KeyJ", "Space"];

describe("a key-up", () => {
  const command = fc.oneof(
    { weight: 6, arbitrary: fc.record({ do: fc.constant("down" as const), code: fc.constantFrom(...CODES) }) },
    { weight: 6, arbitrary: fc.record({ do: fc.constant("up" as const), code: fc.constantFrom(...CODES) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("away" as const), code: fc.constantFrom(...CODES) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant("stick" as const), x: fc.double({ min: -1, max: 1, noNaN: true }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("blur" as const) }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant("arrive" as const), refuse: fc.boolean() }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant("answer" as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("congest" as const), on: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("drop" as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("connect" as const), limit: fc.constantFrom(0, 2, 60) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.integer({ min: 0, max: 3000 }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant("shift" as const), on: fc.boolean() }) },
  );

  type Command = typeof command extends fc.Arbitrary<infer C> ? C : never;

  function play(commands: readonly Command[]): { far: Far; physical: Set<string> } {
    const far = new Far();
    const page = new EventTarget();
    const physical = new Set<string>();
    listenKeyboard(page, far.hands, far.clock.now);
    far.connect();
    for (const step of commands) {
      switch (step.do) {
        case "down": physical.add(step.code); page.dispatchEvent(key("keydown", step.code)); break;
        case "up": physical.delete(step.code); page.dispatchEvent(key("keyup", step.code)); break;
        // The tab is left, the key goes up elsewhere: no key-up ever comes.
        case "away": physical.delete(step.code); far.hands.releaseAll(); break;
        case "blur": far.hands.releaseAll(); break;
        case "stick": far.hands.stick("pad", { ...STILL, x: step.x }); break;
        case "arrive": far.arrive(step.refuse); break;
        case "answer": far.answer(); break;
        case "congest": far.congested = step.on; break;
        case "drop": far.drop(); break;
        case "connect": far.connect(step.limit); break;
        case "wait": far.clock.advance(step.ms); break;
        case "shift": page.dispatchEvent(key(step.on ? "keydown" : "keyup", "ShiftLeft")); break;
      }
    }
    far.congested = false;
    far.connect();
    return { far, physical };
  }

  it("is never lost: at rest the server holds what the hands hold", () => {
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
        const { far, physical } = play(commands);
        far.hands.slow("ShiftLeft", false);
        far.settle();
        expect(far.keys).toEqual(far.hands.held.value);
        expect(rounded(together(fromActions(far.keys), far.pad))).toEqual(far.hands.motion.value);
        const down = [...physical].map((code) => KEY_ACTIONS[code]);
        for (const action of far.hands.held.value) expect(down).toContain(action);
      }),
      { numRuns: 400 },
    );
  });

  it("is never lost: after a blur the server holds nothing", () => {
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
        const { far } = play(commands);
        far.hands.releaseAll();
        far.settle();
        expect(far.keys).toEqual([]);
        expect(far.pad).toEqual(STILL);
      }),
      { numRuns: 400 },
    );
  });
});

describe("keyboard", () => {
  function typed(...events: Event[]): Far {
    const far = new Far();
    const page = new EventTarget();
    listenKeyboard(page, far.hands, far.clock.now);
    far.connect();
    for (const event of events) page.dispatchEvent(event);
    return far;
  }

  it("goes by the place of a key, not by what is printed on it", () => {
    expect(typed(key("keydown", "KeyW", { key: "z" })).log).toMatchObject([{ type: "keys", held: ["w"] }]);
  });

  it("sends each change once, and nothing for repeats", () => {
    const far = typed(key("keydown", "KeyW"), key("keydown", "KeyW", { repeat: true }), key("keyup", "KeyW"));
    expect(far.log.map((input) => input.type === "keys" && input.held)).toEqual([["w"], []]);
  });

  it("does not take a repeat for a press, after everything was released", () => {
    const far = typed(key("keydown", "KeyW"));
    far.hands.releaseAll();
    const page = new EventTarget();
    listenKeyboard(page, far.hands, far.clock.now);
    page.dispatchEvent(key("keydown", "KeyW", { repeat: true }));
    expect(far.hands.held.value).toEqual([]);
  });

  it.each([{ ctrlKey: true }, { altKey: true }, { metaKey: true }, { isComposing: true }])("leaves shortcuts alone: %j", (change) => {
    const event = key("keydown", "KeyW", change);
    expect(typed(event).log).toEqual([]);
    expect(event.defaultPrevented).toBe(false);
  });

  it("leaves typing alone", () => {
    const event = key("keydown", "KeyW");
    Object.defineProperty(event, "target", { value: { tagName: "INPUT" } });
    expect(typed(event).log).toEqual([]);
  });

  it("lets go of all keys with Meta, because macOS sends no key-up then", () => {
    const far = typed(key("keydown", "KeyW"), key("keydown", "MetaLeft", { metaKey: true }), key("keydown", "KeyA", { metaKey: true }));
    expect(far.hands.held.value).toEqual([]);
  });

  it("walks slowly with Shift: keys become a stick", () => {
    const far = typed(key("keydown", "KeyW"), key("keydown", "ShiftLeft"));
    far.settle();
    expect(far.keys).toEqual([]);
    expect(far.pad).toEqual({ ...STILL, z: TUNING.slowSpeed });
  });
});

describe("messages", () => {
  it("keep a short press while the network is behind", () => {
    const far = new Far();
    far.connect();
    far.congested = true;
    for (let i = 0; i < 20; i++) {
      far.hands.press("a", i % 2 ? "w" : "a");
      far.hands.lift("a");
    }
    expect(far.log).toEqual([]);
    far.congested = false;
    far.settle();
    const held = far.log.map((input) => (input.type === "keys" ? input.held : null));
    expect(held.length).toBeLessThanOrEqual(8);
    expect(held.at(-2)).toEqual(["w"]);
    expect(held.at(-1)).toEqual([]);
  });

  it("stay within the rate that the server allows", () => {
    const far = new Far();
    far.connect(20);
    for (let i = 0; i < 1000; i++) {
      far.hands.turn(1, 0);
      far.hands.stick("s", { ...STILL, yaw: Math.sin(i) });
      far.clock.advance(5);
      far.arrive();
      far.answer();
    }
    expect(far.log.length).toBeLessThanOrEqual(5 * 20);
    const turned = far.log.reduce((sum, input) => sum + (input.type === "pointer" ? input.yaw : 0), 0);
    expect(turned).toBeGreaterThan(900); // nothing is lost, only gathered
  });

  it("say a level again that nobody confirmed", () => {
    const far = new Far();
    far.connect();
    far.hands.press("a", "w");
    far.clock.advance(6000);
    expect(far.log.length).toBeGreaterThan(1);
    expect(far.log.every((input) => input.type === "keys" && input.held[0] === "w")).toBe(true);
  });

  it("carry the time of the hand", () => {
    const far = new Far();
    far.connect();
    far.congested = true;
    far.hands.press("a", "w", 990);
    far.clock.advance(200);
    far.congested = false;
    far.hands.tick(far.clock.now());
    expect(far.log).toMatchObject([{ at_ms: 990 }]);
  });

  it("say nothing of presses before there is a world", () => {
    const far = new Far();
    far.hands.press("a", "w");
    far.connect();
    expect(far.log).toEqual([]);
    expect(far.hands.held.value).toEqual([]);
  });
});

describe("held", () => {
  it("holds an action while any source does", () => {
    let held = pressed(pressed(NOTHING_HELD, "KeyJ", "j"), "ArrowLeft", "j");
    held = lifted(held, "KeyJ");
    expect(actionsOf(held)).toEqual(["j"]);
    expect(actionsOf(lifted(held, "ArrowLeft"))).toEqual([]);
  });

  it("is the same object when nothing changed", () => {
    const held = pressed(NOTHING_HELD, "KeyJ", "j");
    expect(pressed(held, "KeyJ", "j")).toBe(held);
    expect(lifted(held, "KeyW")).toBe(held);
  });
});

describe("the control vector", () => {
  it("cancels opposites and is no faster on a diagonal", () => {
    expect(fromActions(["w", "s", "l"])).toEqual({ ...STILL, yaw: 1 });
    const { x, z } = fromActions(["w", "d"]);
    expect(Math.hypot(x, z)).toBeCloseTo(1);
  });

  it("adds devices within full speed", () => {
    expect(together({ ...STILL, yaw: 0.8 }, { ...STILL, yaw: 0.8 })).toEqual({ ...STILL, yaw: 1 });
  });

  it("takes the dead zone out of a stick without a step", () => {
    expect(throughDeadZone(0.14, 0, 0.15)).toEqual({ x: 0, y: 0 });
    expect(throughDeadZone(0.16, 0, 0.15).x).toBeCloseTo(0.0118, 3);
    expect(throughDeadZone(0, 1, 0.15)).toEqual({ x: 0, y: 1 });
  });

  it("reads a gamepad in the standard layout", () => {
    const pad = { id: "x", connected: true, axes: [0, -1, 1, 0], buttons: [] };
    expect(padMotion(pad, TUNING)).toEqual({ x: 0, z: 1, yaw: 1, pitch: 0 });
    expect(padMotion({ ...pad, axes: [Number.NaN] }, TUNING)).toEqual(STILL);
  });

  it("lets go when a gamepad is unplugged", () => {
    const far = new Far();
    far.connect();
    let pads: { id: string; connected: boolean; axes: number[]; buttons: [] }[] = [{ id: "x", connected: true, axes: [1, 0], buttons: [] }];
    far.hands.readGamepads(() => pads);
    far.hands.tick(far.clock.now());
    expect(far.hands.gamepad.value).toBe("x");
    far.settle();
    expect(far.pad.x).toBe(1);
    pads = [];
    far.hands.tick(far.clock.now());
    far.settle();
    expect(far.pad).toEqual(STILL);
    expect(far.hands.gamepad.value).toBeNull();
  });
});
