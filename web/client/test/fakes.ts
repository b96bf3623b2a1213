/** A clock, sockets, a store, decoders and a server that live in this process. */

import type { Environment, SocketLike, Store } from "../src/environment.js";
import type { Codecs } from "../src/media/codecs.js";
import { decode, encode, type Packable } from "../src/msgpack.js";
import type { ClientMessage, Frame, Limits, Opened, Ready, ServerMessage } from "../src/protocol.js";

export class FakeClock {
  ms = 1000;
  #timers: { at: number; task: () => void }[] = [];
  #frames: (() => void)[] = [];

  readonly now = (): number => this.ms;

  readonly after = (ms: number, task: () => void): (() => void) => {
    const timer = { at: this.ms + ms, task };
    this.#timers.push(timer);
    return () => (this.#timers = this.#timers.filter((other) => other !== timer));
  };

  readonly frame = (task: () => void): (() => void) => {
    this.#frames.push(task);
    return () => (this.#frames = this.#frames.filter((other) => other !== task));
  };

  get timers(): number {
    return this.#timers.length;
  }

  /** Runs what is due on the way to `ms` later, in order. */
  advance(ms: number): void {
    const end = this.ms + ms;
    for (;;) {
      const next = this.#timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      this.#timers = this.#timers.filter((timer) => timer !== next);
      this.ms = Math.max(this.ms, next.at);
      next.task();
    }
    this.ms = end;
  }

  /** The display shows a picture, `ms` later. */
  paint(ms = 16): void {
    this.advance(ms);
    const tasks = this.#frames;
    this.#frames = [];
    for (const task of tasks) task();
  }
}

export class FakeStore implements Store {
  readonly items = new Map<string, string>();
  getItem = (key: string): string | null => this.items.get(key) ?? null;
  setItem = (key: string, value: string): void => void this.items.set(key, value);
  removeItem = (key: string): void => void this.items.delete(key);
}

export class FakeSocket implements SocketLike {
  binaryType: BinaryType = "blob";
  readyState = 0;
  bufferedAmount = 0;
  protocol = "worldline.v1";
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: { readonly data: unknown }) => void) | null = null;
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly url: string;
  readonly protocols: readonly string[];
  readonly sent: ClientMessage[] = [];
  closedWith: number | null = null;

  constructor(url: string, protocols: readonly string[]) {
    this.url = url;
    this.protocols = protocols;
  }

  send(data: Uint8Array<ArrayBuffer>): void {
    if (this.readyState !== 1) throw new Error("the socket is not open");
    this.sent.push(decode(data) as ClientMessage);
  }

  close(code = 1005): void {
    this.closedWith = code;
    this.readyState = 3;
  }

  // What the other side does:

  open(): void {
    this.readyState = 1;
    this.onopen?.(undefined as never);
  }

  say(message: ServerMessage): void {
    this.raw(encode(message as unknown as Packable).buffer);
  }

  raw(data: unknown): void {
    this.onmessage?.({ data });
  }

  drop(code = 1006, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  of<T extends ClientMessage["type"]>(type: T): Extract<ClientMessage, { type: T }>[] {
    return this.sent.filter((message) => message.type === type) as Extract<ClientMessage, { type: T }>[];
  }
}

export class FakeBrowser {
  readonly clock = new FakeClock();
  readonly store = new FakeStore();
  readonly sockets: FakeSocket[] = [];
  readonly sleepers = new Set<() => void>();

  get environment(): Environment {
    const { now, after, frame } = this.clock;
    const socket = (url: string, protocols: string[]): SocketLike => {
      const made = new FakeSocket(url, protocols);
      this.sockets.push(made);
      return made;
    };
    const woken = (task: () => void): (() => void) => {
      this.sleepers.add(task);
      return () => this.sleepers.delete(task);
    };
    return { now, after, frame, random: () => 0.5, socket, woken, store: this.store, secure: true };
  }

