import { describe, expect, it } from "vitest";

import type { GalleryEntry } from "../src/lib/picture";
import { suggestions } from "../src/lib/suggestions";

function entry(world: string | undefined, layout: string | undefined, name: string): GalleryEntry {
  const place = world === undefined ? {} : { world, ...(layout === undefined ? {} : { layout }) };
  return { name, file: `${name}.png`, prompt: `words of ${name}`, seed: 1, ...place };
}

const GALLERY = [
  entry("dusk", "court", "a"),
  entry("noon", "meadow", "b"),
  entry("snow", "snow", "c"),
  entry("night", "court", "d"),
  entry("dusk", "court", "e"),
];

describe("suggestions", () => {
  const worlds = (here: string | null, count = 9): string[] =>
    suggestions(GALLERY, here, count).map((one) => one.world);

  it("offers the same place in another light first and never where one is", () => {
    expect(worlds("dusk")).toEqual(["night", "noon", "snow"]);
    expect(worlds("night")).toEqual(["dusk", "noon", "snow"]);
  });

  it("goes on with the worlds that follow", () => {
    expect(worlds("noon")).toEqual(["snow", "night", "dusk"]);
  });

  it("offers all of them from a picture of one's own, in the words of the first view", () => {
    expect(worlds(null)).toEqual(["dusk", "noon", "snow", "night"]);
    expect(suggestions(GALLERY, null, 1)).toEqual([{ world: "dusk", prompt: "words of a" }]);
  });

  it("keeps to the count, and a gallery without worlds offers nothing", () => {
    expect(worlds("dusk", 2)).toEqual(["night", "noon"]);
    expect(suggestions([entry(undefined, undefined, "old")], null, 4)).toEqual([]);
  });
});
