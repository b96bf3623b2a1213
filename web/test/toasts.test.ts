import { describe, expect, it } from "vitest";

import { Toasts } from "../src/state/toasts";

function atHand() {
  const tasks: { task: () => void; at: number }[] = [];
  const time = { at: 1000, now: () => time.at, later: (task: () => void, ms: number) => void tasks.push({ task, at: time.at + ms }) };
  const pass = (ms: number): void => {
    time.at += ms;
    for (const due of tasks.filter(({ at }) => at <= time.at)) {
      tasks.splice(tasks.indexOf(due), 1);
      due.task();
    }
  };
  return { toasts: new Toasts(time), pass };
}

describe("toasts", () => {
  it("go away by themselves, announcements when their time has come", () => {
    const { toasts, pass } = atHand();
    toasts.say("saved");
    toasts.say("closing", { inMs: 20_000 });
    expect(toasts.list.value.map(({ until }) => until)).toEqual([null, 21_000]);
    pass(6000);
    expect(toasts.list.value.map(({ text }) => text)).toEqual(["closing"]);
    pass(14_000);
    expect(toasts.list.value).toEqual([]);
  });

  it("say the same thing once, with the newest time, and never more than three", () => {
    const { toasts } = atHand();
    toasts.say("closing", { inMs: 9000 });
    toasts.say("closing", { inMs: 5000 });
    expect(toasts.list.value.map(({ until }) => until)).toEqual([6000]);
    for (const text of ["a", "b", "c"]) toasts.say(text);
    expect(toasts.list.value.map(({ text }) => text)).toEqual(["a", "b", "c"]);
  });

  it("can be put away", () => {
    const { toasts } = atHand();
    toasts.say("one");
    toasts.say("two", { tone: "warning" });
    toasts.dismiss(toasts.list.value[0]?.id ?? 0);
    expect(toasts.list.value.map(({ text }) => text)).toEqual(["two"]);
  });
});
