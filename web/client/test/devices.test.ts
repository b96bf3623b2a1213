import { describe, expect, it } from "vitest";

import { Hands } from "../src/hands/hands.js";
import type { HandInput } from "../src/hands/outgoing.js";
import { FakeClock } from "./fakes.js";

/** An element, its page and its window, as far as the hands touch them. */
class FakeElement extends EventTarget {
  readonly style = { touchAction: "auto" };
  readonly ownerDocument = Object.assign(new EventTarget(), {
    pointerLockElement: null as unknown,
    visibilityState: "visible",
    defaultView: Object.assign(new EventTarget(), { navigator: {} }),
    exitPointerLock: () => this.#locked(null),
  });
  readonly captured: number[] = [];
  refuseRaw = false;
  refuse = false;

  setPointerCapture(id: number): void {
    this.captured.push(id);
  }

  getBoundingClientRect(): { left: number; top: number; width: number } {
    return { left: 100, top: 50, width: 800 };
  }

  requestPointerLock(options?: object): Promise<void> {
    const no = this.refuse ? "NotAllowedError" : options && this.refuseRaw ? "NotSupportedError" : null;
    if (no) return Promise.reject(new DOMException("no", no));
    this.#locked(this);
    return Promise.resolve();
  }

  get window(): EventTarget {
    return this.ownerDocument.defaultView;
  }

  pointer(type: string, change: object): Event {
    const init = { pointerId: 1, pointerType: "mouse", button: 0, clientX: 0, clientY: 0, movementX: 0, movementY: 0 };
    const event = Object.assign(new Event(type, { cancelable: true }), { ...init, ...change });
    this.dispatchEvent(event);
    return event;
  }

  #locked(element: unknown): void {
    this.ownerDocument.pointerLockElement = element;
    this.ownerDocument.dispatchEvent(new Event("pointerlockchange"));
  }
}

function listening(): { hands: Hands; element: FakeElement; log: HandInput[]; clock: FakeClock; stop: () => void } {
  const clock = new FakeClock();
  const log: HandInput[] = [];
  const send = (input: HandInput): number => log.push(input);
  const { now, after } = clock;
  const hands = new Hands({ now, after, send, congested: () => false }, { moved: () => undefined, turned: () => undefined });
  const element = new FakeElement();
  const stop = hands.listen(element as unknown as HTMLElement);
  hands.open(0);
  return { hands, element, log, clock, stop };
}

function turns(log: readonly HandInput[]): number[][] {
  return log.flatMap((input) => (input.type === "pointer" ? [[input.yaw, input.pitch]] : []));
}

describe("the mouse", () => {
  it("looks around while a button is held, right and up being positive", () => {
    const { element, log } = listening();
    element.pointer("pointermove", { movementX: 50 });
    expect(log).toEqual([]);
    element.pointer("pointerdown", {});
    expect(element.captured).toEqual([1]);
    element.pointer("pointermove", { movementX: 50, movementY: -25 });
    expect(turns(log)).toEqual([[6, 3]]);
    element.pointer("pointerup", {});
    element.pointer("pointermove", { movementX: 50 });
    expect(turns(log).length).toBe(1);
  });

  it("looks around without a button while it is locked", async () => {
    const { hands, element, log } = listening();
    expect(await hands.lock()).toBe(true);
    expect(hands.locked.value).toBe(true);
    element.pointer("pointermove", { movementX: -10 });
    expect(turns(log)[0]?.[0]).toBeCloseTo(-1.2);
    hands.unlock();
    expect(hands.locked.value).toBe(false);
  });

  it("is locked with the system's acceleration where there is no other way, or not at all", async () => {
    const { hands, element } = listening();
    element.refuseRaw = true;
    expect(await hands.lock()).toBe(true);
    hands.unlock();
    element.refuse = true;
    expect(await hands.lock()).toBe(false);
    expect(hands.locked.value).toBe(false);
  });

  it("can be tuned, and a jump of the browser's is no turn", () => {
    const { hands, element, log, clock } = listening();
    hands.tune({ sensitivity: 1, invertY: true });
    element.pointer("pointerdown", {});
    element.pointer("pointermove", { movementY: 10 });
    clock.advance(100);
    element.pointer("pointermove", { movementX: 5000 });
    expect(turns(log)).toEqual([[0, 10]]);
  });

  it("gathers moves between messages and loses none", () => {
    const { element, log, clock } = listening();
    element.pointer("pointerdown", {});
    for (let i = 0; i < 100; i++) {
      element.pointer("pointermove", { movementX: 1 });
      clock.advance(4);
    }
    clock.advance(100);
    expect(log.length).toBeLessThan(20);
    expect(turns(log).reduce((sum, [yaw]) => sum + (yaw ?? 0), 0)).toBeCloseTo(12);
  });
});

