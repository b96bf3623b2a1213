import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { WorldError } from "../src/errors.js";
import { readNpy, writeNpy } from "../src/path/npy.js";
import { fitting, MAX_POSES, readPath, writePath } from "../src/path/path.js";
import { PathRecorder } from "../src/path/recorder.js";
import { frame } from "./fakes.js";

const POSE = [1, 0, 0, 0.5, 0, 1, 0, 0, 0, 0, 1, 2];

/** A file as NumPy writes it. */
function npy(descr: string, order: string, shape: string, values: DataView, version = 1): Uint8Array {
  const words = `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': ${shape}, }`;
  const length = words.length + 1;
  const begin = version === 1 ? 10 : 12;
  const bytes = new Uint8Array(begin + length + values.byteLength);
  bytes.set([0x93, ...new TextEncoder().encode("NUMPY"), version, 0]);
  const view = new DataView(bytes.buffer);
  if (version === 1) view.setUint16(8, length, true);
  else view.setUint32(8, length, true);
  bytes.set(new TextEncoder().encode(`${words}\n`), begin);
  bytes.set(new Uint8Array(values.buffer), begin + length);
  return bytes;
}

function floats(values: readonly number[], size: 4 | 8, little = true): DataView {
  const view = new DataView(new ArrayBuffer(values.length * size));
  values.forEach((value, i) => (size === 4 ? view.setFloat32(i * 4, value, little) : view.setFloat64(i * 8, value, little)));
  return view;
}

describe(".npy", () => {
  it.each([
    ["<f4", 4, true, 1],
    ["<f8", 8, true, 1],
    [">f8", 8, false, 2],
    ["=f4", 4, true, 3],
  ] as const)("reads %s", (descr, size, little, version) => {
    const { shape, data } = readNpy(npy(descr, "False", "(2, 3)", floats([1, 2, 3, 4, 5, 6], size, little), version));
    expect(shape).toEqual([2, 3]);
    expect([...data]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("reads Fortran order", () => {
    const { data } = readNpy(npy("<f8", "True", "(2, 3)", floats([1, 4, 2, 5, 3, 6], 8)));
    expect([...data]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("reads a view into a larger buffer", () => {
    const file = npy("<f8", "False", "(2,)", floats([7, 8], 8));
    const larger = new Uint8Array(file.length + 7);
    larger.set(file, 5);
    expect([...readNpy(larger.subarray(5, 5 + file.length)).data]).toEqual([7, 8]);
  });

  it("reads what it wrote, with the data where NumPy wants it", () => {
    const data = new Float64Array([1.5, -2, 3, 4.25]);
    const bytes = writeNpy({ shape: [2, 2], data });
    expect((bytes.length - 16) % 64).toBe(0);
    expect(readNpy(bytes)).toEqual({ shape: [2, 2], data });
  });

  it("refuses anything else with a typed error", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (noise, magic) => {
        const bytes = magic ? Uint8Array.from([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, ...noise]) : noise;
        expect(() => readNpy(bytes)).toThrow(WorldError);
      }),
    );
    for (const [descr, shape] of [["|O", "(2,)"], ["<i8", "(2,)"], ["<f8", "(99999999, 999)"], ["<f8", "(3,)"]] as const) {
      expect(() => readNpy(npy(descr, "False", shape, floats([1, 2], 8)))).toThrow(WorldError);
    }
  });
});

describe("a path", () => {
  it("comes from [N, 4, 4] and from [N, 3, 4]", () => {
    const four = npy("<f8", "False", "(2, 4, 4)", floats([...POSE, 0, 0, 0, 1, ...POSE, 0, 0, 0, 1], 8));
    const three = npy("<f4", "False", "(2, 3, 4)", floats([...POSE, ...POSE], 4));
    for (const file of [four, three]) expect(readPath(file)).toEqual({ poses: [POSE, POSE], rate: 16 });
  });

  it("goes round through a file", () => {
    const path = { poses: [POSE, POSE, POSE], rate: 4 };
    expect(readPath(writePath(path), 4)).toEqual(path);
  });

  it.each([
    ["one pose", npy("<f8", "False", "(1, 3, 4)", floats(POSE, 8))],
    ["another shape", npy("<f8", "False", "(4, 3)", floats(POSE, 8))],
    ["no rotation", npy("<f8", "False", "(2, 3, 4)", floats([...POSE, ...POSE.map((value) => value * 2)], 8))],
    ["no numbers", npy("<f8", "False", "(2, 3, 4)", floats([...POSE, Number.NaN, ...POSE.slice(1)], 8))],
  ])("is refused for %s", (_name, file) => {
    expect(() => readPath(file)).toThrow(WorldError);
  });

  it("is thinned to what the wire takes, its duration and ends kept", () => {
    const poses = Array.from({ length: 10_000 }, (_, i) => [...POSE.slice(0, 11), i]);
    const thin = fitting({ poses, rate: 100 });
    expect(thin.poses.length).toBe(MAX_POSES);
    expect(thin.poses[0]?.[11]).toBe(0);
    expect(thin.poses.at(-1)?.[11]).toBe(9999);
    expect((thin.poses.length - 1) / thin.rate).toBeCloseTo(9999 / 100);
  });
});

describe("recording a walk", () => {
  it("takes one pose per latent frame", () => {
    const recorder = new PathRecorder();
    recorder.take(frame(0, { pose: POSE }), 4);
    recorder.start();
    for (let i = 0; i < 24; i++) recorder.take(frame(i, { pose: [...POSE.slice(0, 11), i] }), 4);
    recorder.take(frame(99), 4); // no pose
    const { poses, rate } = recorder.stop();
    expect(poses.map((pose) => pose[11])).toEqual([0, 4, 8, 12, 16, 20]);
    expect(rate).toBe(4);
    expect(recorder.recording.value).toBe(false);
  });
});
