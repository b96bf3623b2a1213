import { describe, expect, it } from "vitest";

import { wanted } from "../src/lib/formats";

const VIDEO = { formats: ["h264", "jpeg", "webp", "raw"], reason: null } as const;
const PICTURES = { formats: ["jpeg", "webp", "raw"], reason: null } as const;

describe("the formats to ask for", () => {
  it("are the wish first, then what else can be shown", () => {
    expect(wanted("webp", VIDEO)).toEqual(["webp", "h264", "jpeg", "raw"]);
  });

  it("are left to the client library without a wish, and while nobody knows whether it can be had", () => {
    expect(wanted("auto", VIDEO)).toBeNull();
    expect(wanted("auto", PICTURES)).toBeNull();
    expect(wanted("h264", PICTURES)).toBeNull();
  });
});