  get socket(): FakeSocket {
    const last = this.sockets.at(-1);
    if (!last) throw new Error("no socket was opened");
    return last;
  }
}

export const LIMITS: Limits = {
  max_message_bytes: 1 << 20,
  max_image_pixels: 1 << 24,
  max_prompt_chars: 4096,
  max_script_frames: 512,
  inputs_per_second: 60,
  worlds_per_client: 1,
  max_viewers: 8,
  max_lead_ms: 2000,
  heartbeat_ms: 20_000,
  init_timeout_ms: 10_000,
  idle_lease_ms: 60_000,
  grace_ms: 60_000,
  max_lifetime_ms: 0,
};

export const READY: Ready = {
  type: "ready",
  version: 1,
  server: "test",
  model: "pocket",
  fps: 16,
  formats: ["h264", "jpeg", "webp", "raw"],
  transports: ["websocket"],
  limits: LIMITS,
  server_ms: 0,
};

export const OPENED: Opened = {
  type: "opened",
  width: 832,
  height: 480,
  fps: 16,
  chunk: 3,
  latent_frames: 4,
  window: 18,
  sink: 3,
  steps: 4,
  seed: 42,
  prompt: "a courtyard",
  rig: { move: 0.05, yaw_deg: 6, pitch_deg: 4, pitch_limit_deg: 85 },
  intrinsics: [500, 500, 416, 240],
  first_frame: 0,
  controls: true,
  state: "live",
  speed: 1,
};

export function frame(number: number, change: Partial<Frame> = {}): Frame {
  return {
    type: "frame",
    number,
    chunk: Math.floor(number / 12),
    latent_frame: Math.floor((number % 12) / 4),
    format: "jpeg",
    width: 832,
    height: 480,
    payload: new Uint8Array([number & 0xff]),
    input: 0,
    key: true,
    first: number % 12 === 0,
    yaw: 0,
    pitch: 0,
    encoded_ms: 0,
    ...change,
  };
}

/** Something that closes, as pictures and video frames do. */
export class FakePicture {
  closed = false;
  readonly name: string;
  readonly width = 832;
  readonly height = 480;
  readonly timestamp: number;

  constructor(name: string, timestamp = 0) {
    this.name = name;
    this.timestamp = timestamp;
  }

  get codedWidth(): number {
    return this.closed ? 0 : 832;
  }

  close(): void {
    this.closed = true;
  }
}

export class FakeVideoDecoder {
  static made: FakeVideoDecoder[] = [];
  static isConfigSupported = (): Promise<{ supported: boolean }> => Promise.resolve({ supported: true });
  state: CodecState = "unconfigured";
  readonly init: VideoDecoderInit;
  readonly configs: VideoDecoderConfig[] = [];
  readonly chunks: EncodedVideoChunkInit[] = [];

  constructor(init: VideoDecoderInit) {
    this.init = init;
    FakeVideoDecoder.made.push(this);
  }

  configure(config: VideoDecoderConfig): void {
    this.state = "configured";
    this.configs.push(config);
  }

  decode(chunk: EncodedVideoChunk): void {
    this.chunks.push(chunk as unknown as EncodedVideoChunkInit);
  }

  close(): void {
    this.state = "closed";
  }

  /** The oldest `count` chunks come out as frames. */
  output(count = 1): void {
    for (const chunk of this.chunks.splice(0, count)) {
      this.init.output(new FakePicture("video", chunk.timestamp) as unknown as VideoFrame);
    }
  }

  fail(): void {
    this.state = "closed";
    this.init.error(new DOMException("bad bits", "EncodingError"));
  }
}

/** Decoders whose pictures are done when the test says so. */
export class FakeCodecs implements Codecs {
  readonly jobs: { resolve: (picture: FakePicture) => void; reject: (error: Error) => void; bytes: Uint8Array }[] = [];
  readonly pictures: FakePicture[] = [];
  automatic = true;
  video: Codecs["video"] = FakeVideoDecoder as unknown as Codecs["video"];

  constructor() {
    FakeVideoDecoder.made = [];
  }

  image = (bytes: Uint8Array): Promise<ImageBitmap> => this.#job(bytes);
  raw = (rgb: Uint8Array): Promise<ImageBitmap> => this.#job(rgb);

  still = (frame: VideoFrame): Promise<ImageBitmap> => {
    frame.close();
    return Promise.resolve(this.#picture(`video ${frame.timestamp}`));
  };

  chunk = (init: EncodedVideoChunkInit): EncodedVideoChunk => init as unknown as EncodedVideoChunk;

  #picture(name: string): ImageBitmap {
    const picture = new FakePicture(name);
    this.pictures.push(picture);
    return picture as unknown as ImageBitmap;
  }

  #job(bytes: Uint8Array): Promise<ImageBitmap> {
    if (this.automatic) return Promise.resolve(this.#picture(`image ${bytes[0]}`));
    return new Promise((resolve, reject) => {
      this.jobs.push({ bytes, reject, resolve: (picture) => resolve(picture as unknown as ImageBitmap) });
    });
  }
}

/** Lets promises that are settled call back. */
export async function settled(): Promise<void> {
  for (let i = 0; i < 8; i++) await Promise.resolve();
}
