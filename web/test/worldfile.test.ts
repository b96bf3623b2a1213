import { describe, expect, it } from "vitest";

import { isWorld, readWorld, sizeWords } from "../src/lib/worldfile";

const MAGIC = [0x89, 0x57, 0x4f, 0x52, 0x4c, 0x44, 0x0d, 0x0a];
const file = (name: string, bytes: number[]): File => new File([new Uint8Array(bytes)], name);

describe("a file that is brought", () => {
  it("is a world by its name or by how it begins", async () => {
    expect(await isWorld(file("a.WL", []))).toBe(true);
    expect(await isWorld(file("download", [...MAGIC, 0, 1]))).toBe(true);
    expect(await isWorld(file("a.png", [0x89, 0x50, 0x4e, 0x47]))).toBe(false);
    expect(await isWorld(file("empty", []))).toBe(false);
  });

  it("is read, unless it is larger than any world", async () => {
    expect([...(await readWorld(file("a.wl", [1, 2])))]).toEqual([1, 2]);
    const large = { size: 2 ** 25 + 1, arrayBuffer: () => Promise.reject(new Error("read")) };
    await expect(readWorld(large as unknown as File)).rejects.toThrow("too large");
    const gone = { size: 1, arrayBuffer: () => Promise.reject(new Error("gone")) };
    await expect(readWorld(gone as unknown as File)).rejects.toThrow("cannot be read");
  });

  it("has a size for people", () => {
    expect([900, 3210, 999_999, 2_400_000].map(sizeWords)).toEqual(["900 bytes", "3 kB", "1.0 MB", "2.4 MB"]);
  });
});
