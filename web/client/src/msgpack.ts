/**
 * MessagePack, as much of it as the wire needs. The decoder reads every standard type except
 * extensions and 64-bit integers beyond 2^53; binary values are views, not copies.
 */

export type Packable =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | readonly Packable[]
  | { readonly [key: string]: Packable | undefined };

const utf8Encoder = new TextEncoder();
const utf8Decoder = new TextDecoder("utf-8", { fatal: true });

/** Encodes a value. Map entries whose value is `undefined` are left out. */
export function encode(value: Packable): Uint8Array<ArrayBuffer> {
  const writer = new Writer();
  writer.value(value);
  return writer.bytes();
}

/** Decodes exactly one value; bytes left over are an error. */
export function decode(bytes: Uint8Array): unknown {
  const reader = new Reader(bytes);
  const value = reader.value(0);
  if (!reader.atEnd()) throw new RangeError("bytes left after the MessagePack value");
  return value;
}

class Writer {
  #buffer = new Uint8Array(256);
  #view = new DataView(this.#buffer.buffer);
  #length = 0;

  bytes(): Uint8Array<ArrayBuffer> {
    return this.#buffer.slice(0, this.#length);
  }

  value(value: Packable): void {
    if (value === null) this.#byte(0xc0);
    else if (typeof value === "boolean") this.#byte(value ? 0xc3 : 0xc2);
    else if (typeof value === "number") this.#number(value);
    else if (typeof value === "string") this.#string(value);
    else if (value instanceof Uint8Array) this.#binary(value);
    else if (isList(value)) this.#list(value);
    else this.#map(value);
  }

  #number(value: number): void {
    if (!Number.isSafeInteger(value)) {
      this.#byte(0xcb);
      this.#grown(8).setFloat64(this.#length - 8, value);
    } else if (value > 0xffffffff || value < -0x80000000) {
      this.#byte(value > 0 ? 0xcf : 0xd3);
      this.#grown(8).setBigInt64(this.#length - 8, BigInt(value));
    } else if (value >= 0) {
      if (value < 0x80) this.#byte(value);
      else this.#sized(value, 0xcc);
    } else if (value >= -32) {
      this.#byte(0x100 + value);
    } else if (value >= -0x80) {
      this.#byte(0xd0);
      this.#grown(1).setInt8(this.#length - 1, value);
    } else if (value >= -0x8000) {
      this.#byte(0xd1);
      this.#grown(2).setInt16(this.#length - 2, value);
    } else {
      this.#byte(0xd2);
      this.#grown(4).setInt32(this.#length - 4, value);
    }
  }

  #string(value: string): void {
    const bytes = utf8Encoder.encode(value);
    if (bytes.length < 32) this.#byte(0xa0 | bytes.length);
    else this.#sized(bytes.length, 0xd9);
    this.#raw(bytes);
  }

  #binary(value: Uint8Array): void {
    this.#sized(value.length, 0xc4);
    this.#raw(value);
  }

  #list(value: readonly Packable[]): void {
    if (value.length < 16) this.#byte(0x90 | value.length);
    else this.#wide(value.length, 0xdc);
    for (const item of value) this.value(item);
  }

  #map(value: { readonly [key: string]: Packable | undefined }): void {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    if (entries.length < 16) this.#byte(0x80 | entries.length);
    else this.#wide(entries.length, 0xde);
    for (const [key, item] of entries) {
      this.#string(key);
      this.value(item as Packable);
    }
  }

  /** A length or an unsigned integer in 8, 16 or 32 bits; the three markers follow each other. */
  #sized(size: number, marker: number): void {
    if (size < 0x100) {
      this.#byte(marker);
      this.#byte(size);
    } else this.#wide(size, marker + 1);
  }

  #wide(size: number, marker: number): void {
    if (size < 0x10000) {
      this.#byte(marker);
      this.#grown(2).setUint16(this.#length - 2, size);
    } else {
      this.#byte(marker + 1);
      this.#grown(4).setUint32(this.#length - 4, size);
    }
  }

  #byte(value: number): void {
    this.#grown(1).setUint8(this.#length - 1, value);
  }

  #raw(bytes: Uint8Array): void {
    this.#grown(bytes.length);
    this.#buffer.set(bytes, this.#length - bytes.length);
  }

  /** Appends `count` bytes and returns a view of the buffer as it is afterwards. */
  #grown(count: number): DataView {
    this.#length += count;
    if (this.#length > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(this.#length, this.#buffer.length * 2));
      larger.set(this.#buffer);
      this.#buffer = larger;
      this.#view = new DataView(larger.buffer);
    }
    return this.#view;
  }
}

function isList(value: Packable): value is readonly Packable[] {
  return Array.isArray(value);
}

const MAX_DEPTH = 32;

class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  atEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  value(depth: number): unknown {
    if (depth > MAX_DEPTH) throw new RangeError("MessagePack value is nested too deeply");
    const marker = this.#uint(1);
    if (marker < 0x80) return marker;
    if (marker < 0x90) return this.#map(marker & 0x0f, depth);
    if (marker < 0xa0) return this.#list(marker & 0x0f, depth);
    if (marker < 0xc0) return this.#string(marker & 0x1f);
    if (marker >= 0xe0) return marker - 0x100;
    return this.#marked(marker, depth);
  }

  #marked(marker: number, depth: number): unknown {
    switch (marker) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return this.#take(this.#uint(1 << (marker - 0xc4)));
      case 0xca: return this.#view.getFloat32(this.#skip(4));
      case 0xcb: return this.#view.getFloat64(this.#skip(8));
      case 0xcc: case 0xcd: case 0xce: return this.#uint(1 << (marker - 0xcc));
      case 0xcf: return safe(this.#view.getBigUint64(this.#skip(8)));
      case 0xd0: return this.#view.getInt8(this.#skip(1));
      case 0xd1: return this.#view.getInt16(this.#skip(2));
      case 0xd2: return this.#view.getInt32(this.#skip(4));
      case 0xd3: return safe(this.#view.getBigInt64(this.#skip(8)));
      case 0xd9: case 0xda: case 0xdb: return this.#string(this.#uint(1 << (marker - 0xd9)));
      case 0xdc: case 0xdd: return this.#list(this.#uint(2 << (marker - 0xdc)), depth);
      case 0xde: case 0xdf: return this.#map(this.#uint(2 << (marker - 0xde)), depth);
      default: throw new RangeError(`MessagePack type 0x${marker.toString(16)} is not supported`);
    }
  }

  #map(count: number, depth: number): Record<string, unknown> {
    const found = Object.create(null) as Record<string, unknown>;
    for (let i = 0; i < count; i++) {
      const key = this.value(depth + 1);
      if (typeof key !== "string") throw new RangeError("MessagePack map key is not a string");
      found[key] = this.value(depth + 1);
    }
    return found;
  }

  #list(count: number, depth: number): unknown[] {
    const found: unknown[] = [];
    for (let i = 0; i < count; i++) found.push(this.value(depth + 1));
    return found;
  }

  #string(length: number): string {
    return utf8Decoder.decode(this.#take(length));
  }

  #take(length: number): Uint8Array {
    const at = this.#skip(length);
    return this.#bytes.subarray(at, at + length);
  }

  #uint(size: number): number {
    const at = this.#skip(size);
    if (size === 1) return this.#view.getUint8(at);
    return size === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }

  #skip(count: number): number {
    const at = this.#at;
    if (at + count > this.#bytes.length) throw new RangeError("MessagePack value is cut short");
    this.#at = at + count;
    return at;
  }
}

function safe(value: bigint): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw new RangeError("integer beyond 2^53");
  return number;
}
