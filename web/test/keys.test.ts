import { describe, expect, it } from "vitest";

import { Controls } from "../src/lib/controls";
import { compact, heldActions, KEY_ACTIONS, NOTHING_HELD, reduce, type Action, type Held } from "../src/lib/keys";
import type { Transition } from "../src/lib/wire";

function press(held: Held, code: string): Held {
  return reduce(held, { type: "press", source: code, action: KEY_ACTIONS[code] as Action });
}

describe("reduce", () => {
  it("maps arrows and letters to the same look actions", () => {
    for (const [arrow, letter] of [["ArrowUp", "KeyI"], ["ArrowLeft", "KeyJ"], ["ArrowDown", "KeyK"], ["ArrowRight", "KeyL"]]) {
      expect(KEY_ACTIONS[arrow as string]).toBe(KEY_ACTIONS[letter as string]);
    }
  });

  it("ignores key repeat by returning the same state", () => {
    const once = press(NOTHING_HELD, "KeyW");
    expect(press(once, "KeyW")).toBe(once);
  });

  it("holds an action while any of its sources is held", () => {
    let held = press(press(NOTHING_HELD, "ArrowLeft"), "KeyJ");
    held = reduce(held, { type: "release", source: "KeyJ" });
    expect(heldActions(held)).toEqual(["j"]);
    held = reduce(held, { type: "release", source: "ArrowLeft" });
    expect(heldActions(held)).toEqual([]);
  });

  it("moves a finger from one button to another", () => {
    let held = reduce(NOTHING_HELD, { type: "press", source: "pointer 1", action: "w" });
    held = reduce(held, { type: "press", source: "pointer 1", action: "d" });
    expect(heldActions(held)).toEqual(["d"]);
  });

  it("lists actions in one order, however they were pressed", () => {
    expect(heldActions(press(press(NOTHING_HELD, "ArrowRight"), "KeyW"))).toEqual(["w", "l"]);
  });

  it("releases everything at once", () => {
    const held = press(press(NOTHING_HELD, "KeyW"), "KeyD");
    expect(heldActions(reduce(held, { type: "release-all" }))).toEqual([]);
    expect(reduce(NOTHING_HELD, { type: "release-all" })).toBe(NOTHING_HELD);
  });
});

describe("compact", () => {
  const item = (...actions: string[]) => ({ actions });

  it("keeps the newest press and the final level", () => {
    expect(compact([item("w"), item(), item("d"), item()])).toEqual([item("d"), item()]);
    expect(compact([item("w"), item(), item("a"), item("a", "w")])).toEqual([item("a", "w")]);
  });
});

describe("Controls", () => {
  function setUp(open = true) {
    const sent: Transition[][] = [];
    const tasks: (() => void)[] = [];
    const sink = { open, levels: [] as Action[][] };
    const controls = new Controls(
      {
        send: (transitions) => {
          if (sink.open) sent.push([...transitions]);
          return sink.open;
        },
        changed: (actions) => sink.levels.push([...actions]),
      },
      () => 1000,
      (task) => tasks.push(task),
    );
    const run = () => tasks.splice(0).forEach((task) => task());
    return { controls, sent, sink, run };
  }

  const down = (source: string, action: Action) => ({ type: "press", source, action }) as const;

  it("sends one message for the changes of one task", () => {
    const { controls, sent, run } = setUp();
    controls.apply(down("KeyW", "w"));
    controls.apply(down("KeyD", "d"));
    run();
    expect(sent).toEqual([
      [
        { actions: ["w"], client_ts_ms: 1000 },
        { actions: ["w", "d"], client_ts_ms: 1000 },
      ],
    ]);
  });

  it("is silent when the held actions stay the same", () => {
    const { controls, sent, run } = setUp();
    controls.apply(down("ArrowLeft", "j"));
    run();
    controls.apply(down("ArrowLeft", "j"));
    controls.apply(down("KeyJ", "j"));
    controls.apply({ type: "release", source: "KeyJ" });
    run();
    expect(sent).toHaveLength(1);
  });

  it("keeps a release that could not be sent until it can", () => {
    const { controls, sent, sink, run } = setUp();
    controls.apply(down("KeyW", "w"));
    run();
    sink.open = false;
    controls.apply({ type: "release-all" });
    run();
    for (let i = 0; i < 20; i++) {
      controls.apply(down("KeyA", "a"));
      controls.apply({ type: "release", source: "KeyA" });
      run();
    }
    sink.open = true;
    controls.flushSoon();
    run();
    expect(sent.at(-1)?.at(-1)?.actions).toEqual([]);
    expect(sent.at(-1)?.length).toBeLessThanOrEqual(8);
  });

  it("forgets without sending when a new session begins", () => {
    const { controls, sent, sink, run } = setUp();
    controls.apply(down("KeyW", "w"));
    controls.reset();
    run();
    expect(sent).toEqual([]);
    expect(sink.levels.at(-1)).toEqual([]);
  });
});