describe("touch", () => {
  const finger = { pointerType: "touch" };

  it("moves with the left half, looks with the right, both at once", () => {
    const { hands, element } = listening();
    const down = element.pointer("pointerdown", { ...finger, pointerId: 1, clientX: 200, clientY: 300 });
    expect(down.defaultPrevented).toBe(true);
    element.pointer("pointerdown", { ...finger, pointerId: 2, clientX: 800, clientY: 300 });
    element.pointer("pointermove", { ...finger, pointerId: 1, clientX: 200, clientY: 200 });
    element.pointer("pointermove", { ...finger, pointerId: 2, clientX: 900, clientY: 300 });
    expect(hands.motion.value).toEqual({ x: 0, z: 1, yaw: 1, pitch: 0 });
    expect(hands.sticks.value.move).toMatchObject({ x: 100, y: 250, dx: 0, radius: 56 });
    expect(hands.sticks.value.move?.dy).toBeCloseTo(-56);
    element.pointer("pointerup", { ...finger, pointerId: 1 });
    expect(hands.motion.value).toEqual({ x: 0, z: 0, yaw: 1, pitch: 0 });
    element.pointer("pointercancel", { ...finger, pointerId: 2 });
    expect(hands.motion.value).toEqual({ x: 0, z: 0, yaw: 0, pitch: 0 });
    expect(hands.sticks.value).toEqual({ move: null, look: null });
  });

  it("takes a second finger on the same half for nothing", () => {
    const { hands, element } = listening();
    element.pointer("pointerdown", { ...finger, pointerId: 1, clientX: 200, clientY: 300 });
    element.pointer("pointerdown", { ...finger, pointerId: 2, clientX: 220, clientY: 300 });
    element.pointer("pointermove", { ...finger, pointerId: 2, clientX: 400, clientY: 300 });
    expect(hands.motion.value.x).toBe(0);
    element.pointer("pointerup", { ...finger, pointerId: 2 });
    expect(hands.sticks.value.move).not.toBeNull();
  });

  it("keeps the page from scrolling only while it listens", () => {
    const { element, stop } = listening();
    expect(element.style.touchAction).toBe("none");
    stop();
    expect(element.style.touchAction).toBe("auto");
  });
});

describe("everything is released", () => {
  it.each<[string, (element: FakeElement, stop: () => void) => void]>([
    ["by a blur", (element) => element.window.dispatchEvent(new Event("blur"))],
    ["when the page goes away", (element) => element.window.dispatchEvent(new Event("pagehide"))],
    ["when the tab is hidden", (element) => {
      element.ownerDocument.visibilityState = "hidden";
      element.ownerDocument.dispatchEvent(new Event("visibilitychange"));
    }],
    ["when nobody listens any more", (_, stop) => stop()],
  ])("%s", (_name, go) => {
    const { hands, element, log, clock, stop } = listening();
    hands.press("a button", "w");
    hands.stick("mine", { x: 1, z: 0, yaw: 0.5, pitch: 0 });
    element.window.dispatchEvent(Object.assign(new Event("keydown"), { code: "KeyA", repeat: false }));
    expect(hands.held.value).toEqual(["w", "a"]);
    go(element, stop);
    clock.advance(50);
    expect(hands.held.value).toEqual([]);
    expect(hands.motion.value).toEqual({ x: 0, z: 0, yaw: 0, pitch: 0 });
    expect(log.findLast(({ type }) => type === "keys")).toMatchObject({ held: [] });
    expect(log.findLast(({ type }) => type === "pad")).toMatchObject({ x: 0, yaw: 0 });
  });

  it("and nothing is heard after the end of listening", () => {
    const { hands, element, log, stop } = listening();
    stop();
    const before = log.length;
    element.window.dispatchEvent(Object.assign(new Event("keydown"), { code: "KeyW", repeat: false }));
    element.pointer("pointerdown", {});
    element.pointer("pointermove", { movementX: 40 });
    expect(log.length).toBe(before);
    expect(hands.held.value).toEqual([]);
  });
});
