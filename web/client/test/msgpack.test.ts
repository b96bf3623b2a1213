import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { decode, encode, type Packable } from "../src/msgpack.js";

function hex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function unhex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

describe("encode", () => {
  const cases: [Packable, string][] = [
    [null, "c0"],
    [false, "c2"],
    [true, "c3"],
    [0, "00"],
    [127, "7f"],
    [128, "cc80"],
    [255, "ccff"],
    [256, "cd0100"],
    [65_535, "cdffff"],
    [65_536, "ce00010000"],
    [0xffffffff, "ceffffffff"],
    [0x100000000, "cf0000000100000000"],
    [-0x80000001, "d3ffffffff7fffffff"],
    [2 ** 53, "cb4340000000000000"],
    [-1, "ff"],
    [-32, "e0"],
    [-33, "d0df"],
    [-129, "d1ff7f"],
    [-32_769, "d2ffff7fff"],
    [1.5, "cb3ff8000000000000"],
    ["", "a0"],
    ["wörld", "a677c3b6726c64"],
    [[1, [2]], "92019102"],
    [{ a: 1, gone: undefined, b: null }, "82a16101a162c0"],
    [new Uint8Array([1, 2]), "c4020102"],
  ];
  it.each(cases)("%j", (value, expected) => {
    expect(hex(encode(value))).toBe(expected);
  });

  it("widens lengths at their limits", () => {
    expect(hex(encode("x".repeat(31)).subarray(0, 1))).toBe("bf");
    expect(hex(encode("x".repeat(32)).subarray(0, 2))).toBe("d920");
    expect(hex(encode("x".repeat(256)).subarray(0, 3))).toBe("da0100");
    expect(hex(encode(new Uint8Array(256)).subarray(0, 3))).toBe("c50100");
    expect(hex(encode(new Uint8Array(65_536)).subarray(0, 5))).toBe("c600010000");
    expect(hex(encode(Array.from({ length: 16 }, () => 0)).subarray(0, 3))).toBe("dc0010");
  });
});

describe("growing", () => {
  it("holds at every size around the first buffer", () => {
    for (let length = 200; length < 300; length++) {
      const value = { text: "x".repeat(length), ints: [1, 300, 70_000], f: 0.5 };
      expect(decode(encode(value))).toEqual(value);
    }
  });
});

describe("decode", () => {
  it.each<[string, unknown]>([
    ["ca3fc00000", 1.5],
    ["cb3ff8000000000000", 1.5],
    ["cf0000000100000000", 0x100000000],
    ["d3ffffffffffffffff", -1],
    ["d902c3b6", "ö"],
    ["dc000101", [1]],
    ["dd0000000101", [1]],
    ["de0001a16101", { a: 1 }],
    ["df00000001a16101", { a: 1 }],
    ["e0", -32],
  ])("%s", (bytes, expected) => {
    expect(decode(unhex(bytes))).toEqual(expected);
  });

  it("returns binary values as views of the message", () => {
    const message = encode({ payload: new Uint8Array(300).fill(7) });
    const payload = (decode(message) as { payload: Uint8Array }).payload;
    expect(payload.length).toBe(300);
    expect(payload.buffer).toBe(message.buffer);
  });

  it("returns what was encoded", () => {
    const value = { a: [1, -5, 70_000, 1.25, "x".repeat(70_000)], b: { c: true, d: null } };
    expect(decode(encode(value))).toEqual(value);
  });

  it.each([
    ["nothing", ""],
    ["a string cut short", "a5616263"],
    ["an integer cut short", "cd01"],
    ["a list that promises more than there is", "ddffffffff"],
    ["bytes after the value", "0101"],
    ["an extension", "d40101"],
    ["a key that is no string", "810101"],
    ["text that is not UTF-8", "a1ff"],
    ["an integer beyond 2^53", "cfffffffffffffffff"],
    ["endless nesting", "91".repeat(100)],
  ])("refuses %s", (_name, bytes) => {
    expect(() => decode(unhex(bytes))).toThrow();
  });

  it("does not let a key reach the prototype", () => {
    const value = decode(unhex("81a95f5f70726f746f5f5f01")) as Record<string, unknown>;
    expect(Object.keys(value)).toEqual(["__proto__"]);
    expect(({} as Record<string, unknown>)["1"]).toBeUndefined();
  });
});

describe("any value", () => {
  const { letrec } = fc;
  const { value } = letrec<{ value: Packable }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 3 },
      fc.constant(null),
      fc.boolean(),
      fc.double({ noNaN: true }).filter((number) => !Object.is(number, -0)),
      fc.integer({ min: -(2 ** 53) + 1, max: 2 ** 53 - 1 }),
      fc.string({ unit: "grapheme" }),
      fc.uint8Array(),
      fc.array(tie("value")),
      fc.dictionary(fc.string(), tie("value")),
    ),
  }));

  it("comes back as it was", () => {
    fc.assert(
      fc.property(value, (given) => {
        expect(decode(encode(given))).toEqual(given);
      }),
    );
  });

  it("cut short anywhere is refused", () => {
    fc.assert(
      fc.property(value, fc.nat(), (given, at) => {
        const bytes = encode(given);
        expect(() => decode(bytes.subarray(0, at % bytes.length))).toThrow();
      }),
    );
  });

  it("out of random bytes is a value or a refusal, never anything else", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          decode(bytes);
        } catch (error) {
          expect(error).toSatisfy((e: unknown) => e instanceof RangeError || e instanceof TypeError);
        }
      }),
    );
  });
});
