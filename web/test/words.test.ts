import { describe, expect, it } from "vitest";

import { announce, explain, WORDS } from "../src/lib/words";

describe("ends in words", () => {
  it("says what was expected and what came where the server knows the particulars", () => {
    const error = { retryable: false, expected: "at most 4096 characters", got: "9000" };
    const ending = explain({ code: "invalid_prompt", message: "the prompt is too long", error });
    expect(ending.detail).toBe("The prompt is too long; expected at most 4096 characters; got 9000.");
    expect(ending).toMatchObject({ offer: "start", resumes: false });
  });

  it("offers the same again where it can work, and goes back to a world that may be there", () => {
    expect(explain({ code: "lifetime", message: "", error: null })).toMatchObject({
      offer: "again",
      resumes: false,
    });
    expect(explain({ code: "unreachable", message: "", error: { retryable: true } })).toMatchObject({
      offer: "again",
      resumes: true,
    });
  });

  it("asks for a key where one is missing", () => {
    expect(explain({ code: "unauthorized", message: "", error: { retryable: false } }).offer).toBe("key");
  });

  it("shows the server's own words for a code it does not know", () => {
    const known = explain({ code: "constructor", message: "out of paint", error: { retryable: true } });
    expect(known).toEqual({
      title: "The world went away",
      detail: "Out of paint.",
      code: "constructor",
      offer: "again",
      resumes: true,
    });
    expect(explain({ code: "odd", message: " ", error: null }).detail).toBe("No reason was given.");
  });

  it("has a title without a full stop for every code", () => {
    for (const { title, detail } of Object.values(WORDS)) {
      expect(title).not.toMatch(/\.$/);
      if (detail !== undefined) expect(detail).toMatch(/[.?]$/);
    }
  });
});

describe("announcements", () => {
  it("are the page's words, nothing where another place shows them, else the server's", () => {
    expect(announce("idle", "the world closes unless an input comes")).toMatch(/^Are you still there/);
    expect(announce("control_asked", "viewer 3")).toBeNull();
    expect(announce("new", "something is new")).toBe("Something is new.");
  });
});
